"""Every step rule against numbers worked by hand, and what holds for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rl.credit.build import build_credit
from rl.credit.config import DrGrpoCredit, GrpoCredit, RlooCredit
from rl.credit.process_config import ProcessCredit, ProcessSection
from rl.credit.steps.clip_delta import clip_terms, clipped, delta_terms, deltas
from rl.credit.steps.filter import kept_answers
from rl.credit.steps.first_error import first_error_advantages
from rl.credit.steps.group_returns import group_return_terms
from rl.credit.steps.leave_one_out import largest_return, leave_one_out_terms
from rl.credit.steps.min_form import min_form_terms, soft_min_rewards, strict_returns
from rl.credit.steps.process import SHAPING_TERM, ShapingProcess
from rl.credit.steps.progress import best_of, progress, progress_terms
from rl.credit.steps.rows import Row, StepRow, returns
from rl.credit.steps.shaping import answer_scores, shaped_rewards
from rollout.schema import ScoredGroup, ScoreKind, StepScores, StepSpan
from tests.fakes.loop import PROMPT_LEN, make_scored

NAN = float("nan")
TERMS = ("centered", "group_returns", "leave_one_out", "min_form", "clip", "delta", "progress")


def arr(*values: float) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)


def row(*scores: float, tokens: int = 1) -> Row:
    """Steps of `tokens` tokens each, from token 0 on."""
    spans = tuple((i * tokens, (i + 1) * tokens) for i in range(len(scores)))
    return StepRow(scores=arr(*scores), lengths=np.full(len(scores), tokens), spans=spans)


def section(**settings_: Any) -> ProcessSection:
    made: ProcessSection = TypeAdapter(ProcessCredit).validate_python(settings_)
    return made


def steps(*scores: float, kind: ScoreKind = ScoreKind.PROB) -> StepScores:
    spans = tuple(StepSpan(start=PROMPT_LEN + i, end=PROMPT_LEN + i + 1) for i in range(len(scores)))
    return StepScores(spans=spans, scores=np.asarray(scores, dtype=np.float32), kind=kind, scorer="fake")


def credit(scored: ScoredGroup | Sequence[ScoredGroup], *, of: type = DrGrpoCredit, **process: Any) -> list[Any]:
    """Response part of each sibling's advantages of the first group."""
    groups = [scored] if isinstance(scored, ScoredGroup) else list(scored)
    found = build_credit(of(process=section(**process)))(groups)[0]
    return [None if values is None else values[PROMPT_LEN:] for values in found]


def close(found: Any, expected: Sequence[float], atol: float = 1e-4) -> None:
    np.testing.assert_allclose(found, expected, atol=atol)


# ------------------------------------------------------------------------------------------------ worked numbers


def test_group_returns() -> None:
    first, second = group_return_terms([row(0.9, 0.8), row(0.2, 0.4, 0.6)])
    close(first, [2.1083, 0.8590])
    close(second, [-2.1083, -0.6247, 0.0781])
    many, few, bad = group_return_terms([row(*[0.9] * 8), row(0.9, 0.9), row(0.2, 0.2, 0.2)])
    close([many[0], few[0], bad[0]], [4.38, 1.10, -5.48], atol=5e-3)  # type: ignore[index]  # the hazard: steps pay
    close(np.concatenate(group_return_terms([row(0.5, 0.5), None, row(0.5)])[::2]), [0, 0, 0])  # type: ignore[arg-type]


def test_leave_one_out_is_primes_dense_half() -> None:
    rows = [row(0.1, 0.2, 0.3), row(-0.1, 0.1), row(0.0, -0.2, -0.1, -0.1)]
    first, second, third = leave_one_out_terms(rows)
    close(first, [0.75, 0.60, 0.35])
    close(second, [-0.10, 0.05])
    close(third, [-0.8, -0.7, -0.4, -0.2])
    shifted = leave_one_out_terms([row(*(r.scores + 3)) for r in rows if r is not None])
    close(shifted[0], [0.75, 0.60, 0.35])
    assert largest_return([rows]) == pytest.approx(0.6)
    close(leave_one_out_terms(rows, scale=0.5)[0], [1.5, 1.2, 0.7])
    discounted = leave_one_out_terms([row(1.0, 1.0, 1.0), row(0.0)], gamma=0.5)[0]
    close(discounted, [1.75, 1.5, 1.0])


def test_prime_is_rloo_on_outcomes_plus_the_dense_half() -> None:
    scored = make_scored(
        [1.0, 0.0, 0.0],
        steps=[steps(*s, kind=ScoreKind.LOGRATIO) for s in ((0.1, 0.2, 0.3), (-0.1, 0.1), (0.0, -0.2, -0.1, -0.1))],
    )
    first, second, third = credit(scored, of=RlooCredit, type="leave_one_out", share=9)
    close(first[:3], [1.75, 1.60, 1.35])
    close(second[:2], [-0.60, -0.45])
    close(third, [-1.3, -1.2, -0.9, -0.7])
    as_reference = make_scored([1.0, 0.0], steps=[steps(0, 0, kind=ScoreKind.LOGRATIO)] * 2)
    close(credit(as_reference, of=RlooCredit, type="leave_one_out")[0], [1.0] * 4)  # PRM = reference: plain RLOO


def test_min_form() -> None:
    rewards = soft_min_rewards(arr(0.8, -0.2, 0.4), temperature=0.1)
    close(rewards, [0.000036, -0.199496, 0.000989], atol=1e-6)
    close(returns(rewards), [-0.198471, -0.198507, 0.000989], atol=1e-6)
    near = soft_min_rewards(arr(0.8, 0.7, 0.75), temperature=0.1)
    close(returns(near), [0.7340, 0.5849, 0.2304])
    close(strict_returns(near), [0.2304, 0.2304, 0.2304])
    close(strict_returns(rewards), [-0.198507, -0.198507, 0.000989], atol=1e-6)  # hence no zero from padding
    assert soft_min_rewards(arr(0.8, -0.2, 0.4), temperature=1e-4).sum() == pytest.approx(-0.2)


def test_min_form_baselines() -> None:
    rows = [row(0.8, tokens=100), row(0.7, tokens=200), row(0.4, tokens=600)]  # signed 0.6, 0.4, -0.2
    by_token = min_form_terms(rows, temperature=0.1, strict=False, per_token=True)
    close(np.concatenate(by_token), [0.575, 0.6 - 0.2857 - 0.0286, -2.2], atol=2e-3)  # type: ignore[arg-type]
    by_answer = min_form_terms(rows, temperature=0.1, strict=False, per_token=False)
    close(np.concatenate(by_answer), [0.6 - 0.1, 0.4 - 0.2, -0.2 - 0.5])  # type: ignore[arg-type]


def test_clip_and_delta() -> None:
    scores = arr(0.9, 0.3, 0.8, 0.6)
    close(clipped(scores, 0.7), [0, -0.4, 0, -0.1])
    close(returns(clipped(scores, 0.7)), [-0.5, -0.5, -0.1, -0.1])
    close(deltas(scores), [0.6, -0.5, 0.8, 0])
    close(returns(deltas(scores)), [0.9, 0.3, 0.8, 0])
    close(deltas(clipped(scores, 0.7)), [0.4, -0.4, 0, 0])
    close(returns(deltas(clipped(scores, 0.7))), [0, -0.4, 0, 0])
    rows = [row(0.9, 0.3, 0.8, 0.6), row(0.5, 0.5), row(0.7)]
    close(clip_terms(rows[:2], threshold=0.7)[0], arr(-0.5, -0.5, -0.1, -0.1) + 0.3)  # the other's: -0.4, -0.2
    first, second, single = delta_terms(rows, clip_at=None)
    close(first, [0.9 - 0.5, 0.3 - 0.5, 0.8 - 0.5, 0])
    close(second, [0.5 - 2 / 3, 0])
    close(single, [0])
    assert deltas(arr(0.9)).tolist() == [0.0]


def test_clip_takes_the_batchs_mean_score_where_no_threshold_is_set() -> None:
    groups = [make_scored([1.0, 0.0], steps=[steps(a), steps(b)]) for a, b in ((0.9, 0.7), (0.1, 0.3))]
    first, second = credit(groups, type="clip")  # mean 0.5: nothing of the first group is below
    close([first[0], second[0]], [0.5, -0.5])


def test_progress() -> None:
    close(progress(arr(0.6, 0.2, 0.9), start=0.5), [0.1, -0.4, 0.7])
    assert best_of(arr(0.1), 4)[0] == pytest.approx(0.3439)
    assert best_of(arr(0.5), 16)[0] == pytest.approx(0.99998, abs=1e-5)
    (term,) = progress_terms([row(0.5, 1.0)], start=0.0, attempts=2)
    close(term, [0.75, 0.25])
    probs = make_scored([1.0, 0.0], steps=[steps(0.6, 0.9), steps(0.4, 0.1)])  # half of the group is right
    close(credit(probs, type="progress")[0][:2], [0.6, 0.8])
    cumulative = make_scored([1.0, 0.0], steps=[steps(0.2, 0.1, kind=ScoreKind.Q), None])
    close(credit(cumulative, type="progress")[0][:2], [0.7, 0.4])


def test_shaped_rewards_never_cross() -> None:
    scores = arr(-4, 0, 4)
    close(shaped_rewards(scores, np.ones(3), alpha=0.5), [0.1192, 0.5, 0.8808])
    close(shaped_rewards(scores, np.zeros(3), alpha=0.5), [-0.8808, -0.5, -0.1192])
    close(shaped_rewards(arr(-4, NAN, 4), np.ones(3), alpha=0.5)[1:2], [0.5])
    close(answer_scores([row(0.5, 1.0), None], ScoreKind.PROB, "min"), [0.0, NAN])
    close(answer_scores([row(0.5, 1.0)], ScoreKind.PROB, "last"), [np.log(0.98 / 0.02)])
    close(answer_scores([row(-3.0, 1.0)], ScoreKind.LOGRATIO, "sum"), [-2.0])
    with pytest.raises(ValueError, match="pays probabilities by the step"):
        answer_scores([row(0.5)], ScoreKind.PROB, "sum")


def test_shaping_orders_within_right_and_within_wrong() -> None:
    given_steps = [steps(0.5), steps(0.9), steps(0.9), steps(0.1), None]
    a, b, c, d, unjudged = credit(make_scored([1.0, 1.0, 0.0, 0.0, None], steps=given_steps), type="shaping")
    assert unjudged is None
    assert b[0] > a[0] > 0 > c[0] > d[0]
    alike = make_scored([1.0, 1.0], steps=[steps(0.5), steps(0.9)])
    (left,) = ShapingProcess(section(type="shaping")).prepare([alike])  # type: ignore[arg-type]
    assert SHAPING_TERM not in left.shaped  # nothing but noise would be left to normalize


def test_the_filter_keeps_the_best_right_and_the_worst_wrong() -> None:
    correct = [True, True, True, True, False, False, False, False]
    scores = [0.9, 0.2, 0.8, NAN, 0.9, 0.1, 0.5, 0.3]  # the mean of the known is 0.5286
    assert kept_answers(correct, scores, keep=0.5, right_share=None) == [0, 2, 5, 7]
    assert kept_answers(correct, scores, keep=0.5, right_share=0.25) == [0, 5, 6, 7]
    assert kept_answers([True, *[False] * 7], scores, keep=0.25, right_share=None) == [0, 5]
    assert kept_answers([True, None, False, None], [NAN] * 4, keep=0.5, right_share=None) == [0, 2]
    assert kept_answers([None, None], [NAN, NAN], keep=0.5, right_share=0.5) == []
    scored = make_scored([1.0, 1.0, 0.0, 0.0], steps=[steps(0.9), steps(0.2), steps(0.9), steps(0.1)])
    kept = credit(scored, type="filter")
    assert kept[1] is None and kept[2] is None
    close([kept[0][0], kept[3][0]], [0.5, -0.5])


def test_only_what_follows_the_first_error_is_penalized() -> None:
    options: dict[str, Any] = {"length": 7, "threshold": 0.5, "prefix": 0.25}
    wrong = first_error_advantages(row(0.9, 0.8, 0.1, 0.9), -2.0, correct=False, **options)
    close(wrong, [0.5, 0.5, -2, -2, -2, -2, -2])
    all_right = first_error_advantages(row(0.9, 0.8), -2.0, correct=False, **options)  # it stopped, or misread itself
    close(all_right, [0.5, 0.5, -2, -2, -2, -2, -2])
    close(first_error_advantages(row(0.1, 0.9), -2.0, correct=False, **options), [-2] * 7)
    close(first_error_advantages(None, -2.0, correct=False, **options), [-2] * 7)
    close(first_error_advantages(row(0.9, 0.1), 2.0, correct=True, **options), [2] * 7)
    scored = make_scored([1.0, 0.0, None], steps=[steps(0.0), steps(1.0, 0.0), steps(1.0)])
    right, wrong, unjudged = credit(scored, type="first_error")
    assert unjudged is None
    close(right, [0.5] * 4)
    close(wrong, [0, -0.5, -0.5, -0.5])


# ------------------------------------------------------------------------------------------------ what holds for all

scores_of_groups = st.lists(st.lists(st.floats(0, 1, width=16), min_size=0, max_size=4), min_size=2, max_size=5)


@given(scores_of_groups, st.sampled_from(TERMS), st.integers(0, 99), st.data())
@settings(max_examples=30, deadline=None)
def test_order_of_siblings_does_not_matter(groups: list[list[float]], kind: str, seed: int, data: Any) -> None:
    right = data.draw(st.lists(st.booleans(), min_size=len(groups), max_size=len(groups)))
    order = np.random.default_rng(seed).permutation(len(groups))
    given_steps, verdicts = [steps(*g) for g in groups], [float(r) for r in right]
    options: dict[str, Any] = {"type": kind, "weight": 0.5}
    plain = credit(make_scored(verdicts, steps=given_steps), **options)
    shuffled = credit(make_scored([verdicts[i] for i in order], steps=[given_steps[i] for i in order]), **options)
    for place, i in enumerate(order):
        np.testing.assert_allclose(shuffled[place], plain[i], atol=1e-5)


@given(scores_of_groups, st.sampled_from(TERMS), st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_the_term_stays_within_its_share_of_the_outcome(groups: list[list[float]], kind: str, share: float) -> None:
    verdicts = [float(i % 2) for i in range(len(groups))]
    scored = make_scored(verdicts, steps=[steps(*g) for g in groups])
    with_term = np.concatenate(credit(scored, type=kind, weight=1.0, share=share))
    outcome = np.concatenate([v[PROMPT_LEN:] for v in build_credit(DrGrpoCredit())([scored])[0] if v is not None])
    assert np.sqrt(np.mean((with_term - outcome) ** 2)) <= share * np.sqrt(np.mean(outcome**2)) + 1e-5


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 20), st.floats(0, 1))
@settings(deadline=None)
def test_more_steps_do_not_pay_by_themselves(scores: list[float], num_more: int, threshold: float) -> None:
    more = arr(*scores, *[1.0] * num_more)
    assert returns(clipped(more, threshold))[0] <= returns(clipped(arr(*scores), threshold))[0] + 1e-9
    if len(scores) >= 2:
        assert returns(deltas(more))[0] == pytest.approx(returns(deltas(arr(*scores)))[0])
    values = progress(more, start=0.25)
    assert values.sum() == pytest.approx(more[-1] - 0.25)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.floats(0.02, 5))
@settings(deadline=None)
def test_the_soft_minimum_lies_between_minimum_and_mean(signed: list[float], temperature: float) -> None:
    value = soft_min_rewards(arr(*signed), temperature=temperature).sum()
    assert min(signed) - 1e-9 <= value <= np.mean(signed) + 1e-9


@pytest.mark.parametrize("kind", TERMS)
def test_all_wrong_groups_get_nothing_unless_asked(kind: str) -> None:
    wrong = make_scored([0.0, 0.0], steps=[steps(0.9, 0.7, 0.8), steps(0.1, 0.4, 0.2)])
    assert not np.any(credit(wrong, type=kind, weight=0.5))
    assert np.any(credit(wrong, type=kind, weight=0.5, on_all_wrong=True))


@pytest.mark.parametrize("kind", TERMS)
def test_unscored_answers_keep_the_outcome_and_leave_the_others_alone(kind: str) -> None:
    both = [steps(0.9, 0.3), steps(0.2, 0.6)]
    without = credit(make_scored([1.0, 0.0], steps=both), type=kind, weight=0.1)
    holes = [*both, steps(0.5, 0.5), steps(NAN, NAN)]
    first, second, unjudged, unscored = credit(
        make_scored([1.0, 0.0, None, 0.0], steps=holes), of=GrpoCredit, type=kind, weight=0.1
    )
    assert unjudged is None
    assert len(set(unscored.tolist())) == 1  # one number, the outcome's: NaN is not 0
    for mine, alone in ((first, without[0]), (second, without[1])):
        if kind != "progress":  # whose start is the group's share of right answers
            np.testing.assert_allclose(mine[:2] - mine[3], alone[:2] - alone[3], atol=1e-6)


@pytest.mark.parametrize(
    ("process", "kind", "message"),
    [
        ({"type": "min_form"}, ScoreKind.LOGRATIO, "reads step scores of kind prob, .* 'logratio'; the worst of"),
        ({"type": "group_returns"}, ScoreKind.Q, "of kind logratio or prob, .* 'q'; .*summed twice"),
        ({"type": "progress"}, ScoreKind.LOGRATIO, "of kind prob or q, .* or kind = 'q'"),
        ({"type": "first_error"}, ScoreKind.Q, "of kind prob, .*low probability"),
        ({"type": "progress", "best_of": 4}, ScoreKind.Q, "best_of = 4 turns probabilities .* set best_of = 1"),
    ],
)
def test_a_rule_refuses_scores_that_it_cannot_read(process: dict[str, Any], kind: ScoreKind, message: str) -> None:
    scored = make_scored([1.0, 0.0], steps=[steps(0.4, kind=kind), steps(0.5, kind=kind)])
    with pytest.raises(ValueError, match=message):
        credit(scored, **process)


def test_the_metrics_say_how_large_the_term_is_beside_the_outcome() -> None:
    rule = build_credit(DrGrpoCredit(process=section(type="centered", weight=1.0, share=0.1)))
    rule([make_scored([1.0, 0.0], steps=[steps(1.0), steps(0.0)])])
    found = {m.name: m.value for m in rule.metrics()}  # type: ignore[attr-defined]
    assert found["credit/process_to_outcome"] == pytest.approx(0.1)
    assert found["credit/process_rms"] == pytest.approx(0.05)
    assert found["credit/process_scale"] == pytest.approx(0.05 / 0.25)
    one_judged = replace(make_scored([1.0, None], steps=[steps(1.0), None]))
    rule([one_judged])
    assert {m.name: m.value for m in rule.metrics()}["credit/outcome_rms"] == 0.0  # type: ignore[attr-defined]
