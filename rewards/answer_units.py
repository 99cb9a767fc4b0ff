"""Units of measure, percent signs and number bases at the end of an answer."""

from __future__ import annotations

import re
from typing import Final

from rewards.answer_spelling import MARK_CLOSE, MARK_OPEN

_POWER = r"(?:\^\{?\s*-?[0-9]\s*\}?)?"
_MARK = re.compile(rf"{MARK_OPEN}[^{MARK_CLOSE}]*{MARK_CLOSE} ?{_POWER} ?")
_PLAIN = re.compile(rf"^(?P<rest>.*[0-9)}}!])\s*(?P<unit>[A-Za-z][A-Za-z. ]*{_POWER}(?:\s?/\s?[A-Za-z. ]+{_POWER})?)$")
_DEGREE = re.compile(r"^(?P<rest>.*?)\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|\\deg)\s*(?P<scale>[CFK]?)$")
_TRIGONOMETRY = re.compile(r"sin|cos|tan|cot|sec|csc")  # there a degree sign is part of the value
_CURRENCY = re.compile(r"^(?P<sign>-?)\s*(?P<unit>[€£¥])\s*(?P<rest>[0-9].*)$")
_PERCENT = re.compile(r"^(?P<rest>.*?)\s*(?:\\?%|\bper ?cent)$")

_BASE_DIGITS = re.compile(
    r"^(?P<digits>[0-9][0-9A-Fa-f]*|[A-F]+[0-9][0-9A-F]*)_\s*\{?\s*(?P<base>[0-9]{1,2}|[a-z]+)\s*\}?$"
)
_BASE_WORDS = re.compile(r"^(?P<digits>[0-9][0-9A-F]*)\s*(?:in )?base[- ]*(?P<base>[0-9]{1,2}|[a-z]+)$")
_NUMBER_WORDS: Final = {
    "two": 2, "binary": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "sixteen": 16,
}  # fmt: skip

_ALIASES: Final = {
    alias: unit
    for unit, aliases in {
        "mm": "mm millimeter millimetre", "cm": "cm centimeter centimetre", "dm": "dm decimeter decimetre",
        "m": "m meter metre", "km": "km kilometer kilometre", "in": "in inch inche", "ft": "ft foot feet",
        "yd": "yd yard", "mi": "mi mile", "mg": "mg milligram", "g": "g gram gramme", "kg": "kg kilogram kilo",
        "t": "t ton tonne", "lb": "lb pound", "oz": "oz ounce", "ml": "ml milliliter millilitre",
        "l": "l liter litre", "s": "s sec second", "min": "min minute", "h": "h hr hour", "day": "day d",
        "week": "week wk", "month": "month mo", "year": "year yr", "ms": "ms millisecond", "degree": "degree deg",
        "rad": "rad radian", "dollar": "dollar usd buck", "cent": "cent ¢", "euro": "euro eur €",
        "pound sterling": "gbp £", "yen": "yen ¥", "n": "n newton", "j": "j joule", "w": "w watt", "v": "v volt",
        "a": "a amp ampere", "hz": "hz hertz", "pa": "pa pascal", "k": "k kelvin", "mol": "mol mole",
        "mi/h": "mph", "km/h": "kph kmh", "unit": "unit", "gal": "gal gallon", "qt": "qt quart", "pt": "pt pint",
    }.items()
    for alias in aliases.split()
}  # fmt: skip
_PLAIN_SYMBOLS: Final = frozenset(alias for alias in _ALIASES if len(alias) >= 2)
_POWER_WORDS: Final = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}
_WORD = re.compile(r"[A-Za-z€£¥¢]+")
_PIECE = re.compile(r"([A-Za-z€£¥¢. ]+)(?:\^\{?\s*(-?[0-9])\s*\}?)?")


def split_percent(text: str) -> tuple[str, bool]:
    """The text without a percent sign at its end, and whether there was one."""
    match = _PERCENT.match(text.replace(f"{MARK_OPEN}percent{MARK_CLOSE}", "%"))
    return (match["rest"].strip(), True) if match else (text, False)


def split_unit(text: str) -> tuple[str, str | None]:
    """The text without its unit, and the unit in one spelling such as 'cm^2' or 'mi/h'; None without one."""
    degree = _DEGREE.match(text)
    if degree is not None and degree["rest"] and not _TRIGONOMETRY.search(degree["rest"]):
        scale = degree["scale"]
        return degree["rest"].strip(), f"degree {scale}" if scale else "degree"
    money = _CURRENCY.match(text)
    if money is not None:
        return money["sign"] + money["rest"], canonical_unit(money["unit"])
    end = _start_of_marks(text)
    if end < len(text) and text[:end].strip():
        return text[:end].strip(), canonical_unit(text[end:].replace(MARK_OPEN, " ").replace(MARK_CLOSE, " "))
    plain = _PLAIN.match(text)
    if plain is not None and _is_plain_unit(plain["unit"]):
        return plain["rest"].strip(), canonical_unit(plain["unit"])
    return text, None


def _start_of_marks(text: str) -> int:
    """Where the run of marked texts at the end begins, such as that of `m` `/` `s`; the length when there is none."""
    end = start = len(text)
    while (at := text.rfind(MARK_OPEN, 0, end)) >= 0 and _MARK.fullmatch(text, at, end):
        start = at
        end = len(text[:at].rstrip(" /*"))
    return start


def split_base(text: str) -> tuple[str, int] | None:
    """The digits and the base of a number such as 1011_2, None for anything else."""
    plain = text.replace(MARK_OPEN, "").replace(MARK_CLOSE, "").strip()
    match = _BASE_DIGITS.match(plain) or _BASE_WORDS.match(plain)
    if match is None:
        return None
    word = match["base"]
    base = int(word) if word.isdigit() else _NUMBER_WORDS.get(word, 0)
    return (match["digits"], base) if 2 <= base <= 36 else None


def canonical_unit(text: str) -> str:
    """Singular, abbreviated, powers as ^n, 'per' as '/'."""
    pieces = []
    for side in re.split(r"/|\bper\b", text.replace("*", " ")):
        found = [_canonical_piece(words, power) for words, power in _PIECE.findall(side) if words.strip(" .")]
        pieces.append(" ".join(found))
    return "/".join(pieces)


def _canonical_piece(words: str, power: str) -> str:
    names = []
    for word in _WORD.findall(words):
        lowered = word.casefold()
        if lowered in _POWER_WORDS:
            power = power or _POWER_WORDS[lowered]
        elif lowered != "of":
            names.append(_canonical_word(lowered))
    return " ".join(names) + (f"^{power}" if power and power != "1" else "")


def _canonical_word(word: str) -> str:
    for ending in ("", "s", "es"):
        if word.endswith(ending) and word[: len(word) - len(ending)] in _ALIASES:
            return _ALIASES[word[: len(word) - len(ending)]]
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def _is_plain_unit(unit: str) -> bool:
    """A word outside of text commands is a unit when it is a known one, or too long to be a product of variables."""
    words = _WORD.findall(unit)
    return all(
        word.casefold() in _PLAIN_SYMBOLS or len(word) >= 4 or word in ("of", "per", "sq", "cu") for word in words
    ) and any(len(word) >= 2 for word in words)
