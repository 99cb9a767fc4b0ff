"""Finding arithmetic claims in prose: every `a = b` of a step whose two sides can be read.

A step is cut into runs of mathematical tokens; words, punctuation and unknown signs end a run. A run with relation
signs gives one claim for each pair of neighbors in its chain, so `a = b = c` gives two. The rule in all doubtful
cases: rather no claim than a wrong one, because a false alarm punishes good reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from prm.arithmetic import MAX_TOKENS, Node, NotArithmeticError, Number, Symbol, Token, parse, tokenize

# "<<3*4=12>>": calculator notes. Their inside is a claim of its own, and the text around them reads on without them.
_CALCULATOR_NOTE = re.compile(r"<<([^<>\n]{1,200})>>")
_LIST_MARKER = re.compile(
    r"^[ \t]*(?:(?:[-*\u2022]|\(?\d{1,2}[.)])[ \t]+|[Ss]tep[ \t]*\d+[ \t]*[:.)]?[ \t]*)", re.MULTILINE
)
# Two stars that stand between two operands are a power, any others mark bold text.
_BOLD = re.compile(r"(?<![\w)\]}])(?<![\w)\]}]\s)\*\*|\*\*(?!\s?[\w(\[{+\\-])")
_HAS_RELATION = re.compile(r"=|\u2248|\\approx|\bequals?\b")

_WORD_OPERATORS = {"plus": "+", "minus": "-", "times": "*", "percent": "%"}
_DIVISION_WORDS = frozenset({"divided", "multiplied"})
_RELATION_WORDS = frozenset({"equals", "equal"})
# Beside a run, these words and signs change what its outermost side means.
_BINDING_WORDS = frozenset(
    [
        "by",
        "of",
        "than",
        "per",
        "over",
        "half",
        "third",
        "quarter",
        "double",
        "twice",
        "triple",
        "square",
        "root",
        "cube",
        "mod",
        "modulo",
        "and-a",
        "hundred",
        "thousand",
        "million",
        "billion",
        "trillion",
        "dozen",
        "dozens",
        "k",
        "m",
        "bn",
        "mod",
        "log",
        "ln",
        "sin",
        "cos",
        "tan",
        "exp",
        "max",
        "min",
        "gcd",
        "lcm",
    ]
)
_MAX_UNIT_WORDS = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """`left relation right`, where relation is '=' or the sign for approximate equality. `units` are the words that stood behind the numbers."""

    left: Node
    right: Node
    relation: str
    text: str
    units: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a chain. `node` is None when it cannot be read."""

    node: Node | None
    text: str
    units: frozenset[str]
    num_tokens: int


def find_claims(step: str) -> list[Claim]:
    """All claims of a step's text, in order. Linear in its length."""
    if not _HAS_RELATION.search(step):
        return []
    notes = _CALCULATOR_NOTE.findall(step)
    prose = _CALCULATOR_NOTE.sub("", step) if notes else step
    claims: list[Claim] = []
    for text in (*notes, prose):
        for line in _prepared(text).splitlines():
            for run in _runs(line):
                claims += _claims_of(run)
    return claims


def longest_expression(text: str) -> Node | None:
    """The computation with the most tokens anywhere in a text, such as the expression a prompt asks about."""
    best: _Side | None = None
    for line in _prepared(text).splitlines():
        for run in _runs(line):
            for side in run[0]:
                computes = side.node is not None and not isinstance(side.node, Number | Symbol)
                if computes and (best is None or side.num_tokens > best.num_tokens):
                    best = side
    return best.node if best is not None else None


def _prepared(text: str) -> str:
    return _BOLD.sub(" ", _LIST_MARKER.sub("", text))


_Chain = tuple[list[_Side], list[str]]  # sides, and the relations between them


def _claims_of(chain: _Chain) -> list[Claim]:
    sides, relations = chain
    claims = []
    for left, right, relation in zip(sides, sides[1:], relations, strict=False):
        if left.node is None or right.node is None:
            continue
        if isinstance(left.node, Number | Symbol) and isinstance(right.node, Number | Symbol):
            continue  # "x = 5" names a value; nothing is computed
        text = f"{left.text} {relation} {right.text}"
        claims.append(Claim(left.node, right.node, relation, text, left.units | right.units))
    return claims


def _runs(line: str) -> list[_Chain]:
    """Chains of the mathematical runs of one line."""
    tokens = _without_units(_with_word_operators(tokenize(line)))
    chains: list[_Chain] = []
    start = 0
    for at in range(len(tokens) + 1):
        if at < len(tokens) and _is_mathematical(tokens, at):
            continue
        if at > start:
            before = tokens[start - 1][0] if start else None
            after = tokens[at][0] if at < len(tokens) else None
            chains.append(_chain(line, tokens[start:at], _binds(before), _binds(after)))
        start = at + 1
    return chains


_Piece = tuple[Token, str | None]  # a token, and the unit word that followed it


def _chain(line: str, pieces: Sequence[_Piece], bound_left: bool, bound_right: bool) -> _Chain:
    sides: list[list[_Piece]] = [[]]
    relations: list[str] = []
    for piece in pieces:
        if piece[0].kind == "relation":
            relations.append(piece[0].text)
            sides.append([])
        else:
            sides[-1].append(piece)
    read = [_read(line, side) for side in sides]
    unread = _Side(None, "", frozenset(), 0)
    if bound_left:
        read[0] = unread
    if bound_right:
        read[-1] = unread
    return read, relations


def _read(line: str, pieces: Sequence[_Piece]) -> _Side:
    units = frozenset(unit.lower().removesuffix("s") for _, unit in pieces if unit is not None)
    if not pieces or len(pieces) > MAX_TOKENS:
        return _Side(None, "", units, len(pieces))
    tokens = [token for token, _ in pieces]
    try:
        node = parse(tokens)
    except NotArithmeticError:
        return _Side(None, "", units, len(pieces))
    return _Side(node, line[tokens[0].start : tokens[-1].end], units, len(pieces))


def _binds(token: Token | None) -> bool:
    """True when this neighbor belongs to the run's outermost side, so that the side alone says something else."""
    if token is None or token.kind == "letter":
        return False
    if token.kind == "word":
        return token.text.lower() in _BINDING_WORDS
    return token.kind == "other"


def _is_mathematical(tokens: Sequence[_Piece], at: int) -> bool:
    token = tokens[at][0]
    if token.kind == "letter":
        return _is_symbol(tokens, at)
    return token.kind in ("number", "function", "operator", "relation")


def _is_symbol(tokens: Sequence[_Piece], at: int) -> bool:
    """A lone letter is an unknown where it touches mathematics ("a + 2", "2x"), else a word ("a", "I")."""
    token = tokens[at][0]
    if token.text == "pi":
        return True
    before = tokens[at - 1][0] if at else None
    after = tokens[at + 1][0] if at + 1 < len(tokens) else None
    touches_before = before is not None and (
        before.kind in ("operator", "relation") or (before.kind in ("number", "letter") and before.end == token.start)
    )
    return touches_before or (after is not None and after.kind in ("operator", "relation"))


def _with_word_operators(tokens: list[Token]) -> list[Token]:
    """Spelled-out operators as operators: "4 divided by 2", "20% of 50", "3 x 4"; an exclamation mark as a stop."""
    result: list[Token] = []
    at = 0
    while at < len(tokens):
        token = tokens[at]
        lower = token.text.lower() if token.kind in ("word", "letter") else ""
        after = tokens[at + 1] if at + 1 < len(tokens) else None
        kind, text = token.kind, token.text
        if lower in _WORD_OPERATORS:
            kind, text = "operator", _WORD_OPERATORS[lower]
        elif lower in _RELATION_WORDS:
            at += after is not None and after.text.lower() == "to"
            if result and result[-1].text.lower() == "is":
                result.pop()
            kind, text = "relation", "="
        elif lower in _DIVISION_WORDS and after is not None and after.text.lower() == "by":
            kind, text = "operator", "/" if lower == "divided" else "*"
            at += 1
        elif (lower == "of" and result and _is_share(result)) or (
            lower == "x" and result and result[-1].kind == "number" and after is not None and after.kind == "number"
        ):
            kind, text = "operator", "*"
        elif text == "!" and not (after is not None and after.kind in ("operator", "relation")):
            kind, text = "punctuation", "."
        elif (
            text == ":" and result and after is not None and result[-1].end == token.start and after.start == token.end
        ):
            kind = "other"  # 3:45 is a time or a ratio
        result.append(Token(kind, text, token.start, token.end))
        at += 1
    return result


def _is_times(before: Token, cross: Token, after: Token | None) -> bool:
    """True for the letter in "3 x 4", "3x4" and "3 x (2 + 2)", where it multiplies."""
    if after is None or not (before.kind == "number" or before.text == ")"):
        return False
    return after.kind == "number" or (after.text == "(" and before.end < cross.start)


def _is_share(tokens: Sequence[Token]) -> bool:
    """True after "20%" or "3/4", where "of" multiplies."""
    return tokens[-1].text == "%" or (len(tokens) >= 3 and tokens[-2].text == "/" and tokens[-1].kind == "number")


def _without_units(tokens: Sequence[Token]) -> list[_Piece]:
    """Drop up to three words between a number and a sign: "5 red apples + 3 apples = 8 apples" is 5 + 3 = 8."""
    result: list[_Piece] = []
    at = 0
    while at < len(tokens):
        words = at
        if result and (result[-1][0].kind == "number" or result[-1][0].text == ")"):
            while words < len(tokens) and words - at <= _MAX_UNIT_WORDS and _is_unit_word(tokens[words]):
                words += 1
        follows = tokens[words] if words < len(tokens) else None
        ends_well = follows is None or follows.kind in ("operator", "relation", "punctuation")
        if 0 < words - at <= _MAX_UNIT_WORDS and ends_well and (follows is None or follows.text not in "(^%!"):
            unit = " ".join(token.text for token in tokens[at:words])
            result[-1] = (result[-1][0], unit)
            at = words
        else:
            result.append((tokens[at], None))
            at += 1
    return result


def _is_unit_word(token: Token) -> bool:
    return token.kind == "word" and token.text.lower() not in _BINDING_WORDS
