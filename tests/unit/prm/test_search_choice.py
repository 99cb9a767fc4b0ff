"""Aggregates, votes, the mix by difficulty, and the choice of solutions that differ: worked numbers and properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm.search.aggregate import AGGREGATES, aggregate
from prm.search.compute_optimal import compute_optimal, quantile_bins
from prm.search.coreset import coreset
from prm.search.vote import share_right, winners
from rollout.schema import ScoreKind, StepScores, StepSpan


def steps(*scores: float, kind: ScoreKind = ScoreKind.PROB) -> StepScores:
    spans = tuple(StepSpan(start=i, end=i + 1) for i in range(len(scores)))
    return StepScores(spans=spans, scores=np.asarray(scores, dtype=np.float32), kind=kind, scorer="test")


def test_aggregates_by_hand() -> None:
    found = {name: aggregate(steps(0.5, 1.0, 0.8), name) for name in AGGREGATES}
    assert found["last"] == pytest.approx(0.8) and found["min"] == 0.5
    assert found["product"] == pytest.approx(0.4) and found["mean"] == pytest.approx(2.3 / 3)
    weights = np.exp(-np.asarray([0.5, 1.0, 0.8]) / 0.1)
    assert found["soft_min"] == pytest.approx(float((weights * [0.5, 1.0, 0.8]).sum() / weights.sum()), rel=1e-6)


def test_an_unjudged_step_is_left_out_and_nothing_judged_is_no_number() -> None:
    assert aggregate(steps(0.5, math.nan), "last") == 0.5
    assert aggregate(steps(0.5, math.nan), "product") == 0.5
    for name in AGGREGATES:
        assert math.isnan(aggregate(steps(math.nan), name)) and math.isnan(aggregate(steps(), name))
        assert math.isnan(aggregate(None, name))


def test_a_product_of_log_ratios_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'product' needs scores of kind prob.*use min, mean or last"):
        aggregate(steps(-0.5, kind=ScoreKind.Q), "product")
    assert aggregate(steps(-0.5, -2.0, kind=ScoreKind.Q), "min") == -2.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=8))
def test_soft_min_lies_between_min_and_mean(scores: list[float]) -> None:
    low, soft, mean = (aggregate(steps(*scores), name) for name in ("min", "soft_min", "mean"))
    assert low - 1e-6 <= soft <= mean + 1e-6


def test_weighted_and_plain_best_of_n_by_hand() -> None:
    answers, scores = ["a", "a", "a", "b"], [0.3, 0.3, 0.3, 0.8]
    assert winners(answers, scores, "weighted_best_of_n", are_probabilities=True) == (0, 1, 2)
    assert winners(answers, scores, "best_of_n", are_probabilities=True) == (3,)
    assert winners(answers, scores, "majority", are_probabilities=True) == (0, 1, 2)
    negative = [-3.0, -3.0, -3.0, -2.0]
    assert winners(answers, negative, "weighted_best_of_n", are_probabilities=False) == (3,)  # frequent is punished
    assert winners(answers, negative, "weighted_majority", are_probabilities=False) == (0, 1, 2)


def test_no_answer_does_not_vote_and_no_score_does_not_weigh() -> None:
    assert winners(["", "", "x"], [1.0, 1.0, 0.1], "majority", are_probabilities=True) == (2,)
    assert winners(["", ""], [1.0, 1.0], "majority", are_probabilities=True) == ()
    assert winners(["x", "y"], [math.nan, 0.0], "best_of_n", are_probabilities=True) == (1,)
    assert winners(["x", "y"], [math.nan] * 2, "best_of_n", are_probabilities=True) == ()
    assert winners(["x", "y"], [math.nan] * 2, "weighted_best_of_n", are_probabilities=True) == ()


def test_ties_count_by_answer_and_the_unjudged_are_left_out() -> None:
    answers = ["a", "a", "b", "b"]
    tied = winners(answers, [0.0] * 4, "majority", are_probabilities=True)
    assert tied == (0, 1, 2, 3)
    assert share_right(tied, [True, True, False, False], answers) == 0.5
    assert share_right(tied, [True, True, None, None], answers) == 1.0
    assert math.isnan(share_right((), [True], ["a"]))


def test_the_mix_is_chosen_on_the_other_half() -> None:
    """Strategy 0 is right on easy tasks and 1 on hard ones: the mix is right everywhere, either alone on half."""
    difficulty = np.repeat([0.1, 0.9], 20)
    accuracy = np.zeros((2, 40, 1))
    accuracy[0, difficulty > 0.5] = accuracy[1, difficulty < 0.5] = 1.0
    mixed = compute_optimal(accuracy, difficulty, num_bins=2, seed=3)
    assert mixed.value.mean() == 1.0 and accuracy.mean(axis=1).max() == 0.5
    assert mixed.folds.sum() == 20 and mixed.folds[:20].sum() == 10
    assert mixed.chosen[:, :, 0].tolist() == [[1, 0], [1, 0]]


def test_a_lucky_half_does_not_pay_itself() -> None:
    """Coin flips: chosen and counted on the same tasks the best of 30 looks better than a half; across folds not."""
    rng = np.random.default_rng(0)
    gains, cheats = [], []
    for seed in range(40):
        accuracy = (rng.random((30, 60, 1)) < 0.5).astype(float)
        gains.append(compute_optimal(accuracy, rng.random(60), num_bins=3, seed=seed).value.mean() - 0.5)
        cheats.append(accuracy.mean(axis=1).max() - 0.5)
    assert abs(np.mean(gains)) < 0.03 < 0.1 < np.mean(cheats)


def test_bins_are_quantiles_and_equal_values_stay_together() -> None:
    assert quantile_bins(np.arange(10.0), 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len(set(quantile_bins(np.ones(9), 3).tolist())) == 1


def test_what_two_folds_cannot_be_made_of_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 tasks"):
        compute_optimal(np.ones((1, 1, 1)), np.ones(1))
    with pytest.raises(ValueError, match="1 unknown"):
        compute_optimal(np.ones((1, 2, 1)), np.asarray([0.5, np.nan]))


def test_coreset_by_hand() -> None:
    features = np.asarray([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    assert coreset(features, 2, first=0) == [0, 2]  # scores after the first pick: .5, .415, 1
    assert coreset(features, 3, first=0) == [0, 2, 1]
    with pytest.raises(ValueError, match="1 <= size <= 3"):
        coreset(features, 4, first=0)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_coreset_is_the_greedy_choice_of_the_definition(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(7, 4))
    picks = coreset(features, size, ridge=0.5, first=int(rng.integers(7)))
    assert len(set(picks)) == size
    for turn in range(1, size):
        chosen = features[picks[:turn]]
        inverse = np.linalg.inv(0.5 * np.eye(4) + chosen.T @ chosen)
        scores = np.einsum("nd,de,ne->n", features, inverse, features)
        scores[picks[:turn]] = -np.inf
        assert scores[picks[turn]] == pytest.approx(scores.max(), rel=1e-9)
