"""Credit against numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.credit.build import build_credit
from rl.credit.config import CreditConfig, DrGrpoCredit, GrpoCredit
from rl.credit.dr_grpo import dr_grpo_advantages
from rl.credit.grpo import grpo_advantages
from rl.credit.process_config import CenteredSteps
from rl.credit.steps.centered import centered_terms
from rl.credit.steps.rows import on_tokens, rows_of
from rollout.schema import Float32Array, ScoredGroup, ScoreKind, StepScores, StepSpan
from tests.fakes.loop import PROMPT_LEN, make_scored

NAN = float("nan")
FIVE_EIGHTHS = [1.0, 0, 0, 1, 1, 0, 0, 0]


def arr(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def steps(*scores: float, kind: ScoreKind = ScoreKind.PROB) -> StepScores:
    """Steps of one token each, from the first response token on."""
    spans = tuple(StepSpan(start=PROMPT_LEN + i, end=PROMPT_LEN + i + 1) for i in range(len(scores)))
    return StepScores(spans=spans, scores=np.asarray(scores, dtype=np.float32), kind=kind, scorer="exact")


def test_grpo_uses_the_sample_deviation() -> None:
    rewards = arr(*FIVE_EIGHTHS)  # mean 0.375, sample deviation 0.51755
    np.testing.assert_allclose(grpo_advantages(rewards, epsilon=1e-6)[[0, 1]], [1.2076, -0.7246], atol=1e-4)
    np.testing.assert_allclose(grpo_advantages(arr(1, 0, 0, 0), epsilon=1e-9)[:2], [1.5, -0.5], atol=1e-6)


def test_dr_grpo_only_centers() -> None:
    np.testing.assert_allclose(dr_grpo_advantages(arr(*FIVE_EIGHTHS))[[0, 1]], [0.625, -0.375])


@pytest.mark.parametrize("rule", [dr_grpo_advantages, lambda r: grpo_advantages(r, epsilon=1e-6)])
def test_unjudged_siblings_leave_the_baseline(rule: object) -> None:
    with_hole, without = rule(arr(1, NAN, 0, 0)), rule(arr(1, 0, 0))  # type: ignore[operator]
    np.testing.assert_allclose(with_hole[[0, 2, 3]], without)
    assert np.isnan(with_hole[1])
    assert np.isnan(rule(arr(NAN, NAN))).all()  # type: ignore[operator]
    np.testing.assert_array_equal(rule(arr(NAN, 1)), [NAN, 0])  # type: ignore[operator]
    np.testing.assert_allclose(rule(arr(1, 1, 1)), 0)  # type: ignore[operator]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12), st.floats(-5, 5), st.integers(0, 1000))
def test_grpo_ignores_order_and_shift(rewards: list[float], shift: float, seed: int) -> None:
    base = grpo_advantages(arr(*rewards), epsilon=1e-2)
    order = np.random.default_rng(seed).permutation(len(rewards))
    np.testing.assert_allclose(grpo_advantages(arr(*rewards)[order] + shift, epsilon=1e-2), base[order], atol=1e-6)
    assert abs(base.sum()) < 1e-6


def centered(*given: StepScores | None, lengths: list[int], weight: float, cap: float) -> list[np.ndarray]:
    """Terms on the tokens of siblings of these lengths."""
    scored = make_scored([1.0] * len(given), steps=given)
    rows, _ = rows_of(scored, CenteredSteps(weight=1.0))
    terms = centered_terms(rows, weight=weight, cap=cap)
    return [on_tokens(row, term, length) for row, term, length in zip(rows, terms, lengths, strict=True)]


def test_centered_terms_are_weighted_and_capped() -> None:
    # judged steps 0.9 0.8 | 0.2 0.4 0.7: mean 0.6; NaN leaves the mean and gets 0
    first, second, third = centered(
        steps(0.9, 0.8), steps(0.2, NAN, 0.4, 0.7), None, lengths=[6, 6, 6], weight=0.5, cap=0.15
    )
    np.testing.assert_allclose(first, [0, 0, 0.15, 0.1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(second, [0, 0, -0.15, 0, -0.1, 0.05], atol=1e-6)
    np.testing.assert_array_equal(third, 0)


def test_more_good_steps_earn_nothing() -> None:
    """Eight steps of 0.9 are worth per token what two are: the term does not count steps."""
    given = (steps(*[0.9] * 8), steps(0.9, 0.9), steps(0.2))
    many, few, bad = centered(*given, lengths=[10, 4, 3], weight=1.0, cap=9.0)
    assert many[PROMPT_LEN] == few[PROMPT_LEN] > 0 > bad[PROMPT_LEN]


def test_step_rules_refuse_mixed_kinds_and_mixed_versions() -> None:
    with pytest.raises(ValueError, match="one kind"):
        centered(steps(0.9), steps(2.5, kind=ScoreKind.Q), lengths=[4, 4], weight=0.5, cap=0.5)
    with pytest.raises(ValueError, match=r"one version of the scorer, got \[0, 1\] in group g"):
        centered(steps(0.9), replace(steps(0.5), version=1), lengths=[4, 4], weight=0.5, cap=0.5)


def credit_of(config: CreditConfig, scored: ScoredGroup) -> tuple[Float32Array | None, ...]:
    (advantages,) = build_credit(config)([scored])
    return advantages


def scored_with_steps(scores: list[float | None]) -> ScoredGroup:
    return make_scored(scores, steps=[steps(1.0, 1.0), steps(1.0, 0.0), *[None] * (len(scores) - 2)])


def test_credit_adds_both_terms_on_sampled_tokens_only() -> None:
    config = DrGrpoCredit(process=CenteredSteps(weight=0.4, cap=0.5))
    right, wrong = credit_of(config, scored_with_steps([1.0, 0.0]))  # mean step score 0.75
    np.testing.assert_allclose(right, [0, 0, 0.6, 0.6, 0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(wrong, [0, 0, -0.4, -0.8, -0.5, -0.5], atol=1e-6)
    assert right is not None and right.dtype == np.float32


def test_process_term_needs_a_right_answer_unless_asked() -> None:
    scored = scored_with_steps([0.0, 0.0])
    silent = credit_of(GrpoCredit(process=CenteredSteps(weight=0.4)), scored)
    asked = credit_of(GrpoCredit(process=CenteredSteps(weight=0.4, on_all_wrong=True)), scored)
    assert not np.any(silent)
    np.testing.assert_allclose(asked[1], [0, 0, 0.1, -0.3, 0, 0], atol=1e-6)


def test_an_unjudged_sibling_gets_none_and_its_steps_leave_the_mean() -> None:
    scored = make_scored([1.0, 0.0, None], steps=[steps(1.0), steps(0.0), steps(0.0)])
    right, wrong, unjudged = credit_of(DrGrpoCredit(process=CenteredSteps(weight=0.4)), scored)
    assert unjudged is None
    np.testing.assert_allclose([right[2], wrong[2]], [0.7, -0.7], atol=1e-6)  # type: ignore[index]


def test_shaping_terms_count_and_nan_is_refused() -> None:
    shaped = make_scored([1.0, 0.0], shaped={"length": [0.0, 0.5]})
    right, wrong = credit_of(DrGrpoCredit(), shaped)
    np.testing.assert_allclose([right[2], wrong[2]], [0.25, -0.25])  # type: ignore[index]
    with pytest.raises(ValueError, match="shaping term 'length' must be finite"):
        credit_of(DrGrpoCredit(), make_scored([1.0, 0.0], shaped={"length": [0.0, NAN]}))
