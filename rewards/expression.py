r"""Reading LaTeX or plain notation as an expression tree. Pure Python, linear in the length, nothing is evaluated.

Whatever is left over or not understood raises `ReadError`: a parser that silently drops what it does not know would
read `4\sqrt(2)` as 4. `i` is the imaginary unit, `e` Euler's number, every other letter a variable; `f(x)` is read as
a product, which is the same for both sides of a comparison.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

MAX_DEPTH: Final = 48  # of nested operations
MAX_TOKENS: Final = 512


class ReadError(ValueError):
    """The text is not an expression of this grammar."""


@dataclass(frozen=True, slots=True)
class Number:
    """A literal. `decimals` counts the digits after its point."""

    value: Fraction
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    """A variable, or one of the constants pi, e, i and infinity."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation:
    """`operator` is one of + * / ^ ! | root (index, radicand) binom, or the name of a function."""

    operator: str
    arguments: tuple[Expression, ...]


Expression = Number | Symbol | Operation

CONSTANTS: Final = frozenset({"pi", "e", "i", "infinity"})
FUNCTIONS: Final = frozenset(
    re.findall(
        r"\w+",
        "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth ln log lg exp gcd lcm min max",
    )
)
_LISTED: Final = frozenset({"gcd", "lcm", "min", "max"})  # take several arguments
_GREEK: Final = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho sigma tau "
        "upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar",
    )
)
_MARKED: Final = frozenset({"vec", "overrightarrow", "hat", "bar", "overline", "mathbf", "bm", "boldsymbol", "tilde"})
_BOLD: Final = frozenset({"mathbf", "bm", "boldsymbol"})
_ALIASES: Final = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "infty": "infinity", "oo": "infinity"}
_TIMES: Final = frozenset({"*", "\\cdot", "\\times", "\\ast"})
_OVER: Final = frozenset({"/", "\\div"})
_FRACTIONS: Final = frozenset({"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"})
_BINOMIALS: Final = frozenset({"\\binom", "\\dbinom", "\\tbinom"})
_CLOSING: Final = {"(": ")", "[": "]", "{": "}"}
_PLAIN_NAMES: Final = FUNCTIONS | _ALIASES.keys() | {"pi", "sqrt", "infinity", "theta", "alpha", "beta"}

_TOKEN = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\\[A-Za-z]+|\\[|{}%]|\*\*|[A-Za-z]+|\S")
_ONE, _MINUS_ONE = Number(Fraction(1)), Number(Fraction(-1))
_MAX_POSTFIXES = 3
_DEGREE = Operation("/", (Symbol("pi"), Number(Fraction(180))))


def read_expression(text: str) -> Expression:
    """The tree of one expression. Raises ReadError."""
    return _Reader(_tokens(text)).whole()


def number(value: Fraction | int) -> Number:
    return Number(Fraction(value))


def negative(expression: Expression) -> Expression:
    if isinstance(expression, Number):
        return Number(-expression.value, expression.decimals)
    return Operation("*", (_MINUS_ONE, expression))


def difference(left: Expression, right: Expression) -> Expression:
    return Operation("+", (left, negative(right)))


def _multiplied(factors: Sequence[Expression]) -> Expression:
    return factors[0] if len(factors) == 1 else Operation("*", tuple(factors))


def variables_of(expression: Expression) -> frozenset[str]:
    """Names of the variables, constants left out."""
    if isinstance(expression, Symbol):
        return frozenset({expression.name}) - CONSTANTS
    if isinstance(expression, Number):
        return frozenset()
    return frozenset().union(*(variables_of(argument) for argument in expression.arguments))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    if not text.isascii():
        raise ReadError("a character that is not part of mathematical notation")
    for token in _TOKEN.findall(text):
        if token[0].isalpha() and token not in _PLAIN_NAMES:
            tokens += _letters(token)
        elif token == "**":
            tokens.append("^")
        elif token[0].isalpha() and len(token) > 1:
            tokens.append("\\" + token)
        else:
            tokens.append(token)
    if len(tokens) > MAX_TOKENS:
        raise ReadError(f"more than {MAX_TOKENS} symbols")
    return tokens


def _letters(run: str) -> list[str]:
    """A run of letters as single letters, except that a known name may end it, as in `xsin` or `2pi`."""
    for name in ("sqrt", "sin", "cos", "tan", "pi", "ln", "log"):
        if run.endswith(name) and len(run) > len(name):
            return [*run[: -len(name)], "\\" + name]
    return list(run)


class _Reader:
    """Recursive descent: sum, product, sign, power, atom."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> Expression:
        found = self._sum()
        if self._at < len(self._tokens):
            raise ReadError(f"cannot read {self._tokens[self._at]!r} here")
        return found

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        if self._at >= len(self._tokens):
            raise ReadError("ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise ReadError(f"{token!r} is missing")
        self._at += 1

    def _sum(self) -> Expression:
        terms = [self._product()]
        while self._next() in ("+", "-"):
            sign = self._take()
            term = self._product()
            terms.append(negative(term) if sign == "-" else term)
        return terms[0] if len(terms) == 1 else Operation("+", tuple(terms))

    def _product(self) -> Expression:
        """Factors in one flat node; a divisor is a factor 1/x, so a long chain makes no deep tree."""
        factors = [self._signed_power()]
        while True:
            token = self._next()
            if token in _TIMES:
                self._take()
                factors.append(self._signed_power())
            elif token in _OVER:
                self._take()
                factors.append(Operation("/", (_ONE, self._signed_power())))
            elif self._starts_atom(token):
                if token[0].isdigit() and self._tokens[self._at - 1][-1].isdigit():
                    raise ReadError("two numbers stand side by side")
                factors.append(self._power())
            else:
                return _multiplied(factors)

    def _signed_power(self) -> Expression:
        sign = 1
        while self._next() in ("+", "-"):
            sign *= -1 if self._take() == "-" else 1
        found = self._power()
        return found if sign == 1 else negative(found)

    def _starts_atom(self, token: str) -> bool:
        if not token:
            return False
        if token[0].isalnum() or token[-1].isdigit() or token[0] in "([{":
            return True
        return token[0] == "\\" and token not in _TIMES | _OVER and len(token) > 2

    def _power(self) -> Expression:
        base = self._atom()
        for _ in range(_MAX_POSTFIXES + 1):
            token = self._next()
            if token == "!":
                self._take()
                base = Operation("!", (base,))
            elif token in ("\\%", "%"):
                self._take()
                base = Operation("/", (base, number(100)))
            elif token == "^":
                self._take()
                base = self._raised(base)
            else:
                return base
        raise ReadError(f"more than {_MAX_POSTFIXES} operators behind one operand")

    def _raised(self, base: Expression) -> Expression:
        if self._is_degree():
            return Operation("*", (base, _DEGREE))
        exponent = self._script()
        if self._next() == "^":
            raise ReadError("a power of a power needs brackets")
        return Operation("^", (base, exponent))

    def _is_degree(self) -> bool:
        for form in (("\\circ",), ("{", "\\circ", "}")):
            if tuple(self._tokens[self._at : self._at + len(form)]) == form:
                self._at += len(form)
                return True
        return False

    def _script(self) -> Expression:
        """What stands behind ^: a group, or one signed atom."""
        if self._next() == "{":
            return self._group("{")
        sign = 1
        while self._next() in ("+", "-"):
            sign *= -1 if self._take() == "-" else 1
        found = self._atom()
        return found if sign == 1 else negative(found)

    def _group(self, opening: str) -> Expression:
        self._expect(opening)
        found = self._sum()
        self._expect(_CLOSING[opening])
        return found

    def _atom(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ReadError(f"more than {MAX_DEPTH} nested operations")
        found = self._operand(self._take())
        self._depth -= 1
        return found

    def _operand(self, token: str) -> Expression:
        if token[-1].isdigit():
            return Number(Fraction(token), len(token.partition(".")[2]))
        if token in _CLOSING:
            self._at -= 1
            return self._group(token)
        if token.isalpha() and token.isascii():
            return self._name(token)
        if token in ("|", "\\|", "\\lvert", "\\vert"):
            inside = self._sum()
            self._expect({"\\lvert": "\\rvert"}.get(token, token))
            return Operation("|", (inside,))
        if token.startswith("\\"):
            return self._command(token)
        raise ReadError(f"cannot read {token!r}")

    def _command(self, token: str) -> Expression:
        if token in _FRACTIONS:
            return Operation("/", (self._argument(), self._argument()))
        if token in _BINOMIALS:
            return Operation("binom", (self._argument(), self._argument()))
        if token == "\\sqrt":
            index: Expression = number(2)
            if self._next() == "[":
                index = self._group("[")
            return Operation("root", (index, self._argument()))
        name = _ALIASES.get(token[1:], token[1:])
        if name in FUNCTIONS:
            return self._function(name)
        if name in CONSTANTS or name in _GREEK:
            return self._name(name)
        if name in _BOLD and self._tokens[self._at : self._at + 1] == ["{"] and not self._is_single_letter():
            return self._group("{")
        if name in _MARKED:
            return self._name(f"{name}({self._raw_group()})")
        raise ReadError(f"the command {token} is not known")

    def _is_single_letter(self) -> bool:
        letter, closing = [*self._tokens[self._at + 1 : self._at + 3], "", ""][:2]
        return letter.isalpha() and closing == "}"

    def _argument(self) -> Expression:
        r"""A group, or what LaTeX takes without one: one digit of a number, one letter, one command."""
        token = self._next()
        if token in ("{", "("):
            return self._group(token)
        if token.isdigit() and len(token) > 1:
            # \frac12 is one half: the digits that are left stay to be read.
            self._tokens = [*self._tokens[: self._at], token[0], token[1:], *self._tokens[self._at + 1 :]]
        return self._atom()

    def _raw_group(self) -> str:
        if self._next() != "{":
            return self._take()
        self._take()
        inside: list[str] = []
        while self._next() != "}":
            if not self._next().isalnum() or len(inside) > 4:
                raise ReadError("a marked name must be a few letters")
            inside.append(self._take())
        self._take()
        return "".join(inside)

    def _name(self, name: str) -> Expression:
        if self._next() == "_":
            self._take()
            name = f"{name}_{self._raw_group()}"
        while self._next() == "'":
            name += self._take()
        return Symbol(name)

    def _function(self, name: str) -> Expression:
        base: Expression | None = None
        exponent: Expression | None = None
        if name == "log" and self._next() == "_":
            self._take()
            base = self._script()
        if self._next() == "^":
            self._take()
            exponent = self._script()
        arguments = self._arguments(name)
        if exponent == _MINUS_ONE and name in ("sin", "cos", "tan"):
            name, exponent = "arc" + name, None
        found: Expression = Operation("ln" if name == "log" else name, arguments)
        if name == "lg":
            found, base = Operation("ln", arguments), number(10)
        if base is not None:
            found = Operation("/", (found, Operation("ln", (base,))))
        return found if exponent is None else Operation("^", (found, exponent))

    def _arguments(self, name: str) -> tuple[Expression, ...]:
        if self._next() in ("(", "{"):
            closing = _CLOSING[self._take()]
            inside = [self._sum()]
            while name in _LISTED and self._next() == ",":
                self._take()
                inside.append(self._sum())
            self._expect(closing)
            return tuple(inside)
        factors = [self._signed_power()]
        while self._starts_atom(self._next()) and self._next()[1:] not in FUNCTIONS:
            factors.append(self._power())
        return (_multiplied(factors),)
