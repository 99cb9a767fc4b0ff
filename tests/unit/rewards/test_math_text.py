"""The part of math verification that runs unprotected: right where it decides, quick and silent everywhere else."""

from __future__ import annotations

import itertools
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.answer_match import Matcher
from rewards.answer_number import read_literal
from rewards.answer_shape import Group, Named, Value, Words, read_shape
from rewards.answer_units import split_base, split_percent, split_unit
from rewards.expression import ReadError, read_expression, variables_of
from rewards.expression_value import TooLargeError, approximate, canonical, exact_value
from rewards.math_text import judge_text, question_of, read_reference
from rollout.schema import Message, Status
from tests.fakes.rewards import sample

ATOMS = [
    "\\boxed{",
    "$",
    "\\(",
    "{",
    "}",
    "^",
    "1,",
    "9",
    "\\frac{",
    "(",
    ")",
    "#",
    " ",
    "a ",
    "1 a",
    "\\text{a}",
    "\\text{",
    "5 cm",
    "/",
    "m/",
    "-",
    "+",
    "!",
    "%",
    ".",
    ":",
    "1:2",
    ",",
    "|",
    "<",
    "=",
    "x=",
    "\\pm ",
    "\\cup ",
    "\\\\",
    "&",
    "_",
    "'",
    "\\sqrt ",
    "\\sin ",
    "^\\circ ",
    "and ",
    "\\overline{3}",
    "e5",
    "[1,",
    "]",
    "\\{",
    "\\}",
    "2x+",
    "(x+1)",
    "sqrt(",
    "log",
    "½",
    "²",
    "per ",
    "\\infty",
    "9^",
    "9!",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "é",
    "\x01",
]
REFERENCES = ["8", "x+1", "(1,2)", r"\{1,2\}", "1,2,3", r"5\text{ cm}", "Evelyn", "x<3"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,300", 1300),
        ("-3", -3),
        ("2.50", Fraction(5, 2)),
        (".5", Fraction(1, 2)),
        ("1.234,56", Fraction(123456, 100)),
        (r"1\frac{4}{5}", Fraction(9, 5)),
        ("1 4/5", Fraction(9, 5)),
        ("1.5e-3", Fraction(3, 2000)),
        ("0.(3)", Fraction(1, 3)),
        ("1 2", None),
        ("1,30", None),
        ("2+2", None),
        ("9" * 500, None),
        ("1e99999", None),
        ("x", None),
        (r"2\frac{3}{2}", None),
    ],
)
def test_literals_are_read_exactly(text: str, value: Fraction | int | None) -> None:
    literal = read_literal(text)
    assert (None if literal is None else literal.value) == value


def test_what_stands_behind_a_number_is_split_off() -> None:
    assert split_unit("5 square inches") == ("5", "in^2") == split_unit("5\x01 inches\x02^2")
    assert split_unit("60 miles per hour") == split_unit("60 mph") == ("60", "mi/h")
    assert split_unit("5x") == ("5x", None)
    assert split_percent(r"10\%") == ("10", True)
    assert split_base("4210_{5}") == ("4210", 5)
    assert split_base("x_1") is None


def test_shapes_keep_containers_apart() -> None:
    kinds = {text: read_shape(text) for text in ("(1,2)", r"\{1,2\}", "1,2", "[1,2)", "1<x<3", "Evelyn", r"1\pm 2")}
    assert [shape.kind for shape in kinds.values() if isinstance(shape, Group)] == ["()", "set", "list", "[)", "list"]
    assert isinstance(kinds["1<x<3"], Named) and isinstance(kinds["Evelyn"], Words)
    assert isinstance(read_shape("(x+1)(x-1)"), Value)


@pytest.mark.parametrize(
    "text", ["4\\sqrt", "2 3", "(1", "1)", "x^2^3", r"\foo{1}", "+", "", "٣", "\\sqrt " * 60, "((" * 30]
)
def test_nothing_is_dropped_from_what_cannot_be_read(text: str) -> None:
    with pytest.raises(ReadError):
        read_expression(text)


def test_values_are_exact_or_bounded() -> None:
    assert exact_value(read_expression("1/2+1/3-2^{-2}")) == Fraction(7, 12)
    assert exact_value(read_expression(r"\sqrt{2}")) is None
    for text, value in ((r"\sqrt{2}", 2**0.5), (r"\sin 30^\circ", 0.5), (r"\sqrt[3]{-8}", -2), ("e^{i\\pi}", -1)):
        found = approximate(read_expression(text), {})
        assert found is not None and abs(found.value - value) <= found.error < 1e-12
    assert approximate(read_expression("1/(x-x)"), {"x": 0.5}) is None
    for text in ("9^{9^9}", "99999!", "(10^8)!", "2^{9999999}"):
        with pytest.raises(TooLargeError):
            canonical(read_expression(text))


@given(
    st.lists(st.sampled_from(["x", "y", "2", "3", r"\pi", r"\sqrt{2}", "(x+1)"]), min_size=2, max_size=4), st.randoms()
)
def test_the_order_of_operands_does_not_matter(parts: list[str], chance: object) -> None:
    shuffled = list(parts)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    for sign in ("+", r"\cdot "):
        one, other = read_expression(sign.join(parts)), read_expression(sign.join(shuffled))
        assert canonical(one) == canonical(other)
        assert variables_of(one) == variables_of(other)


@pytest.mark.parametrize(
    ("answer", "reference", "score"),
    [
        (r"\boxed{0.5}", "1/2", 1.0),
        ("0.0000002", "0.0000001", 0.0),
        ("I get 1,300.", "1300", 1.0),
        ("eight", "8", 0.0),
        ("evelyn", r"\text{Evelyn}", 1.0),
        (r"\boxed{2\cdot 4}", "8", 1.0),
        (r"\boxed{(4,3)}", "(3,4)", 0.0),
    ],
)
def test_most_answers_need_no_algebra(answer: str, reference: str, score: float) -> None:
    outcome = judge_text(sample(answer, reference))
    assert outcome is not None and outcome.status is Status.JUDGED and outcome.score == score


def test_what_needs_algebra_or_cannot_be_read_is_left_to_the_sandbox() -> None:
    assert judge_text(sample(r"\boxed{x^2-1}", "(x-1)(x+1)")) is None
    # Also when both are spelled alike: nobody has yet said that this reference can be judged against.
    assert judge_text(sample(r"\boxed{\frac{1}{}", r"\frac{1}{")) is None
    assert read_reference("9^{9^9}") is None and read_reference("1" * 600) is None


@pytest.mark.parametrize(
    "answer", ["", r"\boxed{}", r"\boxed{9^{9^9}}", r"\boxed{\int_0^1 x dx}", r"\boxed{\frac{1}", "1" * 600]
)
def test_an_unusable_answer_is_the_policys_fault(answer: str) -> None:
    outcome = judge_text(sample(answer, "8"))
    assert outcome is not None and outcome.status is Status.UNPARSEABLE_ANSWER and outcome.score == 0.0


def test_the_question_may_ask_for_a_percentage_or_a_form() -> None:
    def score(answer: str, reference: str, question: str) -> float | None:
        prompt = (Message(role="user", content=question),)
        outcome = judge_text(sample(rf"\boxed{{{answer}}}", reference, prompt=prompt))
        return None if outcome is None else outcome.score

    assert score(r"10\%", "10", "What percent of 50 is 5?") == score("10", r"10\%", "What percent of 50 is 5?") == 1.0
    assert score(r"10\%", "10", "How many?") == 0.0
    assert score("0.1", "10", "What percent of 50 is 5?") == 0.0
    matcher = Matcher(algebra=lambda left, right: True, wants_form=True)
    assert matcher.match(read_shape("(x-1)(x+1)"), read_shape("x^2-1")) is False
    assert matcher.match(read_shape("x^2-1"), read_shape("(x-1)(x+1)")) is False
    assert matcher.match(read_shape("(x-1)(x+1)"), read_shape("(1+x)(-1+x)")) is True
    assert matcher.match(read_shape("(x-1)^2(x+1)"), read_shape("(x^2-1)(x-1)")) is False


def test_a_question_names_all_that_the_verdict_depends_on() -> None:
    asked = (Message(role="user", content="What percent?"),)
    questions = {
        question_of(sample(r"\boxed{5}", "5")),
        question_of(sample(r"so, at last, \boxed{5}", "5")),
        question_of(sample(r"\boxed{6}", "5")),
        question_of(sample(r"\boxed{5}", "6")),
        question_of(sample(r"\boxed{5}", "5", prompt=asked)),
    }
    assert len(questions) == 4


@given(st.lists(st.sampled_from(ATOMS), max_size=60), st.sampled_from(REFERENCES))
def test_any_text_is_judged_and_quickly(atoms: list[str], reference: str) -> None:
    started = time.process_time()
    judge_text(sample("\\boxed{" + "".join(atoms) + "}", reference))
    assert time.process_time() - started < 0.1


def test_repetition_costs_no_more_than_its_length() -> None:
    slowest = 0.0
    for first, second in itertools.product(ATOMS, ATOMS[::6]):
        unit = first + second
        started = time.process_time()
        judge_text(sample("\\boxed{" + unit * (480 // len(unit)) + "}", "x+1"))
        slowest = max(slowest, time.process_time() - started)
    assert slowest < 0.1


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6))
def test_a_number_equals_itself_in_any_spelling_and_no_other(number: int, other: int) -> None:
    for spelling in (str(number), f"{number:,}", rf"\boxed{{{number}}}", f"so ${number}$.", f"{number}.0"):
        outcome = judge_text(sample(spelling, str(number)))
        assert outcome is not None and outcome.score == 1.0
    wrong = judge_text(sample(str(number + other), str(number)))
    assert wrong is not None and wrong.score == 0.0
