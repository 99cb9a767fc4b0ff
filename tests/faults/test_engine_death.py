"""kill -9 of an engine in the middle of a run with two: the other goes on, the dead one comes back, nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rl.metrics import read_metrics
from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "tests/invariant/miniature.toml"
GROUPS = 16
STEPS = 60

# CI sees the death of an engine in test_many_machines.py.
pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(400)]


def engines_of(run: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in run.children(recursive=True):
        try:
            if process.name().startswith("ray::RolloutAct"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def until_step(log: Path, step: int, run: subprocess.Popen[bytes]) -> None:
    while f"step {step}/" not in (text := log.read_text()):
        assert run.poll() is None, text
        time.sleep(0.1)


def test_a_run_survives_the_death_of_an_engine(tmp_path: Path) -> None:
    log, directory = tmp_path / "console.txt", tmp_path / "run"
    settings = (
        f"run.dir={tmp_path}",
        f"loop.num_steps={STEPS}",
        "rollout.num_engines=2",
        "cluster.num_cpus=3",
        "sampling.judge_on=off",
        "sft.num_steps=20",
        "evaluate.at_start=false",
    )
    program = "import sys; from launch.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", str(RECIPE), *(w for s in settings for w in ("--set", s))]
    with log.open("wb") as out, subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT) as run:
        until_step(log, 3, run)
        engines = engines_of(psutil.Process(run.pid))
        assert len(engines) == 2
        os.kill(engines[0].pid, signal.SIGKILL)
        assert run.wait(timeout=300) == 0, log.read_text()
    text = log.read_text()
    assert "Its jobs go to the other 1; it is being started again" in text
    rows = [row["metrics"] for row in read_metrics(directory / "metrics.jsonl") if "engines/lost" in row["metrics"]]
    assert rows[-1]["engines/lost"] == 1 and rows[0]["engines/lost"] == 0
    assert min(row["engines/serving"] for row in rows) == 1
    if "is back and serves from the next publish on" in text.partition(f"step {STEPS - 2}/")[0]:
        assert rows[-1]["engines/serving"] == 2
    entries = ledger(directory / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == GROUPS * STEPS
