"""Finding arithmetic claims in prose: every `a = b` of a step whose two sides can be read.

A step is cut into runs of mathematical tokens; words, punctuation and unknown signs end a run. A run with relation
signs gives one claim for each pair of neighbors in its chain, so `a = b = c` gives two. The rule in all doubtful
cases: rather no claim than a wrong one, because a false alarm punishes good reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prm.arithmetic import MAX_TOKENS, Node, NotArithmeticError, Token, is_bare, parse, tokenize

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
# Beside a run, these words change what its outermost side means.
_BINDING_WORDS = re.compile(
    r"by|of|than|per|over|half|third|quarter|double|twice|triple|square|root|cube|hundred|thousand|million|billion|trillion"
    r"|dozens?|mod|modulo|log|ln|exp|sin|cos|tan|max|min|gcd|lcm",
    re.IGNORECASE,
)
_MAX_UNIT_WORDS = 3
# Words that are never units: what follows them is a new statement.
_CONJUNCTIONS = re.compile(
    r"and|or|but|so|then|because|since|as|if|when|while|which|that|who|is|are|was|were|be|has|have|had|we|he|she|it|they"
    r"|gives?|gets?|makes?|means?|to|from|in|on|at|for|with|the",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Claim:
    """`left relation right`. The relation is '=' or U+2248; `units` are the words that stood behind the numbers.

    `is_naming`: the left side is a number alone at the start of a chain. In "12 quarters = 12 / 4" or "week 2 = 35 +
    35" it is not stated to be equal, so the claim can be right but not wrong.
    """

    left: Node
    right: Node
    relation: str
    text: str
    units: frozenset[str]
    is_naming: bool = False


class _Side(NamedTuple):
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
            for run in _runs(line) if _HAS_RELATION.search(line) else ():
                claims += _claims_of(run)
    return claims


def longest_expression(text: str) -> Node | None:
    """The computation with the most tokens anywhere in a text, such as the expression a prompt asks about."""
    best: _Side | None = None
    for line in _prepared(text).splitlines():
        for run in _runs(line):
            for side in run[0]:
                if side.node is None or is_bare(side.node):
                    continue
                if best is None or side.num_tokens > best.num_tokens:
                    best = side
    return best.node if best is not None else None


def _prepared(text: str) -> str:
    """Without list markers, bold text marks and LaTeX's negative spaces."""
    return _BOLD.sub(" ", _LIST_MARKER.sub("", text.replace("\\!", "")))


_Chain = tuple[list[_Side], list[str]]  # sides, and the relations between them


def _claims_of(chain: _Chain) -> list[Claim]:
    sides, relations = chain
    claims = []
    for at, (left, right, relation) in enumerate(zip(sides, sides[1:], relations, strict=False)):
        if left.node is None or right.node is None or (is_bare(left.node) and is_bare(right.node)):
            continue
        text = f"{left.text} {relation} {right.text}"
        is_naming = at == 0 and is_bare(left.node)
        claims.append(Claim(left.node, right.node, relation, text, left.units | right.units, is_naming))
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
            bound_left = _binds(before) or _continues(before, tokens[start][0], line)
            chains.append(_chain(line, tokens[start:at], bound_left, _binds(after)))
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
        return _BINDING_WORDS.fullmatch(token.text) is not None
    return token.kind in ("other", "broken")


def _continues(before: Token | None, first: Token, line: str) -> bool:
    """True when a run that starts with a sign goes on with something unread: the "+ 30" of "60 seconds/minute + 30"."""
    if before is None or before.kind == "punctuation" or first.kind != "operator" or first.text == "(":
        return False
    return first.text != "-" or line[first.end : first.end + 1].isspace()


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
    if token.kind != "word":
        return False
    return not (_BINDING_WORDS.fullmatch(token.text) or _CONJUNCTIONS.fullmatch(token.text))
