"""When what a program gave equals what a test wants. Runs outside the jail, on plain data only."""

from __future__ import annotations

import math
import re
from typing import Any

TOLERANCE = 1e-6
_FLOAT = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d{1,3})?")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
_MAX_NUMBER_CHARS = 64


def is_same_output(got: str, expected: str) -> bool:
    """Equal word by word, white space being of no account. A word that the test writes with a decimal point or an
    exponent may differ by 1e-6, absolute or relative; whole numbers and all other words must be spelled the same."""
    words, wanted = got.split(), expected.split()
    return len(words) == len(wanted) and all(map(_is_same_word, words, wanted))


def _is_same_word(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    if max(len(word), len(wanted)) > _MAX_NUMBER_CHARS or not _FLOAT.fullmatch(wanted) or not _NUMBER.fullmatch(word):
        return False
    return _is_close(float(word), float(wanted))


def is_same_value(got: Any, expected: Any, *, may_be_wrapped: bool = False) -> bool:
    """Equal JSON values. A float is wanted within 1e-6, absolute or relative; a tuple came as a list; True is 1."""
    if may_be_wrapped and is_same_value(got, expected[0]):
        return True
    if isinstance(expected, list):
        return isinstance(got, list) and len(got) == len(expected) and all(map(is_same_value, got, expected))
    if isinstance(expected, dict):
        if not isinstance(got, dict) or got.keys() != expected.keys():
            return False
        return all(is_same_value(got[key], expected[key]) for key in expected)
    if isinstance(expected, float) and isinstance(got, int | float):
        return _is_close(got, expected)
    if isinstance(expected, int) and isinstance(got, float):
        return got == expected
    return bool(got == expected) and isinstance(got, str) == isinstance(expected, str)


def _is_close(got: float, expected: float) -> bool:
    if math.isnan(expected):
        return isinstance(got, float) and math.isnan(got)
    try:
        return math.isclose(got, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except OverflowError:  # a whole number that no float holds
        return False
