"""The exploration bonus: worked numbers, what it is not paid for, features of a real small model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.exploration.bonus import bonus, sparse_projection
from rl.exploration.config import ExplorationConfig
from rl.exploration.explorer import Explorer
from rl.scoring import scored_group
from rl.verdict import final_rewards
from rollout.schema import Group, ScoredGroup, Trajectory
from tests.fakes.loop import make_job, make_trajectory, make_world, outcome, play
from tests.tiny_model import build_tiny_model

CROSS = np.asarray([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])


def test_worked_numbers() -> None:
    leverage = bonus(CROSS, ridge=0.01)
    np.testing.assert_allclose(leverage, [0.497512, 0.497512, 0.499376, 0.499376], atol=5e-7)
    assert leverage.sum() == pytest.approx(1.993776, abs=1e-6)
    np.testing.assert_allclose(
        bonus(CROSS, ridge=0.01, form="leave_one_out"), [0.990099, 0.990099, 0.997506, 0.997506], atol=5e-7
    )
    line = bonus(np.asarray([[1.0], [1], [1], [-3]]), ridge=0.01)
    np.testing.assert_allclose(line, [0.0833, 0.0833, 0.0833, 0.7494], atol=5e-5)
    assert not bonus(np.ones((4, 3)), ridge=0.01).any()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 6), st.floats(0.001, 10))
def test_both_forms_are_their_definitions(seed: int, size: int, dimension: int, ridge: float) -> None:
    features = np.random.default_rng(seed).normal(size=(size, dimension))
    centred = features - features.mean(axis=0)
    moment = ridge * np.eye(dimension) + centred.T @ centred
    leverage = bonus(features, ridge=ridge)
    assert ((leverage >= 0) & (leverage < 1)).all() and leverage.sum() <= min(size, dimension) + 1e-9
    for i, h in enumerate(centred):
        assert leverage[i] == pytest.approx(h @ np.linalg.inv(moment) @ h, abs=1e-9)
        left = h @ np.linalg.inv(moment - np.outer(h, h)) @ h
        assert bonus(features, ridge=ridge, form="leave_one_out")[i] == pytest.approx(left, rel=1e-6, abs=1e-9)
    order = np.random.default_rng(seed + 1).permutation(size)
    np.testing.assert_allclose(bonus(features[order], ridge=ridge), leverage[order], atol=1e-9)


def test_large_norms_flatten_the_bonus_and_scaling_or_fewer_dimensions_do_not() -> None:
    """The published pair, n = 8 and d = 32, tells nothing apart where the features are large."""
    large = 5 * np.random.default_rng(0).normal(size=(8, 32))
    assert bonus(large, ridge=0.01).std() < 1e-3
    assert bonus(large, ridge=0.01)[0] == pytest.approx(7 / 8, abs=1e-3)
    assert bonus(large, ridge=1.0, scale="unit_rms").std() > 0.01
    assert bonus(large[:, :4], ridge=0.01).std() > 0.1


def test_the_projection_keeps_norms_on_average() -> None:
    x = np.random.default_rng(1).normal(size=(64, 512))
    ratio = ((x @ sparse_projection(512, 64, seed=0)) ** 2).sum(axis=1) / (x**2).sum(axis=1)
    assert ratio.mean() == pytest.approx(1.0, abs=0.08)
    np.testing.assert_array_equal(sparse_projection(9, 4, seed=3), sparse_projection(9, 4, seed=3))


# ---------------------------------------------------------------------------------------- in the loop


class Rows:
    """Gives each trajectory the row of its sibling."""

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows
        self.num_calls = 0

    async def features(self, trajectories: Sequence[Trajectory]) -> np.ndarray:
        self.num_calls += 1
        return self.rows[[t.sibling for t in trajectories]]


def group_of(size: int) -> Group:
    return Group(job=make_job(num_siblings=size), trajectories=tuple(make_trajectory("g", i) for i in range(size)))


def paid(rows: np.ndarray, *scores: float | None, **changes: object) -> tuple[np.ndarray, Explorer, Rows]:
    representer = Rows(rows)
    explorer = Explorer(ExplorationConfig.model_validate({"weight": 0.5, "dimension": 64, **changes}), representer)
    term = asyncio.run(explorer.term(group_of(len(scores)), [outcome(score) for score in scores]))
    return term["exploration"], explorer, representer


ODD_ONE = np.asarray([[1.0, 0.0, 0.0]] * 3 + [[0.0, 9.0, 0.0]])


def test_the_odd_one_out_is_paid_most() -> None:
    values, explorer, _ = paid(ODD_ONE, 1.0, 0.0, 1.0, 0.0)
    assert values.dtype == np.float32 and values.argmax() == 3 and values[3] > 2 * values[0] > 0
    found = {metric.name: metric.value for metric in explorer.metrics()}
    assert found["explore/flat_share"] == 0.0 and found["explore/std"] > 0.1 and found["explore/norm"] > 0
    assert -1 <= found["explore/with_right"] < 0
    assert explorer.metrics() == []


@pytest.mark.parametrize("scores", [(0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), (None, None, None, 1.0)])
def test_nothing_is_paid_where_nothing_is_right_or_nothing_else_differs(scores: tuple[float | None, ...]) -> None:
    values, explorer, representer = paid(ODD_ONE, *scores)
    assert not values.any() and representer.num_calls == 0 and explorer.metrics() == []


def test_a_group_that_is_all_right_is_paid_only_if_asked_for() -> None:
    values, _, _ = paid(ODD_ONE, 1.0, 1.0, 1.0, 1.0, all_right=True)
    assert values[3] > values[0] > 0


def test_the_unjudged_are_not_paid_and_not_compared_with() -> None:
    values, _, _ = paid(ODD_ONE, 1.0, 0.0, 1.0, None)
    assert values[3] == 0 and np.abs(values).max() < 1e-12  # the three others are alike
    flat, explorer, _ = paid(np.eye(4) * 50, 1.0, 0.0, 1.0, 0.0)
    assert np.ptp(flat) < 0.01
    assert {m.name: m.value for m in explorer.metrics()}["explore/flat_share"] == 1.0


def test_a_group_is_paid_the_same_again() -> None:
    rows = np.random.default_rng(0).normal(size=(4, 8))
    first, _, _ = paid(rows, 1.0, 0.0, 1.0, 0.0, dimension=2)
    again, _, _ = paid(rows, 1.0, 0.0, 1.0, 0.0, dimension=2)
    np.testing.assert_array_equal(first, again)


def test_the_loop_pays_it_beside_the_outcome(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    scores = np.random.default_rng(0).normal(size=(8, 6))
    world.run.explorer = Explorer(ExplorationConfig(weight=0.5, all_right=True), Rows(scores))

    async def six() -> list[ScoredGroup]:
        return [await scored_group(world.run, world.run.jobs.next(1)) for _ in range(6)]

    groups = play(six())
    assert all("exploration" in scored.shaped for scored in groups)
    mixed = [scored for scored in groups if scored.outcome_scores.any()]
    assert mixed
    for scored in mixed:
        np.testing.assert_allclose(
            final_rewards(scored) - scored.outcome_scores, scored.shaped["exploration"], atol=1e-6
        )
        assert scored.shaped["exploration"].any()


# ---------------------------------------------------------------------------------------- features


def test_features_are_means_over_sampled_tokens_whatever_else_is_in_the_batch(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModel

    from rl.learner.representation import Representation

    model_dir = str(build_tiny_model(tmp_path / "model", tied=True))
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 200, size=size).astype(np.int32) for size in (5, 17, 9)]
    masks = [np.arange(len(row)) >= 3 for row in ids]
    found = Representation(model_dir, device="cpu", dtype="float32", batch_tokens=40).features(ids, masks)
    model = AutoModel.from_pretrained(model_dir, dtype=torch.float32)
    for row, mask, got in zip(ids, masks, found, strict=True):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([row.tolist()])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(got, hidden[mask].mean(axis=0), atol=1e-5)
    alone = Representation(model_dir, device="cpu", dtype="float32", batch_tokens=64).features(ids[1:2], masks[1:2])
    np.testing.assert_allclose(alone[0], found[1], atol=1e-6)
    with pytest.raises(ValueError, match="both must have one vocabulary"):
        Representation(model_dir, device="cpu", dtype="float32", batch_tokens=64).features(
            [np.asarray([10**6], dtype=np.int32)], [np.asarray([True])]
        )
    assert math.isfinite(found.sum())
