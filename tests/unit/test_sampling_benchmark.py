"""The benchmark of samplers reads its runs right, and counts tokens up to where uniform got."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from launch import recipe
from rl.config import EvaluateConfig
from rl.driver import train
from tests.fakes.loop import make_world, play

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sampling() -> Any:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import sampling

        yield sampling
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_every_arm_is_a_recipe(sampling: Any) -> None:
    for pool in sampling.POOLS.values():
        for settings in sampling.ARMS.values():
            recipe.load(ROOT / sampling.RECIPE, ["sft=none", "model.path=x", *pool, *settings, *sampling.QUICK])


def test_a_run_is_read(sampling: Any, tmp_path: Path) -> None:
    """4 tokens an answer, 8 answers a group, 3 groups a step; every second group is all wrong."""
    evaluate = EvaluateConfig(greedy=False)
    world = make_world(tmp_path, num_steps=3, num_siblings=8, evaluate=evaluate, eval_every=1)
    world.judge.verdict = lambda job, sibling: float(sibling % 2 and job.group_id[-1] in "13579")
    play(train(world.run))
    curve = sampling.read_curve(tmp_path)
    assert curve.tokens == [0, 96, 192, 288]
    assert (curve.num_groups, curve.num_informative) == (9, 4)
    assert sorted(curve.accuracy) == [0, 1, 2, 3]
    assert curve.by_terms == {2: 0.0}  # the fake's held-out tasks are "7 + 1 =", and their only sibling is wrong


def test_tokens_until_uniform_is_reached(sampling: Any) -> None:
    """By means of two evaluations in a row, straight lines between them."""

    def curve(accuracy: list[float], step_tokens: int) -> Any:
        steps = range(len(accuracy))
        return sampling.Curve([step_tokens * n for n in steps], dict(zip(steps, accuracy, strict=True)), 10, 5)

    uniform = curve([0.0, 0.2, 0.4, 0.4], 100)
    found = sampling.summary(
        {
            ("uniform", 0): uniform,
            ("uniform", 1): uniform,
            ("vade", 0): curve([0.0, 0.4, 0.6, 0.8], 100),
            ("dapo", 0): curve([0.0, 0.1, 0.2, 0.3], 300),
        }
    )["arms"]
    assert found["uniform"]["tokens_at_goal"] == pytest.approx(300, abs=1)  # .3 after 200 tokens, .4 after 300
    assert found["uniform"]["tokens_ratio_to_uniform"] == 1.0
    assert found["vade"]["tokens_at_goal"] == pytest.approx(500 / 3, abs=1)  # .2 after 100, .5 after 200
    assert found["vade"]["tokens_ratio_to_uniform"] == pytest.approx(5 / 9, abs=0.01)
    assert found["vade"]["informative_share"] == 0.5
    assert found["dapo"]["reached"] is False
    assert found["dapo"]["missed_goal_by"] == pytest.approx(0.15)
    assert found["vade"]["missed_goal_by"] == 0.0
    assert found["dapo"]["tokens_ratio_to_uniform"] is None
    assert found["dapo"]["accuracy_at_equal_tokens"] == pytest.approx(0.05, abs=0.01)
    assert found["vade"]["equal_updates"] == 3
    assert found["vade"]["accuracy_at_equal_updates"] == pytest.approx(0.8)
