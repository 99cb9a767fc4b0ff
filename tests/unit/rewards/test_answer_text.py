from __future__ import annotations

import time

import pytest

from rewards.answer_text import find_answer, last_boxed, oversize, refusal


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
        ("it takes 3 1/2 cups of it", "3 1/2"),
        ("They meet at 3:30 PM today.", "3:30 PM"),
        (r"Therefore the answer is \frac{1}{2}.", r"\frac{1}{2}"),
        ("The answer is: 1.5e3", "1.5e3"),
        ("so it is 25% of them", "25%"),
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"\boxed{1}, \text{ or } \boxed{2}", "1, 2"),
        (r"\boxed{2} \boxed{2}", "2"),
        (r"\boxed{1}. No: \boxed{2}", "2"),
        ("The answers are $1$ and $2$.", "1, 2"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{5 \boxed{}}", r"5 \boxed{}"),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert find_answer(text) == answer


def test_of_nested_boxes_the_last_opened_that_is_not_empty_counts() -> None:
    assert last_boxed(r"\boxed{a + \boxed{b}}") == "b"
    assert last_boxed(r"\boxed{a} } \boxed{} ") == "a"
    assert last_boxed("no box {a}") is None


@pytest.mark.parametrize(
    "bomb",
    ["9^{9^{9^9}}", "9**9**9", "9^(9^9)", "(10^8)!", "12345!", "5!!", "2^{99999}", "__import__('os')", "1" * 300],
)
def test_what_is_built_to_explode_is_not_handed_to_math_verify(bomb: str) -> None:
    assert refusal(bomb) is not None


@pytest.mark.parametrize("answer", ["x^2+1", "2^{10}", r"\frac{\sqrt{3}}{2}", "5!", r"e^{i\pi}", "10^{-3}", r"\{1,2\}"])
def test_ordinary_answers_are_not_refused(answer: str) -> None:
    assert refusal(answer) is None and oversize(answer, "7") is None


def test_what_is_too_large_or_hands_the_question_back_is_not_read() -> None:
    assert "600 characters" in str(oversize("1" * 600, "7"))
    assert "nested" in str(oversize("(" * 50 + "1" + ")" * 50, "7"))
    for operator in (r"\sum_{k=1}^{10} k", r"\int_0^1 x^2 dx", r"\binom{5}{2}"):
        assert "unevaluated" in str(oversize(operator, "7"))
    assert oversize(r"\binom{5}{2}", r"\binom{4}{2}") is None


@pytest.mark.parametrize("unit", ["\\boxed{", "$$", "\\(", "\\[", "{", "^", "1,", "9", "\\frac{", "(", "####", "and "])
def test_repeated_openings_cost_no_more_than_their_length(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    started = time.process_time()
    find_answer(text)
    assert time.process_time() - started < 0.1
