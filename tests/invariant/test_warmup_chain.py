"""The shipped chain `warmup` on the real stack, with a model of two layers in place of SmolLM2: a few puzzles of worked
solutions, then a step of reinforcement learning on at most 100 tasks, measured on all three suites.
"""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest

from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
PROGRAM = "import sys; from launch.cli import main; sys.exit(main())"
SMALL = {
    "settings.model": {
        "type": "scratch",
        "hidden_size": 64,
        "num_layers": 2,
        "intermediate_size": 128,
        "num_heads": 2,
        "characters": string.ascii_letters + string.digits + string.punctuation + " \n",
        "special_tokens": ["Solution:", "####"],
        "max_positions": 1600,
    },
    "settings.budgets.max_prompt_tokens": 640,
    "settings.budgets.efforts.high.max_thinking_tokens": 40,
    "settings.rollout.max_model_len": 1600,
    "settings.rollout.group_size": 4,
    "settings.rollout.kv_cache_gib": 0.2,
    "settings.rollout.threads_per_engine": 1,
    "settings.sft.max_length": 1600,
    "settings.learner.threads_per_rank": 1,
    "settings.evaluate.num_tasks": 4,
    "settings.sampling.judge_on": "off",
    "settings.cluster.object_store_gib": 0.1,
    "stages.warmup.settings.tasks.train.num_tasks": 300,
    "stages.warmup.settings.sft.num_steps": 8,
    "stages.rlvr.settings.loop": {"num_steps": 1, "groups_per_step": 3, "checkpoint_every": 1},
    "suites.stories.limit": 4,
    "suites.puzzles.limit": 4,
    "suites.chains.limit": 4,
    "chain.evaluate_start": False,
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def toml(value: object) -> str:
    """A value as `--set` reads it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(part)}" for key, part in value.items()) + "}"
    return json.dumps(value)


def test_puzzles_first_then_at_most_a_hundred_tasks(tmp_path: Path) -> None:
    changes = [f"{name}={toml(value)}" for name, value in {**SMALL, "chain.dir": str(tmp_path)}.items()]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "chain", "warmup", *(part for c in changes for part in ("--set", c))],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    root = tmp_path / "warmup"
    matrix = json.loads((root / "forgetting.json").read_text())
    assert [row["stage"] for row in matrix["rows"]] == ["warmup", "rlvr"]
    assert matrix["suites"] == ["stories", "puzzles", "chains"]
    learned = json.loads((root / "1-warmup" / "cold_start.json").read_text())
    assert learned["final_loss"] < learned["first_loss"]
    entries = ledger(root / "2-rlvr" / "groups")
    assert len(entries) == 3
    config = json.loads((root / "2-rlvr" / "config.json").read_text())
    assert config["tasks"]["train"]["num_tasks"] == 100 and config["model"]["path"].endswith("1-warmup/start_model")
