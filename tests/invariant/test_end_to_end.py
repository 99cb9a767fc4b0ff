"""The whole job on the real stack, in miniature: cold start, training, Ctrl-C in the middle, resume, report.

vLLM in a Ray actor, the verifier and step services, DeepSpeed, publish-and-prove sync; nothing is faked. The task
source is a plugin given by path. The command runs in a process of its own, as a user's would, which also reports
whether the driver ever loaded torch.
"""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl.metrics import read_metrics
from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("miniature.toml")
INTERRUPT_AT, MORE_STEPS = 3, 8
PROGRAM = """
import sys
from launch.cli import main
code = main()
assert "torch" not in sys.modules, "the driver process loaded torch"
sys.exit(code)
"""

pytestmark = pytest.mark.stack


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        start_new_session=True,
    )


def interrupted_run(runs: Path) -> dict[str, Any]:
    """Ctrl-C, as a terminal sends it, once a few steps are trained."""
    process = start(str(RECIPE), "--set", f"run.dir={runs}", "--set", "run.name=mini", "--set", "loop.num_steps=500")
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f"step {INTERRUPT_AT}/"):
            break
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    left_over = [member.name() for member in family if member.is_running()]
    return {"code": process.returncode, "out": "".join(lines) + out, "err": err, "left_over": left_over}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("runs")
    first = interrupted_run(runs)
    directory = runs / "mini"
    saved = max((int(path.name[5:]) for path in (directory / "checkpoints").glob("step-??????")), default=0)
    assert saved >= INTERRUPT_AT, first["out"] + first["err"]
    process = start("--resume", str(directory), "--set", f"loop.num_steps={saved + MORE_STEPS}")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    return {"first": first, "saved": saved, "directory": directory, "out": out}


def test_ctrl_c_ends_every_process_and_says_how_to_go_on(story: dict[str, Any]) -> None:
    first = story["first"]
    assert first["code"] == 130, first["err"]
    assert first["left_over"] == []
    expected = f"interrupted; nothing finished is lost, go on with: ponder train --resume {story['directory']}\n"
    assert first["err"] == expected


def test_the_resumed_run_repeats_nothing_and_misses_nothing(story: dict[str, Any]) -> None:
    assert "cold start" not in story["out"]
    assert re.search(rf"^step {story['saved'] + 1}/", story["out"], re.MULTILINE)
    assert f"step {story['saved']}/" not in story["out"]
    entries = ledger(story["directory"] / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == 16 * (story["saved"] + MORE_STEPS)


def test_the_reward_rises(story: dict[str, Any]) -> None:
    rows = read_metrics(story["directory"] / "metrics.jsonl")
    rewards = [row["metrics"]["reward/mean"] for row in rows if "reward/mean" in row["metrics"]]
    assert len(rewards) == story["saved"] + MORE_STEPS
    assert rewards[0] < 0.65
    assert sum(rewards[-3:]) / 3 > rewards[0] + 0.2
    synced = [
        row["metrics"]["sync/max_probe_difference"] for row in rows if "sync/max_probe_difference" in row["metrics"]
    ]
    assert synced
    assert max(synced) < 1e-3


def test_the_summary_shows_the_gain_and_the_cost(story: dict[str, Any]) -> None:
    summary = json.loads((story["directory"] / "summary.json").read_text())
    assert list(summary) == ["seconds", "tokens_per_s", "peak_rss_gib", "efforts", "greedy"]
    assert all(summary["seconds"][name] > 0 for name in ("cold_start", "train", "eval", "total"))
    assert all(value > 0 for value in summary["tokens_per_s"].values())
    assert 0.5 < summary["peak_rss_gib"] < 10
    for effort in ("low", "high"):
        before, after = (summary["efforts"][effort][end] for end in ("before", "after"))
        assert after["accuracy"] > before["accuracy"] + 0.2
        assert before["low"] < before["accuracy"] < before["high"]


def test_the_run_directory_holds_everything(story: dict[str, Any]) -> None:
    names = {path.name for path in story["directory"].iterdir()}
    assert names >= {"config.json", "manifest.json", "metrics.jsonl", "groups", "checkpoints", "report.html", "model"}
    assert (story["directory"] / "model" / "model.safetensors").is_file()
    manifest = json.loads((story["directory"] / "manifest.json").read_text())
    assert len(manifest["sessions"]) == 2
    assert manifest["sessions"][0]["plugins"]["ponder.verifiers"]["exact"] == "rewards.exact_answer:verify"
    assert story["out"].splitlines()[-1] == f"report: {story['directory'] / 'report.html'}"
