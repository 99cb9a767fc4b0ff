r"""Reading and computing arithmetic, exactly and boundedly: no eval, no floating point, no number that explodes.

    expression := term (('+' | '-') term)*
    term       := factor (('*' | '/') factor | factor without space between)*
    factor     := '-' factor | postfix ('^' factor)?        (and '+' factor at the start of an expression)
    postfix    := atom ('%' | '!')*
    atom       := number | letter | function argument | '(' expression ')' | \frac group group

Bounds: characters per text, tokens per expression, depth of nesting, digits per number, bits per value. Within them
every operation takes microseconds, so this runs outside the sandbox. Letters and roots are read here but computed by
`symbolic`.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

MAX_TOKENS = 256
_MAX_DEPTH = 32
_MAX_DIGITS = 64
_MAX_BITS = 4096
_MAX_FACTORIAL = 200

Operator = Literal["+", "-", "*", "/", "^", "neg", "%", "!", "sqrt"]


class NotArithmeticError(ValueError):
    """The text is not an expression of the grammar, or exceeds its bounds."""


class NeedsAlgebraError(Exception):
    """The expression is well formed, but its value is not a rational number found by counting."""


class TooLargeError(Exception):
    """The value has more digits than are computed here."""


class UndefinedValueError(Exception):
    """A division by zero."""


@dataclass(frozen=True, slots=True)
class Number:
    """`decimals` is the number of digits after the point as written: the precision that an approximation claims."""

    value: Fraction
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class Symbol:
    name: str


@dataclass(frozen=True, slots=True)
class Apply:
    operator: Operator
    arguments: tuple[Node, ...]


Node = Number | Symbol | Apply


class Token(NamedTuple):
    """`kind`: number, broken (part of an unreadable number), letter, function, operator, relation, word, other."""

    kind: str
    text: str
    start: int
    end: int


_TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<broken>\.\.+|\u2026|\.(?=\\[A-Za-z])|(?<=\d),(?=\d))"
    r"|(?P<function>\\sqrt|sqrt(?=\s*\()|\\[dt]?frac|\u221a)"
    r"|(?P<punctuation>=+>|-+>|\\implies|\\Rightarrow|\\to|[.,;:?\"'`#\u2014\u2018-\u201d\u2190-\u21ff])"
    r"|(?P<operator>\*\*|\\times|\\cdot|\\div|\\%|!(?!=)|[-+*/^%(){}\[\]\u00d7\u00b7\u22c5\u00f7\u2212\u2013])"
    r"|(?P<relation>==?(?!=)|\\approx|\u2248)"
    r"|(?P<letter>\\pi|\u03c0|[A-Za-z](?![A-Za-z]))"
    r"|(?P<word>[A-Za-z][A-Za-z'\u2019]*)"
    r"|(?P<ignored>\\left|\\right|\\boxed|\\[,;: ]|\\?\$|\s+)"
    r"|(?P<other>!=|\\[A-Za-z]+|\\?.)",
    re.DOTALL,
)
_SPELLINGS = {
    "**": "^",
    "\\times": "*",
    "\u00d7": "*",
    "\\cdot": "*",
    "\u00b7": "*",
    "\u22c5": "*",
    "\\div": "/",
    "\u00f7": "/",
    "\u2212": "-",
    "\u2013": "-",
    "\\%": "%",
    "==": "=",
    "\\approx": "\u2248",
    "\\pi": "pi",
    "\u03c0": "pi",
    "\\dfrac": "frac",
    "\\tfrac": "frac",
    "\\frac": "frac",
    "\\sqrt": "sqrt",
    "\u221a": "sqrt",
    "{": "(",
    "[": "(",
    "}": ")",
    "]": ")",
}
_INTEGER_SUM = re.compile(r"[-+]?\d{1,18}(?:[-+]\d{1,18}){0,128}")
_SIGNED_INTEGER = re.compile(r"[-+]?\d+")


def tokenize(text: str) -> list[Token]:
    """All tokens but white space and math marks."""
    return [
        Token(match.lastgroup or "other", _SPELLINGS.get(match.group(), match.group()), match.start(), match.end())
        for match in _TOKEN.finditer(text)
        if match.lastgroup != "ignored"
    ]


class _Parser:
    """Recursive descent over one list of tokens."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        if len(tokens) > MAX_TOKENS:
            raise NotArithmeticError(f"more than {MAX_TOKENS} tokens")
        self._tokens = tokens
        # A plus sign stands before a first factor only: "8++5" is a slip, not a sum.
        self._may_be_signed = {0, *(at + 1 for at, token in enumerate(tokens) if token.text == "(")}
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        node = self._expression()
        if self._at != len(self._tokens):
            raise NotArithmeticError(f"unexpected {self._tokens[self._at].text!r}")
        return node

    def _peek(self) -> str | None:
        return self._tokens[self._at].text if self._at < len(self._tokens) else None

    def _take(self, *texts: str) -> str | None:
        """Consume an operator that is one of these."""
        text = self._peek()
        if text in texts:
            self._at += 1
            return text
        return None

    def _expression(self) -> Node:
        node = self._term()
        while (sign := self._take("+", "-")) is not None:
            node = Apply("+" if sign == "+" else "-", (node, self._term()))
        return node

    def _term(self) -> Node:
        node = self._factor()
        while True:
            sign = self._take("*", "/")
            if sign is not None:
                node = Apply("*" if sign == "*" else "/", (node, self._factor()))
            elif self._is_juxtaposed():
                node = Apply("*", (node, self._factor()))
            else:
                return node

    def _is_juxtaposed(self) -> bool:
        """True for 2x, 2(3+4), (a)(b); only without a space, since prose puts numbers side by side.

        Not for a number before a fraction: that is a mixed number, to be added.
        """
        if not 0 < self._at < len(self._tokens):
            return False
        before, after = self._tokens[self._at - 1], self._tokens[self._at]
        return before.end == after.start and before.kind != "letter" and self._starts_factor(after)

    @staticmethod
    def _starts_factor(after: Token) -> bool:
        return after.text in ("(", "sqrt") or after.kind == "letter"

    def _factor(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotArithmeticError(f"nested deeper than {_MAX_DEPTH}")
        if self._take("-") is not None:
            node: Node = Apply("neg", (self._factor(),))
        elif self._at in self._may_be_signed and self._take("+") is not None:
            node = self._factor()
        else:
            node = self._postfix()
            if self._take("^") is not None:
                node = Apply("^", (node, self._factor()))
        self._depth -= 1
        return node

    def _postfix(self) -> Node:
        node = self._atom()
        while (sign := self._take("%", "!")) is not None:
            node = Apply("%" if sign == "%" else "!", (node,))
        return node

    def _atom(self) -> Node:
        if self._at == len(self._tokens):
            raise NotArithmeticError("ends too early")
        token = self._tokens[self._at]
        if token.text == "(":
            return self._group()
        self._at += 1
        if token.kind == "number":
            return read_number(token.text)
        if token.kind == "letter":
            return Symbol(token.text)
        if token.text == "sqrt":
            return Apply("sqrt", (self._group() if self._peek() == "(" else self._atom(),))
        if token.text == "frac":
            return Apply("/", (self._group(), self._group()))
        raise NotArithmeticError(f"unexpected {token.text!r}")

    def _group(self) -> Node:
        if self._take("(") is None:
            raise NotArithmeticError("a group in brackets was expected")
        self._depth += 1
        node = self._expression()
        self._depth -= 1
        if self._take(")") is None:
            raise NotArithmeticError("a bracket is not closed")
        return node


def parse(tokens: Sequence[Token]) -> Node:
    """The tree of one expression. Raises NotArithmeticError."""
    return _Parser(tokens).parse()


def read_number(text: str) -> Number:
    """A non-negative integer or decimal, with or without thousands separators."""
    digits = text.replace(",", "")
    if len(digits) > _MAX_DIGITS:
        raise NotArithmeticError(f"a number of more than {_MAX_DIGITS} digits")
    whole, _, decimals = digits.partition(".")
    if not decimals:
        return Number(Fraction(int(whole)))
    return Number(Fraction(int(whole + decimals), 10 ** len(decimals)), len(decimals))


@functools.lru_cache(maxsize=16_384)
def value_of(text: str) -> Fraction:
    """Exact value of one expression given as text.

    Raises NotArithmeticError, NeedsAlgebraError, TooLargeError or UndefinedValueError.
    """
    if _INTEGER_SUM.fullmatch(text):
        return Fraction(sum(map(int, _SIGNED_INTEGER.findall(text))))
    return evaluate(parse(tokenize(text)))


def evaluate(node: Node) -> Fraction:
    """Exact value of a tree. Raises NeedsAlgebraError, TooLargeError or UndefinedValueError."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Symbol):
        raise NeedsAlgebraError(node.name)
    value = _apply(node.operator, [evaluate(argument) for argument in node.arguments])
    if value.numerator.bit_length() > _MAX_BITS or value.denominator.bit_length() > _MAX_BITS:
        raise TooLargeError
    return value


def _apply(operator: Operator, values: Sequence[Fraction]) -> Fraction:
    first = values[0]
    match operator:
        case "+":
            return first + values[1]
        case "-":
            return first - values[1]
        case "*":
            return first * values[1]
        case "/":
            if values[1] == 0:
                raise UndefinedValueError
            return first / values[1]
        case "neg":
            return -first
        case "%":
            return first / 100
        case "^":
            return _power(first, values[1])
        case "!":
            if first.denominator != 1 or not 0 <= first <= _MAX_FACTORIAL:
                raise TooLargeError
            return Fraction(math.factorial(first.numerator))
        case "sqrt":
            raise NeedsAlgebraError("sqrt")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise NeedsAlgebraError("a root")
    if base == 0 and exponent < 0:
        raise UndefinedValueError
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(exponent.numerator) > _MAX_BITS:
        raise TooLargeError
    return base**exponent.numerator


def is_bare(node: Node) -> bool:
    """True for a number or a letter alone, signed or with a percent sign: nothing is computed."""
    if isinstance(node, Apply):
        return node.operator in ("neg", "%") and is_bare(node.arguments[0])
    return True


def has_percent(node: Node) -> bool:
    """True when a percent sign stands anywhere in the expression."""
    return isinstance(node, Apply) and (node.operator == "%" or any(map(has_percent, node.arguments)))


def symbols_of(node: Node) -> frozenset[str]:
    """Names of the unknowns; pi is a number."""
    if isinstance(node, Symbol):
        return frozenset() if node.name == "pi" else frozenset((node.name,))
    if isinstance(node, Number):
        return frozenset()
    return frozenset().union(*(symbols_of(argument) for argument in node.arguments))
