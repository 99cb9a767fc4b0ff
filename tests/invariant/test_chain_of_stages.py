"""A chain on the real stack, killed in its second stage and in its third: what is finished is never begun again, and
the end holds every stage, every suite and one summary.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from launch.cli import main
code = main()
assert not {"torch", "trl"} & set(sys.modules), "the driver process loaded torch or trl"
sys.exit(code)
"""
STAGES = ("1-sft", "2-dpo", "3-rlvr")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "chain", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        start_new_session=True,
    )


def kill_when_there(process: subprocess.Popen[str], path: Path) -> None:
    """SIGKILL to the command and all that it started, once `path` is there."""
    while process.poll() is None and not path.exists():
        time.sleep(0.02)
    assert process.poll() is None, "it was through before it could be killed: " + process.communicate()[0]
    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for member in family:
        if member.is_running():
            member.kill()
    process.communicate()


def stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("chains")
    root = runs / "mini"
    first = start("tests/invariant/miniature_chain.toml", "--set", f"chain.dir={runs}")
    kill_when_there(first, root / "2-dpo" / "groups" / "eval-000001.parquet")
    kept = {name: stamp(root / name) for name in ("1-sft/start_model/model.safetensors", "1-sft/phases.json")}
    kept["2-dpo/groups/eval-000001.parquet"] = stamp(root / "2-dpo" / "groups" / "eval-000001.parquet")
    second = start("--resume", str(root))
    kill_when_there(second, root / "3-rlvr" / "checkpoints" / "step-000002")
    names = ("model/model.safetensors", "pairs.parquet", "preference.json")
    kept |= {f"2-dpo/{name}": stamp(root / "2-dpo" / name) for name in names}
    third = start("--resume", str(root))
    out, _ = third.communicate(timeout=600)
    assert third.returncode == 0, out
    return {"root": root, "kept": kept, "out": out}


def test_what_was_finished_is_never_made_again(story: dict[str, Any]) -> None:
    assert {name: stamp(story["root"] / name) for name in story["kept"]} == story["kept"]
    entries = ledger(story["root"] / "3-rlvr" / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == 16 * 6


def test_each_stage_begins_with_the_weights_of_the_one_before(story: dict[str, Any]) -> None:
    root = story["root"]
    ends = {"1-sft": "start_model", "2-dpo": "model"}
    for before, after in itertools.pairwise(STAGES):
        given = (root / after / "start_model" / "model.safetensors").read_bytes()
        assert given == (root / before / ends[before] / "model.safetensors").read_bytes()
    weights = {(root / name / "model" / "model.safetensors").read_bytes() for name in STAGES[1:]}
    assert len(weights) == 2


def test_every_stage_is_measured_on_every_suite(story: dict[str, Any]) -> None:
    found = json.loads((story["root"] / "forgetting.json").read_text())
    assert [row["stage"] for row in found["rows"]] == ["start", "sft", "dpo", "rlvr"]
    assert found["suites"] == ["held", "other"] and found["num_tasks"] == {"held": 30, "other": 20}
    accuracy = {row["stage"]: row["suites"]["held"]["accuracy"]["value"] for row in found["rows"]}
    assert accuracy["start"] < 0.4 and accuracy["rlvr"] > accuracy["start"]
    assert found["rows"][0]["suites"]["held"]["drop"] is None and found["forgetting"] >= 0.0
    assert "rgba(" in (story["root"] / "chain.html").read_text()
    assert "| rlvr | " in (story["root"] / "chain.md").read_text()


def test_the_summary_holds_all_stages(story: dict[str, Any]) -> None:
    summary = json.loads((story["root"] / "summary.json").read_text())
    assert [stage["type"] for stage in summary["stages"]] == ["sft", "preference", "rl"]
    assert all(stage["is_done"] and stage["seconds"] > 0 for stage in summary["stages"])
    dpo = summary["stages"][1]
    assert dpo["preference"]["first_loss"] == pytest.approx(0.6931, abs=0.02)
    assert dpo["preference"]["final_loss"] < dpo["preference"]["first_loss"]
    assert dpo["pairs"]["num_pairs"] > 0 and dpo["pairs"]["num_tasks"] == 160
    assert "Forgetting after the last row" in story["out"]
