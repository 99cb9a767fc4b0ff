r"""The structure of an answer: a single value, words, a tuple, a set, an interval, a union, a matrix, a relation.

The structure is read here, once and in plain Python, so that a set is never taken for a tuple; only the values in it
are left to arithmetic and to computer algebra.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rewards.answer_number import read_literal, read_local_literal
from rewards.answer_spelling import MARK_CLOSE, MARK_OPEN, NEW_ROW, SET_CLOSE, SET_OPEN, tidy, without_marks
from rewards.answer_units import split_base, split_percent, split_unit
from rewards.expression import FUNCTIONS, Expression, Number, ReadError, Symbol, number, read_expression, variables_of

MAX_ITEMS: Final = 64
_MAX_NESTED: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A single value with what stood behind it."""

    expression: Expression
    text: str
    unit: str | None = None
    is_percent: bool = False
    base: int | None = None


@dataclass(frozen=True, slots=True)
class Words:
    """Text that is compared as text."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """`kind` is 'list' (no brackets), 'set', 'union', 'matrix', 'row', 'ratio', or the two brackets: '()' '[]' '(]'.

    `local` is the second reading of a list as one number, see `read_local_literal`.
    """

    kind: str
    items: tuple[Shape, ...]
    local: Number | None = None


@dataclass(frozen=True, slots=True)
class Named:
    """`name = shape`, or `name` in an interval."""

    name: str
    shape: Shape


@dataclass(frozen=True, slots=True)
class Relation:
    """An equation or inequality between expressions; `operator` is one of = < <= != ('>' is turned around)."""

    operator: str
    left: Expression
    right: Expression


Shape = Value | Words | Group | Named | Relation

UNORDERED: Final = frozenset({"list", "set", "union"})
_INFINITY = Symbol("infinity")

_OPERATORS: Final = {
    "\\leqslant": "<=", "\\leq": "<=", "\\le": "<=", "<=": "<=", "\\geqslant": ">=", "\\geq": ">=", "\\ge": ">=",
    ">=": ">=", "\\lt": "<", "<": "<", "\\gt": ">", ">": ">", "\\neq": "!=", "\\ne": "!=", "!=": "!=",
    "==": "=", "=": "=", "\\approx": "=", "\\in": "in",
}  # fmt: skip
_OPERATOR = re.compile(r"\\leqslant|\\geqslant|\\approx|\\(?:leq?|geq?|lt|gt|neq?|in)(?![A-Za-z])|[<>=!]=|[<>=]")
_CONJUNCTION = re.compile(
    rf"{MARK_OPEN} *,? *(?:or|and) *{MARK_CLOSE}|,? (?:or|and) |\\lor|\\vee|\\land|\\wedge|\\cup|[,;&]"
)
_SPELLED_ONLY = re.compile(r"\\[lcd]?dots|\.\.\.|\\forall|\\exists|\\mid|\\equiv|\\pmod|\\to(?![a-z])|\\Rightarrow")
_MATRIX = re.compile(r"\\begin\{([pb]?|small)matrix\}(.*)\\end\{\1matrix\}", re.DOTALL)
_MATRIX_ROW_GAP = re.compile(rf"{NEW_ROW} ?(?:\[[0-9.]+ ?(?:pt|em|ex|mm|cm)\])?")
_FRENCH = re.compile(r"([\[\]])(.*[,;].*)([\[\]])")
_NAME = re.compile(
    rf"(?:[A-Za-z]|\\[A-Za-z]+)(?:_(?:\{{[A-Za-z0-9]+\}}|[A-Za-z0-9]))?'*(?:\^\{{-1\}})?"
    rf" ?(?:\([A-Za-z](?:, ?[A-Za-z])*\))?"
    rf"|{MARK_OPEN}[^{MARK_CLOSE}]*{MARK_CLOSE}|[A-Za-z]{{3,}}(?: [A-Za-z]+)*|[A-Z]{{2,3}}"
    rf"|\\(?:overline|angle|triangle|vec|mathbf|mathbb) ?\{{?[A-Za-z]+\}}?|\([A-Za-z](?:, ?[A-Za-z])+\)"
)
_WORDS = re.compile(r"[A-Za-z][A-Za-z'.]+(?:[ ,:-].*)?")
_MARKED = re.compile(rf"{MARK_OPEN}([^{MARK_OPEN}{MARK_CLOSE}]*){MARK_CLOSE}")
_LETTERS = re.compile(r"\(?[A-Za-z][A-Za-z '.-]*\)?")
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?(?: ?([AaPp])\.?[Mm]\.?)?")
_DATE = re.compile(r"[0-9]{1,4}([/.-])[0-9]{1,2}\1[0-9]{2,4}")
_RATIO = re.compile(r"[^:]+(?::[^:]+)+")
_EMPTY = frozenset({"\\emptyset", "\\varnothing", SET_OPEN + SET_CLOSE, f"{SET_OPEN} {SET_CLOSE}"})
_OPENING, _CLOSING = "([{" + SET_OPEN, ")]}" + SET_CLOSE
_NOT_WORDS: Final = FUNCTIONS | {"sqrt", "infinity", "pi", "theta", "alpha", "beta"}


@functools.lru_cache(maxsize=4096)
def read_shape(text: str) -> Shape:
    """The shape of an answer as it was written. Raises ReadError for what this grammar does not cover."""
    return _shape(tidy(text), 0)


def _shape(text: str, depth: int) -> Shape:
    if not text:
        raise ReadError("nothing is written")
    if depth > _MAX_NESTED:
        raise ReadError(f"more than {_MAX_NESTED} structures inside each other")
    literal = read_literal(text)
    if literal is not None:
        return Value(expression=literal, text=text)
    if _SPELLED_ONLY.search(text):
        raise ReadError("an ellipsis, a quantifier or a congruence, which can only be compared by spelling")
    if text in _EMPTY:
        return Group("set", ())
    words = _words(text)
    if words is not None:
        return words
    matrix = _MATRIX.fullmatch(text)
    if matrix is not None:
        return _matrix(matrix[2], depth)
    return _list(text, depth) or _related(text, depth) or _single(text, depth)


def _words(text: str) -> Words | None:
    marked = _MARKED.fullmatch(text)
    if marked is not None and _LETTERS.fullmatch(marked[1].strip()):
        return Words(marked[1])
    plain = without_marks(text)
    if _WORDS.fullmatch(plain) and "=" not in plain and "\\" not in plain:
        first = re.split(r"[ ,:-]", plain)[0].rstrip(".'")
        is_product = len(plain) == 2 and not plain.istitle() and plain.casefold() not in _SHORT_WORDS
        if first not in _NOT_WORDS and not is_product:
            return Words(plain)
    return Words(text) if _DATE.fullmatch(text) else None


_SHORT_WORDS: Final = frozenset({"no", "up", "on", "in", "to", "if", "do", "so", "or", "it", "is", "ok"})


def _matrix(inside: str, depth: int) -> Group:
    rows = [row.strip() for row in _MATRIX_ROW_GAP.split(inside)]
    if rows and not rows[-1]:
        rows.pop()
    cells = [row.split("&") for row in rows]
    if not cells or len({len(row) for row in cells}) != 1 or len(cells) * len(cells[0]) > MAX_ITEMS:
        raise ReadError("a matrix must be rectangular and small")
    return Group("matrix", tuple(Group("row", tuple(_shape(c.strip(), depth + 1) for c in row)) for row in cells))


# ------------------------------------------------------------------------------------------------ lists and unions


def _at_top(text: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    """Matches of the pattern outside of all brackets."""
    depth = at = 0
    while at < len(text):
        match = pattern.match(text, at) if depth == 0 else None
        if match is not None and match.end() > at:
            yield match
            at = match.end()
            continue
        depth += (text[at] in _OPENING) - (text[at] in _CLOSING)
        at += 1


def _list(text: str, depth: int) -> Shape | None:
    """Several answers, or a union of sets; None for a single one."""
    parts, marks, start = [], set(), 0
    for match in _at_top(text, _CONJUNCTION):
        # A comma that groups digits, when the others are followed by a space, as in `1,000, 2,000`.
        groups = match[0] == "," and ", " in text and re.match(r"[0-9]{3}(?![0-9])", text[match.end() :])
        if not (groups and text[: match.start()][-1:].isdigit()):
            parts.append(text[start : match.start()].strip())
            marks.add(match[0].strip(f", {MARK_OPEN}{MARK_CLOSE}"))
            start = match.end()
    if not parts:
        return _plus_minus(text, depth)
    parts = [part for part in (*parts, text[start:].strip()) if part]
    if len(parts) > MAX_ITEMS:
        raise ReadError(f"more than {MAX_ITEMS} answers")
    items = tuple(_shape(part, depth + 1) for part in parts)
    if "\\cup" in marks or (marks <= {"or", "\\lor", "\\vee"} and all(map(_is_interval, items))):
        return Group("union", tuple(item.shape if isinstance(item, Named) else item for item in items))
    return Group("list", _flat(items), read_local_literal(text))


def _is_interval(shape: Shape) -> bool:
    inner = shape.shape if isinstance(shape, Named) else shape
    return isinstance(inner, Group) and len(inner.kind) == 2


def _flat(items: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """Items of a list, where one with a plus-minus sign stands for two."""
    flat: list[Shape] = []
    for item in items:
        inner = item.shape if isinstance(item, Named) else item
        flat += inner.items if isinstance(inner, Group) and inner.kind == "list" else (item,)
    return tuple(flat)


def _plus_minus(text: str, depth: int) -> Shape | None:
    r"""`a \pm b` as the list of its two values, all signs taken above or all below."""
    if "\\pm" not in text and "\\mp" not in text:
        return None
    relation = next(_at_top(text, _OPERATOR), None)
    if relation is not None and relation[0] != "=":
        raise ReadError("a plus-minus sign in an inequality")
    head = text[: relation.end()] if relation else ""
    tail = text[len(head) :]
    if next(_at_top(tail, re.compile(r"\\[pm][pm](?![a-z])")), None) is None and tail[:1] in "([" + SET_OPEN:
        return None  # the sign stands inside a container, which reads its items itself
    above, below = (tail.replace("\\pm", plus).replace("\\mp", minus) for plus, minus in (("+", "-"), ("-", "+")))
    return Group("list", (_shape(head + above, depth + 1), _shape(head + below, depth + 1)))


# ------------------------------------------------------------------------------------------------ relations


def _related(text: str, depth: int) -> Shape | None:
    """An assignment, an interval given by an inequality, or an equation; None without a relation sign."""
    signs = list(_at_top(text, _OPERATOR))
    if not signs:
        return None
    starts, ends = [0, *(sign.end() for sign in signs)], [*(sign.start() for sign in signs), len(text)]
    sides = [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]
    operators = [_OPERATORS[sign[0]] for sign in signs]
    if operators == ["in"]:
        return Named(sides[0], _shape(sides[1], depth + 1))
    if set(operators) == {"="}:
        return _equation(sides, depth)
    return _inequality(sides, operators)


def _equation(sides: list[str], depth: int) -> Shape:
    if not sides[0]:
        return _shape(sides[-1], depth + 1)
    if _NAME.fullmatch(sides[0]):
        return Named(without_marks(sides[0]).replace(" ", ""), _shape(sides[-1], depth + 1))
    if len(sides) == 2 and _NAME.fullmatch(sides[1]):
        return Named(without_marks(sides[1]).replace(" ", ""), _shape(sides[0], depth + 1))
    left = read_expression(without_marks(sides[0]))
    if not variables_of(left):
        return _shape(sides[-1], depth + 1)  # a computation and its result
    if len(sides) != 2:
        raise ReadError("a chain of equations between expressions")
    return Relation("=", left, _value(sides[1]).expression)


def _inequality(sides: list[str], operators: list[str]) -> Shape:
    expressions = [_value(side).expression for side in sides]
    if len(operators) == 2 and operators[0] in (">", ">=") and operators[1] in (">", ">="):
        expressions.reverse()
        operators = [operator.replace(">", "<") for operator in reversed(operators)]
    if len(operators) == 1 and operators[0] in (">", ">="):
        expressions.reverse()
        operators = [operators[0].replace(">", "<")]
    if any(operator not in ("<", "<=") for operator in operators) or len(operators) > 2:
        if operators == ["!="]:
            return Relation("!=", expressions[0], expressions[1])
        raise ReadError("a chain of different relations")
    names = [index for index, side in enumerate(expressions) if isinstance(side, Symbol) and variables_of(side)]
    middle = 1 if len(operators) == 2 else (names or [-1])[0]
    others = [side for index, side in enumerate(expressions) if index != middle]
    if middle not in names or any(variables_of(side) for side in others):
        if len(operators) == 1:
            return Relation(operators[0], expressions[0], expressions[1])
        raise ReadError("a double inequality without a variable between constants")
    name = expressions[middle]
    assert isinstance(name, Symbol)
    return Named(name.name, _interval(expressions, operators, middle))


def _interval(expressions: list[Expression], operators: list[str], middle: int) -> Group:
    low = Value(expression=expressions[0], text="") if middle == 1 else None
    high = Value(expression=expressions[-1], text="") if middle < len(expressions) - 1 else None
    opening = "[" if low is not None and operators[0] == "<=" else "("
    closing = "]" if high is not None and operators[-1] == "<=" else ")"
    below = Value(expression=read_expression("-\\infty"), text="")
    return Group(opening + closing, (low or below, high or Value(expression=_INFINITY, text="")))


# ------------------------------------------------------------------------------------------------ one thing


def _single(text: str, depth: int) -> Shape:
    grouped = _bracketed(text, depth)
    if grouped is not None:
        return grouped
    clock = _CLOCK.fullmatch(re.sub(" +", " ", without_marks(text)))
    if clock is not None:
        return _time(clock)
    if _RATIO.fullmatch(text) and "\\" not in text.replace("\\frac", "").replace("\\sqrt", ""):
        return Group("ratio", tuple(_shape(part.strip(), depth + 1) for part in text.split(":")))
    return _value(text)


def _time(clock: re.Match[str]) -> Words:
    """A time of day on 24 hours, or as written when it does not say which half of the day."""
    hour, half = int(clock[1]), (clock[4] or "").casefold()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return Words(f"{hour}:{clock[2]}:{clock[3] or '00'}")


def _bracketed(text: str, depth: int) -> Shape | None:
    """A tuple, interval or set whose brackets span the whole text; None when they do not, or hold one value only."""
    french = _FRENCH.fullmatch(text)
    if french is not None and (french[1] == "]" or french[3] == "["):
        text = ("(" if french[1] == "]" else "[") + french[2] + (")" if french[3] == "[" else "]")
    if text[0] not in _OPENING or text[-1] not in _CLOSING or _closes_early(text):
        return None
    inside = text[1:-1].strip()
    commas = list(_at_top(inside, re.compile("[,;]")))
    if text[0] == SET_OPEN or (text[0] == "{" and commas):
        inner = _shape(inside, depth + 1) if inside else Group("list", ())
        return Group("set", inner.items if isinstance(inner, Group) and inner.kind == "list" else (inner,))
    if not commas:
        return _shape(inside, depth + 1) if text[0] + text[-1] in ("()", "{}") else None
    bounds = [0, *(comma.end() for comma in commas)], [*(comma.start() for comma in commas), len(inside)]
    parts = [inside[start:end].strip() for start, end in zip(*bounds, strict=True)]
    if len(parts) > MAX_ITEMS:
        raise ReadError(f"more than {MAX_ITEMS} items")
    return Group(text[0] + text[-1], _flat(tuple(_shape(part, depth + 1) for part in parts)))


def _closes_early(text: str) -> bool:
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0 and at < len(text) - 1:
            return True
    return depth != 0


def _value(text: str) -> Value:
    based = split_base(text)
    if based is not None:
        try:
            return Value(expression=number(int(*based)), text=text, base=based[1])
        except ValueError as error:
            raise ReadError(f"not a number in base {based[1]}") from error
    rest, is_percent = split_percent(text)
    rest, unit = split_unit(rest)
    literal = read_literal(rest)
    expression = literal if literal is not None else read_expression(without_marks(rest))
    return Value(expression=expression, text=rest, unit=unit, is_percent=is_percent)
