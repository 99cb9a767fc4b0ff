"""kill -9 of a learner rank in the middle of a run: all ranks start again from the newest checkpoint, within bounds."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from rl.metrics import read_metrics
from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "tests/invariant/miniature.toml"
GROUPS, STEPS = 16, 12

# CI sees the death of the only rank in test_many_machines.py.
pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(400)]


@contextmanager
def training(directory: Path, *settings: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A run of the miniature with two ranks, and its console."""
    common = (
        f"run.dir={directory}",
        f"loop.num_steps={STEPS}",
        "learner.num_ranks=2",
        "learner.zero_stage=2",
        "buffer.max_lag=1",
        "sampling.judge_on=off",
        "sft=none",
        "evaluate.at_start=false",
    )
    program = "import sys; from launch.cli import main; sys.exit(main())"
    words = [word for setting in (*common, *settings) for word in ("--set", setting)]
    log = directory / "console.txt"
    command = [sys.executable, "-c", program, "train", str(RECIPE), *words]
    with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT) as run:
        yield run, log


def kill_a_rank(run: subprocess.Popen[bytes], log: Path, *, after_step: int) -> int:
    """kill -9 of one of the two, and its process id."""
    while f"step {after_step}/" not in (text := log.read_text()):
        assert run.poll() is None, text
        time.sleep(0.05)
    ranks = [p.pid for p in psutil.Process(run.pid).children(recursive=True) if is_rank(p)]
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    return ranks[1]


def is_rank(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::LearnerRan")
    except psutil.NoSuchProcess:
        return False


def test_a_run_survives_the_death_of_a_rank(tmp_path: Path) -> None:
    with training(tmp_path) as (run, log):
        kill_a_rank(run, log, after_step=6)
        assert run.wait(timeout=300) == 0, log.read_text()
    text = log.read_text()
    assert "died" in text and "All ranks are started again; of loop.max_restarts = 2, 1 left" in " ".join(text.split())
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "learner/restarts" in row["metrics"]]
    trained = [row for row in rows if "time/step_s" in row["metrics"]]
    assert [row["step"] for row in trained] == list(range(1, STEPS + 1)), "a step is missing, or is there twice"
    restarts = [row["metrics"]["learner/restarts"] for row in trained]
    assert restarts == sorted(restarts) and (restarts[0], restarts[-1]) == (0, 1)
    assert restarts.index(1) % 4 == 0, "it goes on from a checkpoint, which is written every 4 steps"
    entries = ledger(tmp_path / "run" / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == GROUPS * STEPS
    assert len({entry.task_key for entry in entries}) == len(entries)


def test_a_death_beyond_the_bound_ends_the_run_with_its_cause(tmp_path: Path) -> None:
    with training(tmp_path, "loop.max_restarts=0") as (run, log):
        killed = kill_a_rank(run, log, after_step=2)
        assert run.wait(timeout=120) != 0
    text = " ".join(log.read_text().split())
    assert re.search(r"learner rank (\d) died: .*learner_rank\1\.log", text) and f"process {killed})" in text, text
    assert "loop.max_restarts = 0" in text and "--resume" in text
