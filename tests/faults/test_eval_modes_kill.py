"""kill -9 at random points of an evaluation, again and again, until it is through: the results are those of a run
that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.fakes.modes import make_tasks

ROOT = Path(__file__).parents[2]
RESULTS = ("modes.json", "modes.md", "modes.html")
KILLS = 8


def start(tasks: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.unit.launch.modes_program", str(tasks), str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def test_an_evaluation_that_is_killed_again_and_again_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    tasks = tmp_path / "sums.jsonl"
    rows = [{"prompt": t.prompt[0].content, "answer": t.answer} for t in make_tasks(60)]
    tasks.write_text("".join(json.dumps(row) + "\n" for row in rows))

    calm = start(tasks, tmp_path / "calm")
    _, error = calm.communicate(timeout=120)
    assert calm.returncode == 0, error.decode()
    whole = size_of(tmp_path / "calm" / "attempts.jsonl")

    out = tmp_path / "killed"
    file = out / "attempts.jsonl"
    rng = random.Random(0)
    num_killed, torn = 0, 0
    for number in range(KILLS):
        process = start(tasks, out)
        goal = size_of(file) + whole * rng.uniform(0.01, 1.6 / KILLS)  # so many bytes of work are allowed
        while process.poll() is None and size_of(file) < goal:
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            num_killed += 1
        process.communicate()
        if number % 3 == 0 and size_of(file) > 50:  # what a crash of the machine may leave
            os.truncate(file, size_of(file) - rng.randrange(1, 50))
            torn += 1
    assert num_killed >= KILLS // 2 and torn >= 3
    last = start(tasks, out)
    _, error = last.communicate(timeout=120)
    assert last.returncode == 0, error.decode()
    for name in RESULTS:
        assert (out / name).read_bytes() == (tmp_path / "calm" / name).read_bytes(), name
    lines = file.read_text().splitlines()
    keys = [json.loads(line)["key"] for line in lines]
    assert len(set(keys)) == len(keys) == 60 * 3 * 2  # nothing that was on disk was made again
