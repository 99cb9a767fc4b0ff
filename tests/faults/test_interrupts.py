"""Ctrl-C in every phase of a real run: every process ends, nothing finished is lost, and the run goes on from there.

One run is interrupted again and again. Each session is a `ponder train` of its own; what it adds to the command is a
finger on Ctrl-C, which presses for the whole process group, as a terminal does, while the call that is named is under
way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from rl.metrics import read_metrics
from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "tests/invariant/miniature.toml"
GROUPS = 16  # of a step of the recipe
STEPS = 6

# Phase -> where the loop waits in it: who, for what. The cold start is outside the loop.
WAITS = {
    "evaluation": ("evaluation of task", "the generator"),
    "generation": ("roll of group", "the generator"),
    "learning": ("learn", "the learner at step"),
    "publishing": ("learn", "the engines to serve version"),
    "checkpoint": ("learn", "the learner to save itself"),
}
PROGRAM = """
import json, os, signal, sys, threading
import psutil
from launch.cli import main
from launch.console import ConsoleReporter
from rl.waits import Waits

owner, target, skip, family = sys.argv.pop(1), sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1)

def press():
    with open(family, "w") as file:
        json.dump([child.pid for child in psutil.Process().children(recursive=True)], file)
    os.killpg(0, signal.SIGINT)

def reached(matches):
    global skip
    skip -= matches
    if matches and skip == -1:
        threading.Timer(0.02, press).start()

outside, progress = Waits.outside, ConsoleReporter.progress

async def watched_wait(self, by, what, call):
    reached(by.startswith(owner) and what.startswith(target))
    return await outside(self, by, what, call)

def watched_progress(self, *args, **more):
    reached(owner == "cold start")
    progress(self, *args, **more)

Waits.outside, ConsoleReporter.progress = watched_wait, watched_progress
sys.exit(main())
"""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]


@dataclass(frozen=True)
class Ended:
    """How a session ended."""

    code: int
    out: str
    err: str
    left_over: list[str]


def session(directory: Path, phase: str, *, skip: int = 0, is_first: bool = False) -> Ended:
    """One command, interrupted in `phase` at the call after `skip` others like it."""
    family = directory.parent / "family.json"
    owner, target = WAITS.get(phase, (phase, ""))
    arguments = ["--resume", str(directory)]
    if is_first:
        settings = (f"run.dir={directory.parent}", f"run.name={directory.name}", f"loop.num_steps={STEPS}")
        arguments = [str(RECIPE), *(word for setting in settings for word in ("--set", setting))]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, owner, target, str(skip), str(family), "train", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        start_new_session=True,
    )
    members = json.loads(family.read_text()) if family.is_file() else []
    family.unlink(missing_ok=True)
    left_over = [psutil.Process(pid).name() for pid in members if psutil.pid_exists(pid)]
    return Ended(code=done.returncode, out=done.stdout, err=done.stderr, left_over=left_over)


def check_interrupted(ended: Ended, directory: Path) -> None:
    assert ended.code == 130, ended.out + ended.err
    assert ended.err == f"interrupted; nothing finished is lost, go on with: ponder train --resume {directory}\n"
    assert ended.left_over == []


def check_saved(directory: Path) -> int:
    """The newest checkpoint is that of the last finished step, and none is half written. Returns that step."""
    recorded = max((entry.step for entry in ledger(directory / "groups")), default=0)
    names = sorted(path.name for path in (directory / "checkpoints").iterdir())
    assert names[-1:] == ([f"step-{recorded:06d}"] if recorded else [])
    assert not [name for name in names if name.endswith(".tmp")]
    return recorded


def finished(directory: Path) -> None:
    """Let the run end, and see that all of its tasks were consumed once and every step was measured once."""
    ended = session(directory, "nowhere")
    assert ended.code == 0, ended.out + ended.err
    assert (directory / "report.html").is_file()
    rows = [row["step"] for row in read_metrics(directory / "metrics.jsonl") if "batch/samples" in row["metrics"]]
    assert rows == list(range(1, STEPS + 1))
    entries = ledger(directory / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == GROUPS * STEPS


def interrupted_in(phases: dict[str, int], directory: Path) -> dict[str, int]:
    """Interrupt one run in each phase in turn; return the step that was saved each time."""
    saved: dict[str, int] = {}
    for number, (phase, skip) in enumerate(phases.items()):
        check_interrupted(session(directory, phase, skip=skip, is_first=number == 0), directory)
        saved[phase] = check_saved(directory) if (directory / "checkpoints").is_dir() else 0
    return saved


def test_ctrl_c_in_the_cold_start_and_while_weights_are_published(tmp_path: Path) -> None:
    directory = tmp_path / "mini"
    # Publishing belongs to step 1, which is finished and saved.
    assert interrupted_in({"cold start": 2, "publishing": 0}, directory) == {"cold start": 0, "publishing": 1}
    finished(directory)


@pytest.mark.slow
def test_ctrl_c_in_every_phase(tmp_path: Path) -> None:
    directory = tmp_path / "mini"
    saved = interrupted_in(
        {
            "cold start": 2,
            "evaluation": 5,
            "generation": GROUPS + 3,  # of the second step: the first one is finished
            "learning": 0,
            "publishing": 0,
            "checkpoint": 0,
        },
        directory,
    )
    assert saved == {"cold start": 0, "evaluation": 0, "generation": 1, "learning": 2, "publishing": 3, "checkpoint": 4}
    finished(directory)
