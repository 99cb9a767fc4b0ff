"""`ponder eval modes` on real engines: killed in the middle and started again, it ends with the files of a calm run,
and the page of that run works in a browser.

`tests/faults/test_eval_modes_kill.py` kills at many more points, with a policy that needs no engine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.browser import CHROMIUM, Browser
from tests.tiny_model import SPECIAL, build_tiny_model

ROOT = Path(__file__).parents[2]
RECIPE = "tests/invariant/miniature.toml"
NUM_TASKS, NUM_SAMPLES = 40, 16
KILL_AT = 0.3  # of the bytes of all attempts
PROGRAM = "import sys; from launch.cli import main; sys.exit(main())"

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(900)]


def start(model: Path, out: Path) -> subprocess.Popen[str]:
    options = ["--modes", "high,low,6", "--numeric-instruction", "<low>", "--samples", str(NUM_SAMPLES)]
    options += ["--set", "budgets.max_prompt_tokens=16"]
    policy = ["--policy", str(model), "--recipe", RECIPE, "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "eval", "modes", *policy, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        start_new_session=True,
    )


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def kill_when_written(process: subprocess.Popen[str], file: Path, size: float) -> None:
    """SIGKILL to the command and to every process that it started, once so many bytes are on disk."""
    while process.poll() is None and size_of(file) < size:
        time.sleep(0.002)
    assert process.poll() is None, "it was through before it could be killed: " + process.communicate()[0]
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for member in family:
        if member.is_running():
            member.kill()
    process.communicate()


def test_a_killed_evaluation_ends_with_the_files_of_a_calm_one(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "model", tied=False, special=(*SPECIAL, "<high>", "<low>"))
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    process = start(model, calm)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    whole = size_of(calm / "attempts.jsonl")

    kill_when_written(start(model, killed), killed / "attempts.jsonl", KILL_AT * whole)
    kept = size_of(killed / "attempts.jsonl")
    assert 0 < kept < whole
    process = start(model, killed)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out

    for name in ("modes.json", "modes.md", "modes.html"):
        assert (killed / name).read_bytes() == (calm / name).read_bytes(), name
    keys = [json.loads(line)["key"] for line in (killed / "attempts.jsonl").read_text().splitlines()]
    assert len(set(keys)) == len(keys) == NUM_TASKS * 3 * NUM_SAMPLES // 8  # nothing on disk was made again
    sessions = json.loads((killed / "usage.json").read_text())["sessions"]
    assert 0 < sessions[-1]["samples"] < NUM_TASKS * 3 * NUM_SAMPLES
    if CHROMIUM is not None:
        check_page(calm / "modes.html", tmp_path / "profile")


def check_page(page: Path, profile: Path) -> None:
    with Browser(profile) as browser:
        browser.open(page)
        assert browser.count("#plot-frontier circle.point") == 3 and browser.count("#plot-tokens rect.box") == 3
        assert browser.text("#count") == "1,920 of 1,920 attempts"
        browser.click(".chip input[value='1']")
        assert browser.count("#plot-frontier circle.point") == 2 and browser.count("#modes-table tbody tr") == 2
        browser.click("#tasks tr.row")
        assert browser.count(".column") == 2
        assert browser.problems == []
