"""The value of an expression: exactly where it is rational, otherwise as a complex number with a bound on its error.

A difference that exceeds both bounds is a proof that two expressions differ; nothing here proves that irrational ones
are equal. Sizes are limited before a number is computed, so no text can make this slow.
"""

from __future__ import annotations

import cmath
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from rewards.expression import Expression, Number, Operation, Symbol

MAX_BITS: Final = 1 << 15
_MAX_FACTORIAL: Final = 3_000
_EPSILON: Final = 2.0**-50  # two bits more than a double's own rounding, for library functions
_MAX_TERMS: Final = 10_000


class TooLargeError(ValueError):
    """Computing the number would take more than the size limit."""


class _UnknownError(ArithmeticError):
    """No value here: undefined at this point, or not computable by these means."""


@dataclass(frozen=True, slots=True)
class Approximation:
    """A complex value, and a bound on how far the true value may be from it."""

    value: complex
    error: float


# ------------------------------------------------------------------------------------------------ exact


def exact_value(expression: Expression) -> Fraction | None:
    """The value when it is built from rational numbers by rational operations. Raises TooLargeError."""
    if isinstance(expression, Number):
        return expression.value
    if isinstance(expression, Symbol):
        return None
    values = [exact_value(argument) for argument in expression.arguments]
    known = [value for value in values if value is not None]
    if len(known) < len(values) or expression.operator not in _EXACT:
        return None
    return _sized(_EXACT[expression.operator](known))


def _sized(value: Fraction | None) -> Fraction | None:
    if value is not None and _bits(value) > MAX_BITS:
        raise TooLargeError("a number too large to compute")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _product(values: list[Fraction]) -> Fraction:
    if sum(_bits(value) for value in values) > MAX_BITS:
        raise TooLargeError("a number too large to compute")
    return math.prod(values, start=Fraction(1))


def _quotient(values: list[Fraction]) -> Fraction | None:
    above, below = values
    return None if below == 0 else _product([above, 1 / below])


def _power(values: list[Fraction]) -> Fraction | None:
    base, exponent = values
    if exponent.denominator != 1:
        root = _root([Fraction(exponent.denominator), base])
        return None if root is None else _power([root, Fraction(exponent.numerator)])
    if base == 0 and exponent <= 0:
        return None
    if abs(exponent.numerator) * (_bits(base) - (abs(base) == 1)) > MAX_BITS:
        raise TooLargeError("a power too large to compute")
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    return base**exponent.numerator


def _root(values: list[Fraction]) -> Fraction | None:
    index, radicand = values
    if index != 2 or radicand < 0:
        return None
    above, below = math.isqrt(radicand.numerator), math.isqrt(radicand.denominator)
    return Fraction(above, below) if Fraction(above * above, below * below) == radicand else None


def _factorial(values: list[Fraction]) -> Fraction | None:
    (value,) = values
    if value.denominator != 1 or value < 0:
        return None
    if value > _MAX_FACTORIAL:
        raise TooLargeError("a factorial too large to compute")
    return Fraction(math.factorial(value.numerator))


def _binomial(values: list[Fraction]) -> Fraction | None:
    above, below = values
    if above.denominator != 1 or below.denominator != 1 or not 0 <= below <= above:
        return None
    if above > _MAX_FACTORIAL:
        raise TooLargeError("a binomial coefficient too large to compute")
    return Fraction(math.comb(above.numerator, below.numerator))


def _of_integers(function: Callable[..., int]) -> Callable[[list[Fraction]], Fraction | None]:
    def compute(values: list[Fraction]) -> Fraction | None:
        if any(value.denominator != 1 for value in values):
            return None
        return Fraction(function(*(value.numerator for value in values)))

    return compute


def _lcm(values: list[Fraction]) -> Fraction | None:
    if sum(_bits(value) for value in values) > MAX_BITS:
        raise TooLargeError("a number too large to compute")
    return _of_integers(math.lcm)(values)


_EXACT: Final[Mapping[str, Callable[[list[Fraction]], Fraction | None]]] = {
    "+": lambda values: sum(values, start=Fraction(0)),
    "*": _product,
    "/": _quotient,
    "^": _power,
    "root": _root,
    "!": _factorial,
    "binom": _binomial,
    "|": lambda values: abs(values[0]),
    "gcd": _of_integers(math.gcd),
    "lcm": _lcm,
    "min": min,
    "max": max,
}


# ------------------------------------------------------------------------------------------------ approximate


def approximate(expression: Expression, point: Mapping[str, float]) -> Approximation | None:
    """The value at a point, None where it is undefined, not computable here, or beyond the range of a double."""
    try:
        found = _approximate(expression, point)
    except (ArithmeticError, ValueError):  # overflow, division by zero, outside a function's domain, _UnknownError
        return None
    return found if cmath.isfinite(found.value) and math.isfinite(found.error) else None


def leaves_the_reals(expression: Expression, point: Mapping[str, float]) -> bool:
    """Whether the expression, or anything inside it, is known to be no real number at a point."""
    value = approximate(expression, point)
    if value is not None and abs(value.value.imag) > value.error:
        return True
    return isinstance(expression, Operation) and any(leaves_the_reals(part, point) for part in expression.arguments)


def _approximate(expression: Expression, point: Mapping[str, float]) -> Approximation:
    if isinstance(expression, Number):
        nearest = float(expression.value)
        exact = Fraction(nearest) == expression.value
        return Approximation(complex(nearest), 0.0 if exact else _EPSILON * abs(nearest))
    if isinstance(expression, Symbol):
        return _symbol(expression.name, point)
    values = [_approximate(argument, point) for argument in expression.arguments]
    match expression.operator:
        case "+":
            total = sum(value.value for value in values)
            slack = _EPSILON * sum(abs(value.value) for value in values)
            return Approximation(total, sum(value.error for value in values) + slack)
        case "*":
            return functools.reduce(_times, values)
        case "/":
            return _times(values[0], _inverse(values[1]))
        case "^":
            return _to_the(values[0], values[1])
        case "root":
            return _rooted(values[0], values[1])
        case "|":
            return _rounded(complex(abs(values[0].value)), values[0].error)
    return _function(expression, values)


def _rounded(value: complex, error: float = 0.0) -> Approximation:
    return Approximation(value, error + _EPSILON * abs(value))


def _symbol(name: str, point: Mapping[str, float]) -> Approximation:
    constants = {"pi": math.pi, "e": math.e, "i": 1j}
    if name in constants:
        return _rounded(complex(constants[name]))
    if name not in point:  # infinity among them
        raise _UnknownError(name)
    return Approximation(complex(point[name]), 0.0)  # the point is exact by definition


def _times(a: Approximation, b: Approximation) -> Approximation:
    error = abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error
    return _rounded(a.value * b.value, error)


def _inverse(a: Approximation) -> Approximation:
    room = abs(a.value) - a.error
    if room <= 0:
        raise _UnknownError("a divisor that may be zero")
    return _rounded(1 / a.value, a.error / (room * abs(a.value)))


def _rooted(index: Approximation, radicand: Approximation) -> Approximation:
    """The real root where there is one: the cube root of -8 is -2."""
    if radicand.value.imag == 0 and radicand.value.real < 0 and index.error == 0 and index.value.real % 2 == 1:
        positive = _to_the(Approximation(-radicand.value, radicand.error), _inverse(index))
        return Approximation(-positive.value, positive.error)
    return _to_the(radicand, _inverse(index))


def _to_the(base: Approximation, exponent: Approximation) -> Approximation:
    if abs(base.value) <= 2 * base.error or base.value == 0:
        raise _UnknownError("a power of what may be zero")
    is_integer = exponent.error == 0 and exponent.value.imag == 0 and exponent.value.real == round(exponent.value.real)
    near_cut = base.value.real < 0 and abs(base.value.imag) <= base.error
    if near_cut and base.error and not is_integer:
        raise _UnknownError("on the cut of the logarithm")
    relative = base.error / (abs(base.value) - base.error)
    power = base.value**exponent.value
    slack = abs(exponent.value) * (relative + _EPSILON) + (abs(cmath.log(base.value)) + relative) * exponent.error
    if slack > 0.5:
        raise _UnknownError("too uncertain")
    return _rounded(power, 2 * slack * abs(power))


def _function(expression: Operation, values: list[Approximation]) -> Approximation:
    """Functions of one argument: the error by the largest slope near the point, estimated on both sides and doubled."""
    if expression.operator not in _FUNCTIONS or len(values) != 1:
        raise _UnknownError(expression.operator)
    function, (argument,) = _FUNCTIONS[expression.operator], values
    value = function(argument.value)
    step = max(argument.error, 1e-9 * max(1.0, abs(argument.value)))
    slope = max(abs(function(argument.value + shift) - value) for shift in (step, -step, 1j * step, -1j * step)) / step
    return _rounded(value, 2 * slope * argument.error + _EPSILON * abs(value))


def _guarded(function: Callable[[complex], complex]) -> Callable[[complex], complex]:
    return lambda value: 1 / function(value)


_FUNCTIONS: Final[Mapping[str, Callable[[complex], complex]]] = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": _guarded(cmath.tan),
    "sec": _guarded(cmath.cos),
    "csc": _guarded(cmath.sin),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "coth": _guarded(cmath.tanh),
    "ln": cmath.log,
    "exp": cmath.exp,
}


# ------------------------------------------------------------------------------------------------ canonical


def canonical(expression: Expression) -> Expression:
    """The same value with sums and products flattened, numbers folded and operands in a fixed order.

    Two expressions with the same canonical form are equal; the reverse does not hold. Raises TooLargeError.
    """
    if isinstance(expression, Number):
        return Number(expression.value)
    if isinstance(expression, Symbol):
        return expression
    arguments = tuple(canonical(argument) for argument in expression.arguments)
    folded = Operation(expression.operator, arguments)
    value = exact_value(folded) if all(isinstance(argument, Number) for argument in arguments) else None
    if value is not None:
        return Number(value)
    if expression.operator == "/" and isinstance(arguments[1], Number) and arguments[1].value:
        return _gathered("*", (arguments[0], Number(1 / arguments[1].value)))
    if expression.operator in ("+", "*"):
        return _gathered(expression.operator, arguments)
    return folded


def _gathered(operator: str, arguments: tuple[Expression, ...]) -> Expression:
    flat: list[Expression] = []
    for argument in arguments:
        same = isinstance(argument, Operation) and argument.operator == operator
        flat += argument.arguments if same and isinstance(argument, Operation) else (argument,)
    neutral = Fraction(operator == "*")
    numbers = [argument.value for argument in flat if isinstance(argument, Number)]
    constant = _EXACT[operator](numbers) if numbers else neutral
    rest: list[Expression] = sorted((argument for argument in flat if not isinstance(argument, Number)), key=repr)
    assert constant is not None
    if _bits(constant) > MAX_BITS:
        raise TooLargeError("a number too large to compute")
    if constant != neutral or not rest:
        rest = [Number(constant), *rest]
    return rest[0] if len(rest) == 1 else Operation(operator, tuple(rest))
