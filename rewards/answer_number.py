r"""Literals: `1,300`, `1 300.5`, `1.234,56`, `1.5e3`, `1\frac{4}{5}`, `0.1\overline{6}` and the like, as exact numbers.

A comma that groups three digits as English does is a thousands separator. A point is always a decimal point, unless
there are several (`1.234.567`) or a comma stands behind it (`1.234,56`).
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from rewards.expression import Number

MAX_DIGITS: Final = 400
_MAX_SHIFT: Final = 400  # powers of ten of scientific notation

_PLAIN = re.compile(r"[+-]? ?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_GROUPED = re.compile(r"[+-]? ?[0-9]{1,3}(?:(?:,[0-9]{3})+|(?:[ '][0-9]{3})+)(?:\.[0-9]+)?")
_CONTINENTAL = re.compile(
    r"[+-]? ?(?:[0-9]{1,3}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?"
    r"|[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|[0-9]{1,3}(?:[ '][0-9]{3})+,[0-9]+)"
)
_INDIAN = re.compile(r"[+-]?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_SCIENTIFIC = re.compile(r"(?P<mantissa>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))[eE](?P<shift>[+-]?[0-9]{1,4})")
_MIXED = re.compile(
    r"(?P<sign>[+-]?) ?(?P<whole>[0-9]+)(?: ?(?:\\[dtc]?frac ?(?:\{ ?(?P<a>[0-9]+) ?\}|(?P<b>[0-9])) ?"
    r"(?:\{ ?(?P<c>[0-9]+) ?\}|(?P<d>[0-9])))|(?: | ?\+ ?| and )(?P<e>[0-9]+)/(?P<f>[0-9]+))"
)
_REPEATING = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)"
    r"(?:\\(?:overline|bar|dot|overset\{\\frown\}) ?\{? ?(?P<a>[0-9]+) ?\}?|\((?P<b>[0-9]+)\))"
)
_TRAILING_RUN = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*?)(?P<a>[0-9])(?P=a){2,}(?:\.\.\.|\\[lcd]?dots)"
)


def read_literal(text: str) -> Number | None:
    """The number that the whole tidy text is, None when it is something else."""
    if len(text) > MAX_DIGITS or not any(char.isdigit() for char in text):
        return None
    if _PLAIN.fullmatch(text):
        return _decimal(text)
    if _GROUPED.fullmatch(text):
        return _decimal(re.sub("[ ,']", "", text))
    if _CONTINENTAL.fullmatch(text):
        return _decimal(re.sub("[ .']", "", text).replace(",", "."))
    return _scientific(text) or _mixed(text) or _repeating(text)


def read_local_literal(text: str) -> Number | None:
    """A reading that is only right where a single number is wanted: `1,5` for 1.5, Indian grouping `12,34,567`."""
    if len(text) > MAX_DIGITS or _GROUPED.fullmatch(text):
        return None
    if _DECIMAL_COMMA.fullmatch(text):
        return _decimal(text.replace(",", "."))
    return _decimal(text.replace(",", "")) if _INDIAN.fullmatch(text) else None


def _decimal(text: str) -> Number:
    text = text.replace(" ", "")
    return Number(Fraction(text.rstrip(".")), len(text.partition(".")[2]))


def _scientific(text: str) -> Number | None:
    match = _SCIENTIFIC.fullmatch(text)
    if match is None or abs(int(match["shift"])) > _MAX_SHIFT:
        return None
    mantissa, shift = _decimal(match["mantissa"]), int(match["shift"])
    return Number(mantissa.value * Fraction(10) ** shift, max(0, mantissa.decimals - shift))


def _mixed(text: str) -> Number | None:
    """A whole number and a proper fraction."""
    match = _MIXED.fullmatch(text)
    if match is None:
        return None
    above = int(match["a"] or match["b"] or match["e"])
    below = int(match["c"] or match["d"] or match["f"])
    if above >= below:
        return None
    value = int(match["whole"]) + Fraction(above, below)
    return Number(-value if match["sign"] == "-" else value)


def _repeating(text: str) -> Number | None:
    match = _REPEATING.fullmatch(text) or _TRAILING_RUN.fullmatch(text)
    if match is None:
        return None
    parts = match.groupdict()
    period = parts["a"] or parts["b"]
    fixed = parts["fixed"]
    value = Fraction(int(f"{parts['whole']}{fixed}" or 0), 10 ** len(fixed))
    value += Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(fixed))
    return Number(-value if parts["sign"] == "-" else value)
