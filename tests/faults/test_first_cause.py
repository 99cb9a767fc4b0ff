"""The last line of a command that failed is its first cause: which actor, where, at which sample, and what to do."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError

from launch.errors import last_words
from rl.metrics import read_metrics
from rl.run import RunFailedError
from rollout.engine import EngineDeadError

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "tests/invariant/miniature.toml"
DEATH = ActorDiedErrorContext(
    class_name="RolloutActor", actor_id=bytes(16), pid=4711, node_ip_address="10.1.2.3", error_message="It is dead."
)


def failed_run() -> BaseException:
    """What reaches the program's boundary when an engine dies: wrapped, chained and annotated."""
    try:
        try:
            try:
                raise ActorDiedError(DEATH)
            except ActorDiedError as death:
                raise EngineDeadError("engine rollout-0 died during generate; its log: logs/rollout-0.log") from death
        except EngineDeadError as cause:
            raise RunFailedError(f"run failed in roll (group g7, task t9) after step 3: {cause}") from cause
    except RunFailedError as error:
        error.add_note("traceback: runs/x/errors.log")
        error.add_note("finished work is kept; once mended, go on with: ponder train --resume runs/x")
        return error


def test_the_last_line_says_who_where_at_what_and_what_next() -> None:
    first, last = last_words(failed_run())
    assert first == "traceback: runs/x/errors.log"
    assert last == (
        "error: run failed in roll (group g7, task t9) after step 3: engine rollout-0 died during "
        "generate; its log: logs/rollout-0.log (host 10.1.2.3, process 4711) -- finished work is kept; once mended, go "
        "on with: ponder train --resume runs/x"
    )


def test_it_is_found_in_a_group_beside_cancelled_tasks() -> None:
    import asyncio

    group = BaseExceptionGroup("tasks", [asyncio.CancelledError(), failed_run()])
    (last,) = last_words(group)
    assert "engine rollout-0 died" in last and "(host 10.1.2.3, process 4711)" in last


def test_without_an_actor_there_is_no_place_and_without_notes_no_advice() -> None:
    assert last_words(ValueError("loop.num_steps must be at least 1")) == ["error: loop.num_steps must be at least 1"]


# ------------------------------------------------------------------------------------------------ real runs


def started(tmp_path: Path, *settings: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = tmp_path / "console.txt"
    program = "import sys; from launch.cli import main; sys.exit(main())"
    given = (f"run.dir={tmp_path}", "sft.num_steps=20", "evaluate.at_start=false", "sampling.judge_on=off", *settings)
    command = [sys.executable, "-c", program, "train", str(RECIPE), *(w for s in given for w in ("--set", s))]
    with log.open("wb") as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT), log


def until_step(log: Path, step: int, run: subprocess.Popen[bytes]) -> None:
    while f"step {step}/" not in (text := log.read_text()):
        assert run.poll() is None, text
        time.sleep(0.1)


def actor(run: subprocess.Popen[bytes], name: str) -> psutil.Process:
    (found,) = (p for p in psutil.Process(run.pid).children(recursive=True) if p.name().startswith(f"ray::{name}"))
    return found


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.timeout(500)
@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_the_only_engine_dies_or_stands_still(tmp_path: Path, fault: signal.Signals) -> None:
    """Killed, or stopped, which is what a network partition looks like: no answer, no goodbye."""
    run, log = started(tmp_path, "loop.num_steps=500", "rollout.call_timeout_s=20", "loop.wait_deadline_s=60")
    try:
        until_step(log, 3, run)
        engine, began = actor(run, "RolloutAct"), time.monotonic()
        os.kill(engine.pid, fault)
        assert run.wait(timeout=200) not in (0, None)
        took = time.monotonic() - began
    finally:
        run.kill()
    last = log.read_text().rstrip().rpartition("\n")[2]
    assert took < 120, "every wait has a deadline"
    assert re.match(r"error: run failed in \w+ \((group \S+, task \S+, effort \w+|step \d+)\) after step \d+: ", last)
    assert "rollout-0" in last and "rollout-0.log" in last
    assert f"ponder train --resume {tmp_path / 'run'}" in last
    if fault is signal.SIGKILL:
        assert f"(host 127.0.0.1, process {engine.pid})" in last
    else:
        assert "within 20 s" in last
    assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE, "nothing is left behind"


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.timeout(500)
@pytest.mark.parametrize("daemon", ["gcs_server", "raylet"])
def test_ray_itself_dies(tmp_path: Path, daemon: str) -> None:
    """Without its head Ray ends the driver after a minute, without a word; the run is sooner. Without Ray on its own
    machine the driver may be ended at once; then somebody else has the last word."""
    run, log = started(tmp_path, "loop.num_steps=500")
    try:
        until_step(log, 3, run)
        family, began = psutil.Process(run.pid).children(recursive=True), time.monotonic()
        (victim,) = (p for p in family if p.name() == daemon)
        victim.kill()
        assert run.wait(timeout=120) == 1
        took = time.monotonic() - began
    finally:
        run.kill()
    text = log.read_text()
    last = text.rstrip().rpartition("\n")[2]
    assert took < 60, "sooner than Ray"
    named = "Ray's head, at 127" if daemon == "gcs_server" else "Ray on (the driver's|its) machine"
    assert re.match(r"error: .*" + named, last) and f"ponder train --resume {tmp_path / 'run'}" in last, text
    if daemon == "gcs_server":  # the ranks still answer then
        recorded = max(row["step"] for row in read_metrics(tmp_path / "run/metrics.jsonl"))
        assert (tmp_path / f"run/checkpoints/step-{recorded:06d}/seal.json").is_file(), "the last step is saved"
    assert not [p for p in family if alive(p)], "nothing is left behind"


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.timeout(500)
def test_a_killed_driver_takes_everything_with_it(tmp_path: Path) -> None:
    run, log = started(tmp_path, "loop.num_steps=500")
    try:
        until_step(log, 3, run)
        family = psutil.Process(run.pid).children(recursive=True)
        assert len(family) > 5
    finally:
        run.kill()
    run.wait(timeout=10)
    ends = time.monotonic() + 30
    while "ended without a word: it was killed" not in log.read_text():
        assert time.monotonic() < ends
        time.sleep(0.1)
    while left := [p for p in family if alive(p)]:
        assert time.monotonic() < ends, left
        time.sleep(0.5)


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.timeout(500)
def test_a_verifier_service_that_stands_still_leaves_answers_unjudged(tmp_path: Path) -> None:
    """Stopped for good; what it is asked is unjudged after its deadline, and the run ends as it should."""
    verifier = tmp_path / "verifier.py"  # integers would be settled without the service
    verifier.write_text("def verify(sample):\n    return float(sample.answer.strip() == sample.reference)\n")
    settings = ("loop.num_steps=8", "rewards.deadline_s=5", "evaluate.at_end=false")
    run, log = started(tmp_path, *settings, f"rewards.components.answer.verifier={verifier}:verify")
    try:
        until_step(log, 2, run)
        os.kill(actor(run, "_JudgeActor").pid, signal.SIGSTOP)
        assert run.wait(timeout=300) == 0, log.read_text()
    finally:
        run.kill()
    rows = [row["metrics"] for row in read_metrics(tmp_path / "run/metrics.jsonl") if "time/step_s" in row["metrics"]]
    shares = [row["judge/status/timeout"] for row in rows]
    assert len(shares) == 8 and shares[0] == 0 and shares[-1] > 0.9, shares
