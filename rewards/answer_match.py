"""Whether two shapes are the same answer: yes, no, or undecided without computer algebra (None).

Rules that need no algebra: containers, order, units, bases, percent signs, exact rational numbers, rounding. Two
irrational or symbolic values are told apart by rigorous approximation; that they are equal is only concluded from equal
canonical forms, or by the `algebra` that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rewards.answer_shape import UNORDERED, Group, Named, Relation, Shape, Value, Words
from rewards.answer_spelling import letters_only
from rewards.expression import (
    CONSTANTS,
    Expression,
    Number,
    Operation,
    ReadError,
    Symbol,
    difference,
    number,
    read_expression,
    variables_of,
)
from rewards.expression_value import approximate, canonical, exact_value

MIN_DIGITS: Final = 5  # of a decimal that may stand for a number without a finite decimal expansion
_NUM_POINTS: Final = 3

Algebra = Callable[[Expression, Expression], bool]


@dataclass(slots=True)
class Matcher:
    """One comparison. `wants_percent` and `wants_form` say what the question asks; `objection`: what is wrong."""

    algebra: Algebra | None = None
    wants_percent: bool = False
    wants_form: bool = False
    objection: str = ""

    def match(self, gold: Shape, answer: Shape) -> bool | None:
        """Whether `answer` is `gold`; the two are not treated alike. Raises TooLargeError."""
        if isinstance(gold, Named) or isinstance(answer, Named):
            return self._named(gold, answer)
        if isinstance(gold, Relation) or isinstance(answer, Relation):
            return self._related(gold, answer)
        if isinstance(gold, Words) or isinstance(answer, Words):
            return _text_of(gold) == _text_of(answer) != ""
        if isinstance(gold, Value) and isinstance(answer, Value):
            return self._values(gold, answer)
        return self._groups(gold, answer)

    def _no(self, objection: str) -> bool:
        self.objection = objection
        return False

    # -------------------------------------------------------------------------------------------- names, relations

    def _named(self, gold: Shape, answer: Shape) -> bool | None:
        wanted = gold.shape if isinstance(gold, Named) else gold
        got = answer.shape if isinstance(answer, Named) else answer
        if isinstance(wanted, Relation) or isinstance(got, Relation):
            return self._related(gold, answer)
        if isinstance(gold, Named) and isinstance(answer, Named) and gold.name != answer.name:
            if "(" in gold.name + answer.name or not (_is_symbolic(wanted) or _is_symbolic(got)):
                return self.match(wanted, got) if "(" in gold.name + answer.name else self._no("another variable")
            return self._related(gold, answer)
        return self.match(wanted, got)

    def _related(self, gold: Shape, answer: Shape) -> bool | None:
        """Equations and inequalities are the same when their two sides differ by the same up to a constant factor."""
        wanted, got = _as_relation(gold), _as_relation(answer)
        if wanted is None or got is None or wanted.operator != got.operator:
            return self._no("another kind of relation")
        left, right = difference(wanted.left, wanted.right), difference(got.left, got.right)
        variables = variables_of(left) | variables_of(right)
        if variables_of(left) != variables_of(right) or not variables:
            return self._no("other variables")
        point = _points(variables)[0]
        at_left, at_right = approximate(left, point), approximate(right, point)
        if at_left is None or at_right is None or abs(at_left.value) <= at_left.error:
            return self._expressions(left, right)
        if abs(at_right.value) <= at_right.error:
            return self._no("another relation")
        if wanted.operator in ("<", "<=") and (at_left.value / at_right.value).real < 0:
            return self._no("the inequality is turned around")
        return self._expressions(_scaled(left, _at(right, point)), _scaled(right, _at(left, point)))

    # -------------------------------------------------------------------------------------------- containers

    def _groups(self, gold: Shape, answer: Shape) -> bool | None:
        if isinstance(gold, Value) and isinstance(answer, Group):
            return self._value_and_group(gold, answer, answer)
        if isinstance(gold, Group) and isinstance(answer, Value):
            return self._value_and_group(answer, gold, gold)
        assert isinstance(gold, Group) and isinstance(answer, Group)
        kinds = {gold.kind, answer.kind}
        if len(kinds) > 1 and not ("list" in kinds and kinds & {"set", "()", "[]"}):
            return self._no("another kind of brackets")
        if kinds == {"ratio"}:
            return self._ratios(gold.items, answer.items)
        if "set" in kinds:
            return self._same_sets(gold.items, answer.items)
        if len(gold.items) != len(answer.items):
            return self._no(f"{len(answer.items)} items, not {len(gold.items)}")
        if kinds <= UNORDERED:
            return self._same_multiset(gold.items, answer.items)
        return _all(self.match(a, b) for a, b in zip(gold.items, answer.items, strict=True))

    def _value_and_group(self, value: Value, group: Group, answer: Group | Value) -> bool | None:
        """A number beside a list that may be a number in another country's spelling, a ratio, or a set of one."""
        if group.local is not None and answer is group:
            return self._expressions(value.expression, group.local)
        if group.kind == "ratio" and len(group.items) == 2:
            above, below = group.items
            if isinstance(above, Value) and isinstance(below, Value):
                return self._expressions(value.expression, Operation("/", (above.expression, below.expression)))
        if group.kind == "set" and len(group.items) == 1:
            return self.match(value, group.items[0])
        if group.kind == "list" and answer is group and _all(self.match(value, item) for item in group.items):
            return True  # one answer in two spellings
        return self._no("one value against several")

    def _ratios(self, gold: Sequence[Shape], answer: Sequence[Shape]) -> bool | None:
        wanted = [item.expression for item in gold if isinstance(item, Value)]
        got = [item.expression for item in answer if isinstance(item, Value)]
        if len(wanted) != len(gold) or len(got) != len(answer) or len(gold) != len(answer):
            return self._no("another ratio")
        if any(exact_value(item) == 0 for item in (wanted[0], got[0])):
            return _all(self._expressions(a, b) for a, b in zip(wanted, got, strict=True))
        return _all(
            self._expressions(_scaled(a, got[0]), _scaled(b, wanted[0])) for a, b in zip(wanted, got, strict=True)
        )

    def _same_sets(self, gold: Sequence[Shape], answer: Sequence[Shape]) -> bool | None:
        there = _all(_any(self.match(a, b) for b in answer) for a in gold)
        return _all([there, _all(_any(self.match(a, b) for a in gold) for b in answer)])

    def _same_multiset(self, gold: Sequence[Shape], answer: Sequence[Shape]) -> bool | None:
        table = [[self.match(a, b) for b in answer] for a in gold]
        if any(all(cell is False for cell in row) for row in table):
            return False
        free = set(range(len(answer)))
        for row in table:
            taken = next((column for column in sorted(free) if row[column]), None)
            if taken is None:
                return None if any(cell is None for line in table for cell in line) else self._no("other items")
            free.discard(taken)
        return True

    # -------------------------------------------------------------------------------------------- values

    def _values(self, gold: Value, answer: Value) -> bool | None:
        if gold.unit and answer.unit and gold.unit != answer.unit:
            return self._no(f"another unit: {answer.unit!r}, not {gold.unit!r}")
        if (gold.base or 10) != (answer.base or 10):
            return self._no("another base")
        wanted, got = gold.expression, answer.expression
        if gold.is_percent != answer.is_percent:
            if self.wants_percent and self._expressions(wanted, got):
                return True
            wanted, got = _percent(wanted, gold), _percent(got, answer)
            same = self._expressions(wanted, got)
            return self._no("a percent sign on one side only") if same is False else same
        same = self._expressions(wanted, got)
        if same and self.wants_form and _form(wanted) != _form(got):
            return self._no("equal, but not in the form that was asked for")
        return same

    def _expressions(self, gold: Expression, answer: Expression) -> bool | None:
        wanted, got = canonical(gold), canonical(answer)
        if wanted == got:
            return True
        if isinstance(wanted, Number) and isinstance(got, Number):
            return self._rational(gold, wanted.value, answer, got.value)
        if _is_infinite(wanted) or _is_infinite(got):
            return False
        rounded = self._rounded_value(gold, answer)
        if rounded is not None:
            return rounded
        for point in _points(variables_of(wanted) | variables_of(got)):
            here, there = approximate(wanted, point), approximate(got, point)
            if here is not None and there is not None and abs(here.value - there.value) > here.error + there.error:
                return False
        return self.algebra(wanted, got) if self.algebra else None

    def _rational(self, gold: Expression, wanted: Fraction, answer: Expression, got: Fraction) -> bool:
        for literal, exact in ((answer, wanted), (gold, got)):
            other = gold if literal is answer else answer
            if _is_long_decimal(literal) and not _is_decimal(other) and not _is_finite_decimal(exact):
                assert isinstance(literal, Number)
                return abs(literal.value - exact) <= _half_a_step(literal) or self._no("rounded wrongly")
        return self._no("")

    def _rounded_value(self, gold: Expression, answer: Expression) -> bool | None:
        """A long decimal that stands for an irrational number is right when it is that number, rounded."""
        for literal, exact in ((answer, gold), (gold, answer)):
            if _is_long_decimal(literal) and not variables_of(exact):
                assert isinstance(literal, Number)
                value = approximate(exact, {})
                if value is None or value.error > float(_half_a_step(literal)) / 1000:
                    return None
                off = abs(value.value - float(literal.value))
                return off <= 1.001 * float(_half_a_step(literal)) or self._no("rounded wrongly")
        return None


# ------------------------------------------------------------------------------------------------ three-valued logic


def _all(parts: Iterable[bool | None]) -> bool | None:
    undecided = False
    for part in parts:
        if part is False:
            return False
        undecided |= part is None
    return None if undecided else True


def _any(parts: Iterable[bool | None]) -> bool | None:
    undecided = False
    for part in parts:
        if part:
            return True
        undecided |= part is None
    return None if undecided else False


# ------------------------------------------------------------------------------------------------ about shapes


def _text_of(shape: Shape) -> str:
    if isinstance(shape, Words):
        return letters_only(shape.text)
    return letters_only(shape.text) if isinstance(shape, Value) else ""


def _is_symbolic(shape: Shape) -> bool:
    return isinstance(shape, Value) and bool(variables_of(shape.expression))


def _as_relation(shape: Shape) -> Relation | None:
    if isinstance(shape, Relation):
        return shape
    if isinstance(shape, Named) and isinstance(shape.shape, Value):
        try:
            return Relation("=", read_expression(shape.name), shape.shape.expression)
        except ReadError:
            return None
    return None


# ------------------------------------------------------------------------------------------------ about expressions


def _points(variables: Iterable[str]) -> list[dict[str, float]]:
    """Positive points without a pattern; a function with roots and logarithms of its variables is real there."""
    names = sorted(variables)
    return [
        {name: 0.375 + (0.6180339887 * (i + 1) + 0.7548776662 * j) % 1.0 for i, name in enumerate(names)}
        for j in range(_NUM_POINTS if names else 1)
    ]


def _at(expression: Expression, point: dict[str, float]) -> Expression:
    """The expression with numbers for its variables."""
    if isinstance(expression, Symbol):
        return expression if expression.name in CONSTANTS else number(Fraction(point[expression.name]))
    if isinstance(expression, Number):
        return expression
    return Operation(expression.operator, tuple(_at(argument, point) for argument in expression.arguments))


def _scaled(expression: Expression, factor: Expression) -> Expression:
    return Operation("*", (expression, factor))


def _percent(expression: Expression, value: Value) -> Expression:
    return Operation("/", (expression, number(100))) if value.is_percent else expression


def _is_infinite(expression: Expression) -> bool:
    if isinstance(expression, Operation):
        return any(_is_infinite(argument) for argument in expression.arguments)
    return expression == Symbol("infinity")


def _is_decimal(expression: Expression) -> bool:
    return isinstance(expression, Number) and expression.decimals > 0


def _is_long_decimal(expression: Expression) -> bool:
    if not isinstance(expression, Number) or not expression.decimals:
        return False
    return len(str(abs(int(expression.value * 10**expression.decimals)))) >= MIN_DIGITS


def _is_finite_decimal(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1


def _half_a_step(literal: Number) -> Fraction:
    return Fraction(1, 2 * 10**literal.decimals)


def _form(expression: Expression) -> tuple[str, int]:
    """'sum' with the number of bracketed sums inside it, or 'product' with the number of sums it is made of."""
    if isinstance(expression, Operation) and expression.operator == "+":
        return "sum", sum(_sums(argument) for argument in expression.arguments)
    return "product", _sums(expression)


def _sums(expression: Expression) -> int:
    if not isinstance(expression, Operation):
        return 0
    if expression.operator == "+":
        return 1
    if expression.operator == "*":
        return sum(_sums(argument) for argument in expression.arguments)
    if expression.operator == "^" and isinstance(expression.arguments[1], Number):
        power = expression.arguments[1].value
        return _sums(expression.arguments[0]) * (int(power) if power.denominator == 1 and power > 0 else 1)
    return 0
