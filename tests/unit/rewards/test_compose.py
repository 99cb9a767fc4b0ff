from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.compose import compose
from rewards.outcome import judged, unjudged, unparseable
from rollout.schema import Outcome, Status


def test_the_total_is_the_weighted_mean_and_the_parts_are_kept() -> None:
    total = compose({"answer": judged(0.5), "format": judged(1.0)}, {"answer": 3.0, "format": 1.0})
    assert total.score == pytest.approx((3 * 0.5 + 1 * 1.0) / 4)
    assert total.status is Status.JUDGED
    assert dict(total.parts) == {"answer": 0.5, "format": 1.0}


def test_one_unjudged_component_leaves_the_whole_unjudged_and_its_reason_named() -> None:
    total = compose({"answer": unjudged(Status.TIMEOUT, "slow"), "format": judged(1.0)}, {"answer": 1.0, "format": 1.0})
    assert (total.status, total.score) == (Status.TIMEOUT, None)
    assert dict(total.parts) == {"format": 1.0}
    assert total.reason == "answer: slow"


def test_a_bad_reference_outranks_a_timeout() -> None:
    total = compose(
        {"a": unjudged(Status.TIMEOUT, "slow"), "b": unjudged(Status.BAD_REFERENCE, "empty")}, {"a": 1.0, "b": 1.0}
    )
    assert total.status is Status.BAD_REFERENCE


def test_nothing_to_parse_scores_zero_in_its_component_only() -> None:
    total = compose({"answer": unparseable("none"), "format": judged(1.0)}, {"answer": 1.0, "format": 1.0})
    assert (total.status, total.score) == (Status.UNPARSEABLE_ANSWER, 0.5)


def test_parts_of_a_component_are_kept_under_its_name() -> None:
    inner = Outcome(status=Status.JUDGED, score=0.5, parts={"tests": 0.25})
    assert dict(compose({"code": inner}, {"code": 2.0}).parts) == {"code": 0.5, "code/tests": 0.25}


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(1e-3, 1e3)), min_size=1, max_size=8))
def test_the_score_stays_between_the_worst_and_the_best_component(pairs: list[tuple[float, float]]) -> None:
    outcomes = {str(index): judged(score) for index, (score, _) in enumerate(pairs)}
    total = compose(outcomes, {str(index): weight for index, (_, weight) in enumerate(pairs)})
    scores = [score for score, _ in pairs]
    assert total.score is not None and min(scores) - 1e-9 <= total.score <= max(scores) + 1e-9
