"""Every advantage estimator against numbers worked by hand, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rl.credit.batch_scaled import batch_scaled_advantages
from rl.credit.best_of_group import best_of_group_advantages
from rl.credit.build import build_credit
from rl.credit.config import (
    BestOfGroupCredit,
    CreditConfig,
    GdpoCredit,
    GpgCredit,
    GrpoCredit,
    OpoCredit,
    ReinforcePlusPlusCredit,
    RemaxCredit,
    RlooCredit,
    WeightedReinforceCredit,
)
from rl.credit.dr_grpo import dr_grpo_advantages
from rl.credit.gdpo import gdpo_advantages
from rl.credit.gpg import gpg_advantages
from rl.credit.grpo import grpo_advantages
from rl.credit.kl_penalty import kl_rewards
from rl.credit.opo import opo_advantages
from rl.credit.process_config import CenteredSteps
from rl.credit.reinforce_pp import reinforce_pp_advantages
from rl.credit.reinforce_pp_baseline import reinforce_pp_baseline_advantages
from rl.credit.remax import remax_advantages
from rl.credit.rloo import rloo_advantages
from rl.credit.w_reinforce import w_reinforce_advantages
from rollout.schema import Outcome, ScoredGroup, ScoreKind, Status, StepScores, StepSpan
from tests.fakes.loop import PROMPT_LEN, make_job, make_scored

NAN = float("nan")
Groups = list[np.ndarray]
GroupRule = Callable[[Groups], Groups]


def arr(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def lengths(*values: int) -> np.ndarray:
    return np.asarray(values, dtype=np.int64)


def test_rloo_leaves_itself_out() -> None:
    np.testing.assert_allclose(rloo_advantages(arr(1, 0, 0, 1, 1, 0, 0, 0))[:2], [0.7143, -0.4286], atol=1e-4)
    np.testing.assert_allclose(rloo_advantages(arr(1, 0, 0, 0))[:2], [1, -1 / 3])
    np.testing.assert_allclose(rloo_advantages(arr(3, 1, NAN, 2)), [1.5, -1.5, NAN, 0])


def test_batch_scaled_has_one_divisor() -> None:
    # all rewards 1 0 1 1: sample deviation 0.5; group means 0.5 and 1
    first, second = batch_scaled_advantages([arr(1, 0), arr(1, 1)], epsilon=1e-12)
    np.testing.assert_allclose([*first, *second], [1, -1, 0, 0], atol=1e-9)


def test_opo_weighs_the_baseline_by_length() -> None:
    advantages = opo_advantages(arr(1, 0, 0, 1), lengths(10, 20, 30, 40))  # baseline 0.5
    np.testing.assert_allclose(advantages, [0.5, -0.5, -0.5, 0.5])
    np.testing.assert_allclose(opo_advantages(arr(1, NAN, 0), lengths(30, 1000, 10)), [0.25, NAN, -0.75])
    np.testing.assert_array_equal(opo_advantages(arr(1, 0), lengths(0, 0)), 0)


def test_reinforce_pp_baseline_whitens_over_tokens() -> None:
    groups = reinforce_pp_baseline_advantages(
        [arr(1, 0), arr(1, 1, 0, 0)], [lengths(3, 1), lengths(2, 2, 4, 4)]
    )  # token mean -0.0625, variance 0.2625
    np.testing.assert_allclose(np.concatenate(groups)[[0, 1]], [1.0979, -0.8539], atol=1e-4)
    equal, _ = reinforce_pp_baseline_advantages([arr(1, 1), arr(1, 0)], [lengths(2, 2), lengths(1, 3)])
    assert equal[0] == equal[1] != 0  # whitening re-centres: by design


def test_reinforce_pp_returns_are_discounted_then_whitened() -> None:
    # gamma 0.5: rewards 2 at the end of three tokens, a penalty of 1 at the second: returns 0, 0, 2; the other: 4
    first, second = reinforce_pp_advantages([2.0, 4.0], [arr(0, -1, 0), arr(0)], gamma=0.5)
    values = arr(0, 0, 2, 4)
    np.testing.assert_allclose([*first, *second], (values - 1.5) / values.std(ddof=1), atol=1e-6)
    flat, _ = reinforce_pp_advantages([1.0, 0.0], [arr(0, 0, 0), arr(0, 0)], gamma=1.0)
    assert np.unique(flat).size == 1


def test_remax_subtracts_the_greedy_reward() -> None:
    np.testing.assert_array_equal(remax_advantages(arr(1, 0, NAN), greedy=1.0), [0, -1, NAN])
    assert np.isnan(remax_advantages(arr(1, 0), greedy=NAN)).all()


def test_gpg_makes_up_for_attempts_without_signal() -> None:
    varied, equal = gpg_advantages([arr(1, 0), arr(1, 1, 1, NAN)])  # five judged, two with signal
    np.testing.assert_allclose(varied, [1.25, -1.25])
    np.testing.assert_array_equal(equal, [0, 0, 0, NAN])


def test_only_the_best_of_the_group_is_credited() -> None:
    rewards = arr(0.2, 1.0, NAN, 0.6)
    deviation = float(np.std([0.2, 1.0, 0.6], ddof=1))
    expected = [0, 0.4 / deviation, NAN, 0]
    np.testing.assert_allclose(best_of_group_advantages(rewards, epsilon=1e-12), expected, atol=1e-9)
    np.testing.assert_array_equal(best_of_group_advantages(arr(1, 1, 0), epsilon=1e-6), 0)


def test_weighted_reinforce_has_no_baseline() -> None:
    np.testing.assert_array_equal(w_reinforce_advantages(arr(1, 0, NAN), positive=0.1, negative=1), [0.1, -1, NAN])
    np.testing.assert_array_equal(w_reinforce_advantages(arr(0, 0), positive=0.1, negative=1), -1)
    np.testing.assert_array_equal(w_reinforce_advantages(arr(1, 0), positive=1, negative=1), [1, -1])
    with pytest.raises(ValidationError, match="both 0"):
        WeightedReinforceCredit(positive=0, negative=0)


def test_gdpo_normalizes_each_component_before_the_sum() -> None:
    group = {"outcome": arr(1, 0, 0, 1), "process": arr(0.9, 0.2, 0.4, 0.7)}
    (advantages,) = gdpo_advantages([group], {"outcome": 1.0, "process": 0.3}, epsilon=1e-4)
    np.testing.assert_allclose(advantages, [0.937859, -0.937859, -0.787520, 0.787520], atol=1e-6)
    raw = group["outcome"] + 0.3 * group["process"]  # the other order, for comparison
    np.testing.assert_allclose(
        grpo_advantages(raw, epsilon=1e-4), [0.909835, -0.909835, -0.819603, 0.819603], atol=2e-4
    )


def test_kl_rewards_are_minus_k1_at_sampled_tokens() -> None:
    sampler, reference = np.float32([-9, -0.5, -1.0]), np.float32([-1, -1.0, -0.5])
    found = kl_rewards(sampler, reference, np.asarray([False, True, True]), coefficient=0.1)
    np.testing.assert_allclose(found, [0, -0.05, 0.05], atol=1e-7)


# ------------------------------------------------------------------------------------------------ what holds for all

GROUP_RULES: dict[str, GroupRule] = {
    "grpo": lambda gs: [grpo_advantages(g, epsilon=1e-3) for g in gs],
    "dr_grpo": lambda gs: [dr_grpo_advantages(g) for g in gs],
    "rloo": lambda gs: [rloo_advantages(g) for g in gs],
    "opo": lambda gs: [opo_advantages(g, lengths(*[3] * g.size)) for g in gs],
    "best_of_group": lambda gs: [best_of_group_advantages(g, epsilon=1e-3) for g in gs],
    "batch_scaled": lambda gs: batch_scaled_advantages(gs, epsilon=1e-3),
    "gpg": gpg_advantages,
    "reinforce_pp_baseline": lambda gs: reinforce_pp_baseline_advantages(gs, [lengths(*[3] * g.size) for g in gs]),
    "gdpo": lambda gs: gdpo_advantages([{"outcome": g} for g in gs], {"outcome": 1.0}, epsilon=1e-3),
}
SCALE_FREE = {"grpo", "best_of_group", "batch_scaled", "reinforce_pp_baseline", "gdpo"}
LINEAR = {"dr_grpo", "rloo", "opo", "gpg"}
REWARDS = st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0]), min_size=2, max_size=6), min_size=1, max_size=4)


@pytest.mark.parametrize("name", GROUP_RULES)
@settings(max_examples=25, deadline=None)
@given(REWARDS, st.integers(0, 1000))
def test_order_of_siblings_and_groups_is_without_effect(name: str, rewards: list[list[float]], seed: int) -> None:
    rng, rule = np.random.default_rng(seed), GROUP_RULES[name]
    groups = [arr(*r) for r in rewards]
    base = rule(groups)
    orders = [rng.permutation(g.size) for g in groups]
    places = rng.permutation(len(groups))
    moved = rule([groups[p][orders[p]] for p in places])
    for found, p in zip(moved, places, strict=True):
        np.testing.assert_allclose(found, base[p][orders[p]], atol=1e-9)


@pytest.mark.parametrize("name", GROUP_RULES)
@settings(max_examples=25, deadline=None)
@given(REWARDS, st.integers(0, 1000))
def test_an_unjudged_sibling_is_as_if_it_were_not_there(name: str, rewards: list[list[float]], seed: int) -> None:
    rng, rule = np.random.default_rng(seed), GROUP_RULES[name]
    groups = [arr(*r) for r in rewards]
    base = rule(groups)
    holes = [int(rng.integers(g.size + 1)) for g in groups]
    with_holes = rule([np.insert(g, h, NAN) for g, h in zip(groups, holes, strict=True)])
    for found, expected, hole in zip(with_holes, base, holes, strict=True):
        assert np.isnan(found[hole])
        np.testing.assert_allclose(np.delete(found, hole), expected, atol=1e-12)


@pytest.mark.parametrize("name", GROUP_RULES)
@settings(max_examples=25, deadline=None)
@given(REWARDS, st.floats(-4, 4), st.floats(0.1, 8))
def test_shift_and_scale_of_the_rewards(name: str, rewards: list[list[float]], shift: float, scale: float) -> None:
    """Adding a constant changes nothing; scaling changes nothing, or scales, according to the estimator."""
    rule = GROUP_RULES[name]
    groups = [arr(*r) for r in rewards]
    base = rule(groups)
    for found, expected in zip(rule([g + shift for g in groups]), base, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    factor = 1.0 if name in SCALE_FREE else scale
    assert name in SCALE_FREE | LINEAR
    for found, expected in zip(rule([g * scale for g in groups]), base, strict=True):
        np.testing.assert_allclose(found, expected * factor, rtol=0.15, atol=1e-6)  # epsilon is not scaled


@pytest.mark.parametrize("name", sorted(GROUP_RULES.keys() - {"reinforce_pp_baseline"}))
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_rewards_carry_no_signal(name: str, value: float) -> None:
    (found,) = GROUP_RULES[name]([np.full(5, value)])
    np.testing.assert_allclose(found, 0, atol=1e-9)


# ------------------------------------------------------------------------------------------------ bandit


def exact_gradient(estimate: Callable[[np.ndarray], np.ndarray], probs: np.ndarray, size: int) -> np.ndarray:
    """E[1/G sum_i A_i grad log p(y_i)] over all 3^G groups, with respect to the logits of a softmax bandit [3]."""
    arm_rewards, total = arr(1.0, 0.2, 0.0), np.zeros(3)
    for index in np.ndindex(*(3,) * size):
        arms = np.asarray(index)
        scores = np.eye(3)[arms] - probs  # [G, 3] gradient of log p at the logits
        total += probs[arms].prod() * (estimate(arm_rewards[arms])[:, None] * scores).mean(axis=0)
    return total


@pytest.mark.parametrize("size", [2, 4])
def test_bandit_rloo_is_unbiased_and_dr_grpo_shrinks(size: int) -> None:
    logits, arm_rewards = arr(0.3, -0.2, 0.5), arr(1.0, 0.2, 0.0)

    def value(z: np.ndarray) -> float:
        p = np.exp(z) / np.exp(z).sum()
        return float(p @ arm_rewards)

    step = 1e-5
    finite = np.asarray([(value(logits + step * e) - value(logits - step * e)) / (2 * step) for e in np.eye(3)])
    probs = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(exact_gradient(rloo_advantages, probs, size), finite, atol=1e-9)
    np.testing.assert_allclose(
        exact_gradient(lambda r: remax_advantages(r, greedy=0.0), probs, size), finite, atol=1e-9
    )
    shrunk = exact_gradient(dr_grpo_advantages, probs, size)
    np.testing.assert_allclose(shrunk, (size - 1) / size * finite, atol=1e-9)


# ------------------------------------------------------------------------------------------------ on scored groups


def batch_of(*scores: Sequence[float | None]) -> list[ScoredGroup]:
    return [make_scored(s, job=make_job(f"g{i}", num_siblings=len(s))) for i, s in enumerate(scores)]


def first_tokens(config: CreditConfig, groups: Sequence[ScoredGroup]) -> list[list[float | None]]:
    """Advantage at the first response token of every sibling."""
    return [[None if a is None else float(a[PROMPT_LEN]) for a in g] for g in build_credit(config)(groups)]


def test_all_wrong_groups_teach_weighted_reinforce_only() -> None:
    groups = batch_of([0.0, 0.0], [1.0, 0.0])
    assert first_tokens(WeightedReinforceCredit(), groups)[0] == [-1.0, -1.0]
    assert first_tokens(GrpoCredit(), groups)[0] == [0.0, 0.0]
    assert WeightedReinforceCredit.needs_equal_rewards and not GrpoCredit.needs_equal_rewards


def test_a_graded_score_counts_as_right_or_wrong_for_weighted_reinforce() -> None:
    (found,) = first_tokens(WeightedReinforceCredit(), batch_of([0.9, 0.1, None]))
    assert found == [pytest.approx(0.1), -1.0, None]


def test_remax_reads_the_greedy_attempt() -> None:
    (scored,) = batch_of([1.0, 0.0, None])
    greedy = make_scored([1.0])
    assert first_tokens(RemaxCredit(), [replace(scored, greedy=greedy)]) == [[0.0, -1.0, None]]
    assert build_credit(RemaxCredit()).needs_greedy_baseline
    assert first_tokens(RemaxCredit(), [replace(scored, greedy=make_scored([None]))]) == [[None, None, None]]


def test_token_rewards_join_the_reward_or_stay_at_their_token() -> None:
    (scored,) = batch_of([1.0, 0.0])
    penalty = np.zeros(PROMPT_LEN + 4, dtype=np.float32)
    penalty[PROMPT_LEN + 1] = -0.5
    paid = replace(scored, token_rewards=(penalty, penalty * 0))
    assert first_tokens(RlooCredit(), [paid]) == [[0.5, -0.5]]  # rewards 0.5 and 0
    (right, _) = build_credit(ReinforcePlusPlusCredit())([paid])[0]
    assert right is not None
    returns = arr(0.5, 0.5, 1, 1, 0, 0, 0, 0)
    expected = (returns - returns.mean()) / np.sqrt(returns.var(ddof=1) + 1e-8)
    np.testing.assert_allclose(right[PROMPT_LEN:], expected[:4], atol=1e-6)
    assert not right[:PROMPT_LEN].any()


def test_reinforce_pp_leaves_unjudged_answers_out() -> None:
    with_hole, without = batch_of([1.0, None, 0.0], [1.0, 0.0])
    (first, hole, second) = first_tokens(ReinforcePlusPlusCredit(), [with_hole])[0]
    assert [first, second] == first_tokens(ReinforcePlusPlusCredit(), [without])[0]
    assert hole is None


def steps(*scores: float) -> StepScores:
    spans = tuple(StepSpan(start=PROMPT_LEN + i, end=PROMPT_LEN + i + 1) for i in range(len(scores)))
    return StepScores(spans=spans, scores=np.asarray(scores, np.float32), kind=ScoreKind.PROB, scorer="exact")


def test_gdpo_on_groups() -> None:
    config = GdpoCredit(weights={"outcome": 1.0, "process": 0.3})
    right = make_scored([1.0, 0.0, 0.0, 1.0], steps=[steps(0.9), steps(0.2), steps(0.4), steps(0.7)])
    np.testing.assert_allclose(first_tokens(config, [right])[0], [0.937859, -0.937859, -0.78752, 0.78752], atol=1e-5)  # type: ignore[arg-type]
    wrong = make_scored([0.0, 0.0], steps=[steps(0.9), steps(0.2)])
    assert first_tokens(config, [wrong]) == [[0.0, 0.0]]  # the hackable channel stays shut
    asked = config.model_copy(update={"process_on_all_wrong": True})
    assert first_tokens(asked, [wrong])[0][0] > 0.5  # type: ignore[operator]


def test_gdpo_reads_shaping_terms_and_parts_and_names_what_is_missing() -> None:
    shaped = make_scored([1.0, 1.0], shaped={"length": [0.5, 0.0]})
    assert first_tokens(GdpoCredit(weights={"length": 1.0}), [shaped])[0][0] > 0.5  # type: ignore[operator]
    parts = tuple(Outcome(status=Status.JUDGED, score=1.0, parts={"format": v}) for v in (1.0, 0.0))
    assert first_tokens(GdpoCredit(weights={"format": 1.0}), [replace(shaped, outcomes=parts)])[0][0] > 0.5  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"names 'lenght', .* it has \['length', 'outcome', 'process'\]"):
        first_tokens(GdpoCredit(weights={"lenght": 1.0}), [shaped])


def test_step_terms_go_on_top_of_any_estimator_that_has_them() -> None:
    scored = make_scored([1.0, 0.0], steps=[steps(1.0), steps(0.0)])
    for kind in (GpgCredit, OpoCredit, RlooCredit):
        plain = first_tokens(kind(), [scored])[0][0]
        assert first_tokens(kind(process=CenteredSteps(weight=0.2)), [scored])[0][0] == pytest.approx(plain + 0.1)  # type: ignore[operator]
    for kind in (BestOfGroupCredit, GdpoCredit, ReinforcePlusPlusCredit, WeightedReinforceCredit):
        with pytest.raises(ValidationError, match="process"):
            kind(process={"weight": 0.2})
