from __future__ import annotations

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.answer_text import find_answer, is_words, judge_numbers, last_boxed, normalize, read_number, refusal
from rollout.schema import Status
from tests.fakes.rewards import sample


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("42", "42"),
        (r"so $\boxed{42}$.", "42"),
        (r"\boxed{1} or rather \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"so $2$ thus \boxed{}", None),
        (r"so $2$ thus \boxed{3", None),
        ("The answer is 42 apples.", "42"),
        ("It costs \\$18.90 in all.", "18.90"),
        ("16 - 3 = 13\n#### 1,300", "1,300"),
        ("so the point is $(3, \\frac{\\pi}{2})$.", r"(3, \frac{\pi}{2})"),
        ("x = 5", "x = 5"),
        ("Evelyn", "Evelyn"),
        ("\\text{Evelyn}", "\\text{Evelyn}"),
        ("", None),
        ("  \n ", None),
        ("it is 3/4 of it", "3/4"),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert find_answer(text) == answer


def test_of_nested_boxes_the_last_opened_that_is_not_empty_counts() -> None:
    assert last_boxed(r"\boxed{a + \boxed{b}}") == "b"
    assert last_boxed(r"\boxed{a} } \boxed{} ") == "a"
    assert last_boxed("no box {a}") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,300", 1300),
        ("-3", -3),
        ("2.50", Fraction(5, 2)),
        (".5", Fraction(1, 2)),
        ("3/4", Fraction(3, 4)),
        (r"\dfrac{3}{4}", Fraction(3, 4)),
        (r"-\frac12", Fraction(-1, 2)),
        ("x = 7", 7),
        (r"10\%", 10),
        (r"\$32,\!348", 32348),
        ("1/0", None),
        (r"\frac{1}{0}", None),
        ("2+2", None),
        ("9" * 200, None),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction | int | None) -> None:
    assert read_number(normalize(text)) == value


def test_single_letters_are_mathematics_and_names_are_words() -> None:
    assert is_words("Evelyn")
    assert not is_words("x")


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        (r"\boxed{0.5}", "1/2", 1.0),
        ("0.0000002", "0.0000001", 0.0),  # equal after rounding to six decimals, which is not done here
        ("I get 1,300.", "1300", 1.0),
        ("eight", "8", 0.0),
        ("evelyn", r"\text{Evelyn}", 1.0),
        ("Bob", r"\text{Evelyn}", 0.0),
    ],
)
def test_numbers_and_words_are_judged_as_text(answer: str, reference: str, score: float) -> None:
    outcome = judge_numbers(sample(answer, reference))
    assert outcome is not None and outcome.status is Status.JUDGED and outcome.score == score


def test_no_answer_is_unparseable_and_everything_else_is_left_to_algebra() -> None:
    outcome = judge_numbers(sample("", "8"))
    assert outcome is not None and outcome.status is Status.UNPARSEABLE_ANSWER and outcome.score == 0.0
    assert judge_numbers(sample(r"\boxed{2\cdot 4}", "8")) is None
    # Also when both are spelled alike: nobody has yet said that this reference can be parsed.
    assert judge_numbers(sample(r"\boxed{\sqrt{2}}", r"\sqrt{2}")) is None


@pytest.mark.parametrize(
    "bomb",
    [
        "9^{9^{9^9}}",
        "9**9**9",
        "9^(9^9)",
        "(10^8)!",
        "123456!",
        "5!!",
        "2^{99999}",
        r"\sum_{k=1}^{10} k",
        r"\int_0^1 x^2 dx",
        "(" * 50 + "1" + ")" * 50,
        "__import__('os')",
        "1" * 600,
        "1" * 300,
    ],
)
def test_what_is_built_to_explode_is_refused(bomb: str) -> None:
    assert refusal(bomb, "7") is not None


@pytest.mark.parametrize("answer", ["x^2+1", "2^{10}", r"\frac{\sqrt{3}}{2}", "5!", r"e^{i\pi}", "10^{-3}", r"\{1,2\}"])
def test_ordinary_answers_are_not_refused(answer: str) -> None:
    assert refusal(answer, "7") is None


def test_an_operator_that_the_reference_has_too_is_allowed() -> None:
    assert refusal(r"\binom{5}{2}", r"\binom{4}{2}") is None


@given(st.text(alphabet="\\boxed{}$()[]^0123456789./, \n#-+ab", max_size=3000))
def test_any_text_is_judged_and_quickly(text: str) -> None:
    started = time.process_time()
    judge_numbers(sample(text, "8"))
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("unit", ["\\boxed{", "$$", "\\(", "\\[", "{", "^", "1,", "9", "\\frac{", "(", "####"])
def test_repeated_openings_cost_no_more_than_their_length(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    started = time.process_time()
    judge_numbers(sample(text, "8"))
    assert time.process_time() - started < 0.1


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_a_number_equals_itself_in_any_spelling_and_no_other(number: int, other: int) -> None:
    for spelling in (str(number), f"{number:,}", rf"\boxed{{{number}}}", f"so ${number}$.", f"{number}.0"):
        outcome = judge_numbers(sample(spelling, str(number)))
        assert outcome is not None and outcome.score == 1.0
    wrong = judge_numbers(sample(str(number + other), str(number)))
    assert wrong is not None and wrong.score == 0.0
