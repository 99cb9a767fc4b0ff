from __future__ import annotations

import contextlib
import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.arithmetic import (
    Apply,
    NeedsAlgebraError,
    Node,
    NotArithmeticError,
    Number,
    TooLargeError,
    UndefinedValueError,
    evaluate,
    parse,
    tokenize,
    value_of,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8+5+7+4+9", 33),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("2(3+4)", 14),
        ("-2^2", -4),
        ("2^3^2", 512),
        ("2**-1", Fraction(1, 2)),
        ("10 - 4 - 3", 3),
        ("12 / 4 / 3", 1),
        ("1,000.5 * 2", 2001),
        ("50%", Fraction(1, 2)),
        ("5!", 120),
        (r"\frac{1}{2} + \frac{1}{3}", Fraction(5, 6)),
        (r"3 \times 4 \div 6", 2),
        ("5 - -3", 8),
        (".1 + .2", Fraction(3, 10)),
    ],
)
def test_values_are_exact(text: str, value: Fraction | int) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8++5",
        "8+",
        "(8",
        "8)",
        "2 3",
        "x2",
        "3 apples",
        "1.2.3",
        "(3)4",
        r"1\frac{1}{4}",
        "=",
        "__import__('os')",
        "3;4",
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(NotArithmeticError):
        value_of(text)


@pytest.mark.parametrize("text", ["9^9^9^9", "2^99999", "999!", "(9^999)^999", "1000!"])
def test_what_would_explode_is_not_computed(text: str) -> None:
    started = time.process_time()
    with pytest.raises(TooLargeError):
        value_of(text)
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 500, "1+" * 500 + "1", "9" * 100, "-" * 500 + "1"])
def test_what_is_too_long_or_too_deep_is_refused(text: str) -> None:
    with pytest.raises(NotArithmeticError):
        parse(tokenize(text))


def test_undefined_and_irrational_values_are_told_apart() -> None:
    with pytest.raises(UndefinedValueError):
        value_of("5/(3-3)")
    with pytest.raises(UndefinedValueError):
        value_of("0^-1")
    with pytest.raises(NeedsAlgebraError):
        value_of("sqrt(2)")
    with pytest.raises(NeedsAlgebraError):
        value_of("2x")
    with pytest.raises(NeedsAlgebraError):
        value_of("2^(1/2)")


def _written(node: Node) -> str:
    if isinstance(node, Number):
        return str(node.value)
    assert isinstance(node, Apply)
    left, right = (_written(argument) for argument in node.arguments)
    return f"({left} {node.operator} {right})"


_numbers = st.integers(0, 999).map(lambda value: Number(Fraction(value)))
_trees = st.recursive(
    _numbers, lambda inner: st.builds(Apply, st.sampled_from("+-*"), st.tuples(inner, inner)), max_leaves=12
)


@given(_trees)
def test_an_expression_written_out_and_read_again_has_the_same_value(tree: Node) -> None:
    text = _written(tree)
    assert value_of(text) == evaluate(tree) == eval(text)


@given(st.text(alphabet="0123456789+-*/^()!%. x\\frac{}", max_size=600))
def test_any_text_has_a_value_or_a_named_reason(text: str) -> None:
    started = time.process_time()
    with contextlib.suppress(NotArithmeticError, NeedsAlgebraError, TooLargeError, UndefinedValueError):
        value_of(text)
    assert time.process_time() - started < 0.2
