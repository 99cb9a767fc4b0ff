"""kill -9 between any two files of a checkpoint: the one before stays the newest, and the next save cleans up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rl.checkpoint import Checkpointer

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, os, pathlib, signal, sys
import rl.checkpoint as checkpoint

directory, step, left = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])

def dying(method):
    def call(*args, **kwargs):
        global left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
        return method(*args, **kwargs)
    return call

pathlib.Path.write_text = dying(pathlib.Path.write_text)
pathlib.Path.rename = dying(pathlib.Path.rename)
checkpoint._sync = dying(checkpoint._sync)
checkpoint.shutil.rmtree = dying(checkpoint.shutil.rmtree)

async def save_learner(path):
    place = pathlib.Path(path)
    place.mkdir()
    for rank in range(2):
        (place / f"shard_{rank}").write_text(f"step {step}, rank {rank}")

async def main():
    keeper = checkpoint.Checkpointer(directory, keep=1)
    await keeper.save(step, save_learner=save_learner, state={"step": step})

asyncio.run(main())
"""
NEVER = 10_000


def save(directory: Path, step: int, left: int) -> int:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, str(directory), str(step), str(left)]
    return subprocess.run(command, env=environment, cwd=ROOT).returncode


def test_a_kill_between_any_two_files_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    """Every change of the disk in turn is the one that the process does not live to make."""
    assert save(tmp_path, 1, NEVER) == 0
    kills, newest = 0, 1
    for left in range(100):
        code = save(tmp_path, 2, left)
        found = Checkpointer(tmp_path, keep=1).latest(pytest.fail)
        assert found is not None and found.state["step"] == found.step
        shards = sorted(path.read_text() for path in found.learner_path.iterdir())
        assert shards == [f"step {found.step}, rank {rank}" for rank in range(2)]
        assert found.step >= newest, "a checkpoint that was whole once stays the newest"
        newest = found.step
        if code == 0:
            break
        kills += 1
    assert kills >= 8 and newest == 2
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]
