r"""One spelling for the many ways of writing the same characters: Unicode, spacing commands, text commands.

`tidy` keeps what carries meaning and marks it with private characters, so that later stages split at the right places:
MARK_OPEN .. MARK_CLOSE around what stood in `\text{}`, SET_OPEN and SET_CLOSE for `\{` and `\}`, NEW_ROW for `\\`.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

MARK_OPEN, MARK_CLOSE = "\x01", "\x02"
SET_OPEN, SET_CLOSE = "\x03", "\x04"
NEW_ROW = "\x05"
_PRIVATE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")

_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SUBSCRIPTS: Final = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUBSCRIPT_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_CHARACTERS: Final = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-",
        "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": "*", "⁄": "/", "∕": "/",
        "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ",
        "μ": r"\mu ", "φ": r"\phi ", "ω": r"\omega ", "∞": r"\infty ", "√": r"\sqrt ", "°": r"^\circ ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∓": r"\mp ", "≈": r"\approx ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "∀": r"\forall ", "∃": r"\exists ",
        "ℝ": r"\mathbb{R}", "…": r"\ldots ", "’": "'", "′": "'", "“": '"', "”": '"', "％": "%",
        "½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}",
        "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}", "⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}",
        # Invisible characters, which would make two answers look alike and differ.
        "\u200b": None, "\u200c": None, "\u200d": None, "\u2060": None, "\ufeff": None, "\u00ad": None,
    }
)  # fmt: skip

_SIZES = re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])")
_STYLES = re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])")
_GROUPING = re.compile(r"(?<=[0-9])(?:,\\!|\\!,\\!|\{,\}|\\[,;: ]|~)(?=[0-9]{3}(?![0-9]))")
_DECIMAL_COMMA = re.compile(r"(?<=[0-9])\{,\}(?=[0-9])")
_SPACES = re.compile(r"\\[,;:!> ]|\\q?quad(?![A-Za-z])|\\(?:h|v)space\*?\{[^{}]*\}|~|\s+")
_ROMAN_CONSTANT = re.compile(r"\\(?:mathrm|text|operatorname)\s*(?:\{\s*([ei])\s*\}|\s([ei])(?![A-Za-z]))")
_OPERATOR_NAME = re.compile(r"\\(?:operatorname\*?|mathrm)\s*\{\s*([a-z]{2,6})\s*\}(?=\s*[({\\A-Za-z0-9])")
_TEXT = re.compile(r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mathrm|mathsf|mathit|operatorname|mbox|hbox)\s*\{([^{}]*)\}")
_BARE_ROMAN = re.compile(r"\\mathrm\s*([A-Za-z0-9])")
_DOLLARS = re.compile(r"\\?\$")
_LATEX_QUOTES = re.compile(r"``|''")
_FUNCTION_NAMES = frozenset({"sin", "cos", "tan", "cot", "sec", "csc", "ln", "log", "exp", "gcd", "lcm", "min", "max"})


def tidy(text: str) -> str:
    """The text in one spelling; linear in its length."""
    text = _PRIVATE.sub("", text.strip())
    text = _SUPERSCRIPT_RUN.sub(lambda run: "^{" + run[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _SUBSCRIPT_RUN.sub(lambda run: "_{" + run[0].translate(_SUBSCRIPTS) + "}", text)
    text = text.translate(_CHARACTERS)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.replace("\\\\", NEW_ROW).replace("\\{", SET_OPEN).replace("\\}", SET_CLOSE)
    text = text.replace("\\lbrace", SET_OPEN).replace("\\rbrace", SET_CLOSE)
    text = text.replace("\\langle", "(").replace("\\rangle", ")")
    text = _STYLES.sub("", _SIZES.sub("", text))
    text = _ROMAN_CONSTANT.sub(lambda match: match[1] or match[2], text)
    text = _OPERATOR_NAME.sub(lambda match: "\\" + match[1] if match[1] in _FUNCTION_NAMES else match[0], text)
    text = _TEXT.sub(rf"{MARK_OPEN}\1{MARK_CLOSE}", _BARE_ROMAN.sub(r"\1", text))
    text = _DECIMAL_COMMA.sub(".", _GROUPING.sub("", text))
    text = _DOLLARS.sub("", text)
    text = _SPACES.sub(" ", text)
    text = text.strip()
    return text if text.endswith("...") else text.rstrip(".,; ")


def without_marks(text: str) -> str:
    """The text with what stood in text commands as ordinary text."""
    return text.replace(MARK_OPEN, " ").replace(MARK_CLOSE, " ").strip()


def letters_only(text: str) -> str:
    """Lower case, without spacing, brackets around it and punctuation: how words are compared."""
    kept = _LATEX_QUOTES.sub("", without_marks(text)).casefold()
    return "".join(char for char in kept if char.isalnum() or char in "+-/:%.<>=").strip(".:")


def compact(text: str) -> str:
    """Tidy text without any spacing, for comparing spellings."""
    return without_marks(text).replace(" ", "")
