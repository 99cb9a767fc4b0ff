"""The benchmark of replay reads its runs right, and compares arms at as many target groups."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    for settings in replay.ARMS.values():
        changes = ["sft=none", "model.type=path", "model.path=x", *settings, *replay.QUICK]
        recipe.load(ROOT / replay.RECIPE, changes)
    recipe.load(ROOT / replay.RECIPE, replay.QUICK_COLD)


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
    assert all(e.right == {"target": [False] * 2, "general": [True] * 2} for e in found)
    assert all(e.length == {"target": [4, 4], "general": [4, 4]} for e in found)


def test_the_summary(replay: Any) -> None:
    def run(pairs: list[tuple[int, float, float]], length: int) -> list[Any]:
        return [
            replay.Evaluated(
                step,
                groups,
                100 * step,
                {"target": [n < 10 * target for n in range(10)], "general": [n < 10 * kept for n in range(10)]},
                {"target": [length] * 10, "general": [9] * 10},
            )
            for step, (groups, target, kept) in enumerate(pairs)
        ]

    none = run([(0, 0.2, 1.0), (40, 0.6, 0.8), (80, 1.0, 0.4)], 20)
    recap = run([(0, 0.2, 1.0), (30, 0.5, 1.0), (60, 0.7, 0.9)], 21)
    short = run([(0, 0.2, 1.0), (40, 0.6, 0.8), (80, 0.8, 0.4)], 15)
    metrics, details = replay.summary({"none": {0: none, 1: none}, "recap": {0: recap}, "rorecomp": {0: short}})
    assert metrics["forgotten"] == pytest.approx(0.6)
    assert metrics["retained_accuracy_recap"] == pytest.approx(0.9)
    assert metrics["target_accuracy_none"] == pytest.approx(1.0)
    assert metrics["target_accuracy_at_equal_groups_none"] == pytest.approx(0.8)  # after 60 of its 80 groups
    assert metrics["length_ratio_rorecomp_to_grpo"] == pytest.approx(0.75)
    kept = details["arms"]["none"]["retained"]
    assert (kept["answers"], kept["seeds"]) == (20, [0.4, 0.4])
    assert (kept["low"], kept["high"]) == pytest.approx((0.219, 0.613), abs=1e-3)  # Wilson, 8 of 20
