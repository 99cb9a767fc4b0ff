from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.choice import verify
from rollout.schema import Outcome, Status
from tests.fakes.rewards import sample

CITIES = {"options": ["Rome", "Paris", "Berlin", "Paris, Texas"]}


def judge(answer: str, reference: str = "B", **meta: object) -> Outcome:
    return verify(sample(answer, reference, meta=meta))


@pytest.mark.parametrize(
    "answer",
    [
        "B",
        "(B)",
        "b.",
        "**B**",
        "\\boxed{B}",
        "\\boxed{\\text{(B)}}",
        "It is not A, because...\n\nThe answer is (B).",
        "The answer is A. No, wait: the correct answer is **B**.",
        "Answer: B) Paris",
        "So we choose option B",
        "Reasoning about A and C.\n\nB. Paris",
        "I first thought \\boxed{A}, but \\boxed{B}",
        "Paris",
        "paris.",
    ],
)
def test_the_letter_is_found(answer: str) -> None:
    assert judge(answer, **CITIES).score == 1.0


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("A", Status.JUDGED),
        ("\\boxed{A, B}", Status.JUDGED),
        ("The answer is A or B", Status.JUDGED),
        ("The answer is B. I mean, the answer is C.", Status.JUDGED),
        ("A\nB\nC\nD", Status.JUDGED),
        ("E", Status.UNPARSEABLE_ANSWER),
        ("\\boxed{}", Status.UNPARSEABLE_ANSWER),
        ("", Status.UNPARSEABLE_ANSWER),
        ("Be careful: it depends", Status.UNPARSEABLE_ANSWER),
        ("Paris, France", Status.UNPARSEABLE_ANSWER),
    ],
)
def test_what_names_another_letter_or_none_scores_0(answer: str, status: Status) -> None:
    outcome = judge(answer, **CITIES)
    assert (outcome.status, outcome.score) == (status, 0.0)


def test_several_letters_are_wanted_all_and_no_others() -> None:
    for answer in ("A, C", "(A) and (C)", "\\boxed{C,A}", "The answers are A and C."):
        assert judge(answer, "A,C").score == 1.0
    for answer in ("A", "A, B, C", "C"):
        assert judge(answer, "A, C").score == 0.0


@pytest.mark.parametrize("reference", ["", "E", "Madrid", "1", "AB"])
def test_a_reference_that_is_no_option_leaves_the_answer_unjudged(reference: str) -> None:
    assert judge("B", reference, **CITIES).status is Status.BAD_REFERENCE


def test_letters_without_options_are_the_settings() -> None:
    assert verify(sample("K", "K")).status is Status.BAD_REFERENCE
    assert verify(sample("K", "K", settings={"letters": "JKL"})).score == 1.0


def test_an_option_that_two_letters_share_is_no_answer() -> None:
    assert judge("same", "A", options=["same", "same"]).status is Status.UNPARSEABLE_ANSWER


@given(st.text(max_size=300), st.text(max_size=5))
def test_nothing_raises(answer: str, reference: str) -> None:
    verify(sample(answer, reference))
