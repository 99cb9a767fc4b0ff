"""The benchmark of reinforcement mid-training reads its runs right, and compares arms at equal generated tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch import recipe
from rl.config import EvaluateConfig
from rl.driver import train
from tests.fakes.loop import make_world, play

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rmt() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import rmt

        yield rmt
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_every_arm_is_a_recipe_and_says_its_number(rmt: Any, tmp_path: Path) -> None:
    rmt.write_text(tmp_path / "sums.txt")
    start = ["sft=none", "model.type=path", "model.path=x"]
    for arm, steps in rmt.STEPS.items():
        config = recipe.load(ROOT / rmt.RECIPE, [*start, *rmt.settings_of(arm, tmp_path / "sums.txt", steps)])
        effort = config.budgets.efforts["high"]
        assert (effort.numbers is None) == (arm == "rmt") and (effort.decay is None) == (arm == "grpo")
    recipe.load(ROOT / rmt.RECIPE, [])


def test_a_run_is_read_by_tokens(rmt: Any, tmp_path: Path) -> None:
    """4 tokens an answer, 2 answers a group, 2 groups a step; the effort of the fakes is the one that is compared."""
    evaluate = EvaluateConfig(greedy=False)
    world = make_world(tmp_path, num_steps=4, groups_per_step=2, num_siblings=2, evaluate=evaluate, eval_every=2)
    world.judge.verdict = lambda job, sibling: 1.0 if job.num_siblings == 1 else float(sibling % 2)
    play(train(world.run))
    found = rmt.curve_of(tmp_path)
    assert [point["tokens"] for point in found] == [0, 32, 64]
    assert all(point["accuracy"] == 1.0 and point["right"] == point["answers"] > 0 for point in found)


def test_arms_are_compared_at_equal_tokens(rmt: Any) -> None:
    def curve(*points: tuple[float, float, float]) -> list[dict[str, float]]:
        return [
            {"tokens": tokens, "right": 100 * accuracy, "answers": 100, "accuracy": accuracy, "thinking": thinking}
            | {"deviation": 3.0}
            for tokens, accuracy, thinking in points
        ]

    grpo = [curve((0, 0.2, 20), (50, 0.4, 20), (100, 0.8, 22)), curve((0, 0.2, 20), (100, 0.4, 20))]
    short = [curve((0, 0.1, 12), (80, 0.9, 8)), curve((0, 0.1, 12), (90, 0.5, 6))]
    metrics, details = rmt.compare({"grpo": grpo, "rmt": short})
    assert metrics["equal_tokens"] == 80
    assert metrics["grpo_accuracy"] == pytest.approx((0.64 + 0.36) / 2)  # 0.4 + 0.6 * 0.4, 0.2 + 0.8 * 0.2
    assert metrics["grpo_tokens"] == pytest.approx((21.2 + 20) / 2)
    assert metrics["rmt_accuracy"] == pytest.approx((0.9 + (0.1 + 0.4 * 80 / 90)) / 2)
    assert metrics["token_ratio"] == pytest.approx(metrics["rmt_tokens"] / metrics["grpo_tokens"])
    assert details["rmt_accuracy_range"] == pytest.approx([0.1 + 0.4 * 80 / 90, 0.9])
    middle, low, high = details["grpo_last_accuracy"]
    assert middle == pytest.approx(0.6) and low < 0.6 < high
    mean, shortest, longest = details["rmt_last_tokens"]
    assert mean == pytest.approx(7) and mean - shortest == pytest.approx(longest - mean)
    assert longest - mean == pytest.approx(1.96 * (10 / 200) ** 0.5)  # 9 within each seed, 1 between the two
    assert details["rmt_before"] == {"accuracy": pytest.approx(0.1), "thinking": 12}
