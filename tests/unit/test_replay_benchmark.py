"""The benchmark of replay reads its runs right, and compares arms at as many target groups."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launch import recipe
from rl.config import EvaluateConfig
from rl.driver import train
from rl.sampling.build import build_sampler
from rl.sampling.config import QuotaSampling
from tests.fakes.loop import make_tasks, make_world, play

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def replay() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import replay

        yield replay
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_every_arm_is_a_recipe(replay: Any) -> None:
    for part in replay.PARTS.values():
        recipe.load(ROOT / replay.RECIPE, [*part.cold, *replay.QUICK_COLD])
        for settings in part.arms.values():
            changes = ["sft=none", "model.type=path", "model.path=x", *part.common, *settings, *replay.QUICK]
            recipe.load(ROOT / replay.RECIPE, changes)


def test_a_run_is_read_by_domain(replay: Any, tmp_path: Path) -> None:
    """4 tokens an answer, 2 answers a group; only the general domain is solved."""
    evaluate = EvaluateConfig(greedy=False)
    world = make_world(tmp_path, num_steps=4, groups_per_step=2, num_siblings=2, evaluate=evaluate, eval_every=2)
    tasks = [replace(task, source=("target", "general")[n % 2]) for n, task in enumerate(make_tasks(12))]
    config = QuotaSampling(type="quotas", shares={"target": 1.0, "general": 1.0})
    world.run.jobs.sampler = build_sampler(config, tasks, batch_size=2, seed=0)
    assert world.run.evaluator is not None
    world.run.evaluator.tasks = tuple(tasks[:4])
    world.judge.verdict = lambda job, sibling: float(
        job.task.source == "general" if job.num_siblings == 1 else sibling % 2
    )
    play(train(world.run))
    found = replay.read(tmp_path)
    assert [(e.step, e.target_groups, e.tokens) for e in found] == [(0, 0, 0), (2, 2, 32), (4, 4, 64)]
    assert all({k: v.tolist() for k, v in e.right.items()} == {"target": [0, 0], "general": [1, 1]} for e in found)
    assert all({k: v.tolist() for k, v in e.length.items()} == {"target": [4, 4], "general": [4, 4]} for e in found)


def evaluations(replay: Any, numbers: list[tuple[int, float, float]], length: int, step: int = 100) -> list[Any]:
    """From target groups, accuracy and retained accuracy on ten tasks each; `step` tokens between two evaluations."""
    return [
        replay.Evaluated(
            number,
            groups,
            step * number,
            {"target": np.arange(10) < 10 * target, "general": np.arange(10) < 10 * kept},
            {"target": np.full(10, float(length - number)), "general": np.full(10, 9.0)},
        )
        for number, (groups, target, kept) in enumerate(numbers)
    ]


def test_what_is_forgotten_and_what_is_kept(replay: Any) -> None:
    none = evaluations(replay, [(0, 0.2, 1.0), (40, 0.6, 0.8), (80, 1.0, 0.4)], 20)
    recap = evaluations(replay, [(0, 0.2, 1.0), (30, 0.5, 1.0), (60, 0.7, 0.9)], 21)
    metrics, details = replay.domains_summary({"none": {0: none, 1: none}, "recap": {0: recap, 1: recap}})
    assert metrics["forgotten"] == pytest.approx(0.6)
    assert metrics["retained_accuracy_recap"] == pytest.approx(0.9)
    assert metrics["target_accuracy_none"] == pytest.approx(1.0)
    assert metrics["target_accuracy_at_equal_groups_none"] == pytest.approx(0.8)  # after 60 of its 80 groups
    kept = details["arms"]["none"]["retained"]
    assert (kept["answers"], kept["seeds"]) == (20, [0.4, 0.4])
    assert (kept["low"], kept["high"]) == pytest.approx((0.219, 0.613), abs=1e-3)  # Wilson, 8 of 20
    gain = details["compared"]["recap_minus_none"]["retained"]["difference"]
    assert metrics["retained_gain_recap_over_none"] == gain["value"] == pytest.approx(0.5)
    assert gain["low"] == pytest.approx(0.2) and gain["high"] == pytest.approx(0.8)  # 5 of 10 tasks differ
    assert "recap_minus_uniform" not in details["compared"]


def test_lengths_are_compared_at_as_many_tokens(replay: Any) -> None:
    plain = evaluations(replay, [(0, 0.2, 1.0), (40, 0.6, 1.0), (80, 0.8, 1.0)], 20)
    short = evaluations(replay, [(0, 0.2, 1.0), (40, 0.4, 1.0), (80, 0.6, 1.0)], 16, step=75)
    metrics, details = replay.length_summary({"grpo": {0: plain}, "rorecomp": {0: short}})
    assert details["equal_tokens"] == 150
    assert metrics["length_grpo"] == 18 and metrics["length_at_equal_tokens_grpo"] == 18.5
    assert metrics["accuracy_at_equal_tokens_grpo"] == pytest.approx(0.7)  # half-way from 100 to 200 tokens
    assert metrics["accuracy_gain_rorecomp_over_grpo"] == pytest.approx(-0.1)
    assert metrics["length_ratio_rorecomp_to_grpo"] == pytest.approx(14 / 18.5, abs=1e-6)


def test_before_the_first_and_after_the_last_evaluation(replay: Any) -> None:
    run = evaluations(replay, [(0, 0.2, 1.0), (40, 0.6, 1.0)], 20)
    assert replay.at(run, 0, "tokens") is run[0]
    assert replay.at(run, 10**9, "tokens").right["target"].mean() == pytest.approx(0.6)
