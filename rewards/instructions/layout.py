"""Instructions about the form of a text. Pure functions `(text, **arguments) -> bool`."""

from __future__ import annotations

import json
import re

from rewards.fenced import last_block
from rewards.language import is_known, share_in

_PLACEHOLDER = re.compile(r"\[[^\[\]\n]+\]")
_BULLET = re.compile(r"^\s*(?:[*+-])\s+\S", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*|(?<!\*)\*(?=[^\s*])([^*\n]*?[^\s*]|[^\s*])\*(?!\*)")
_TITLE = re.compile(r"<<[^<>\n]*[^<>\s][^<>\n]*>>")
_RULE = re.compile(r"^\s*\*{6}\s*$", re.MULTILINE)
_CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_MIN_LANGUAGE_LETTERS = 1


def placeholders(text: str, *, num_placeholders: int) -> bool:
    """At least so many placeholders in square brackets, such as [address]."""
    return len(_PLACEHOLDER.findall(text)) >= num_placeholders


def postscript(text: str, *, postscript_marker: str) -> bool:
    """A line starts with the mark (P.S. or P.P.S), whatever its case and the spaces in it, and says something."""
    mark = r"\s*".join(re.escape(char) for char in postscript_marker if not char.isspace())
    if not mark:
        raise ValueError("`postscript_marker` must not be empty")
    return re.search(rf"^\s*{mark}.*\w", text, re.IGNORECASE | re.MULTILINE) is not None


def bullet_lists(text: str, *, num_bullets: int) -> bool:
    """Exactly so many bullet points (*, - or + before the text)."""
    return len(_BULLET.findall(text)) == num_bullets


def constrained_response(text: str) -> bool:
    """One of the three fixed answers (yes, no, maybe) is in the text."""
    return any(answer in text for answer in _CONSTRAINED)


def highlighted_sections(text: str, *, num_highlights: int) -> bool:
    """At least so many stretches between *asterisks* or **pairs of them**."""
    return len(_HIGHLIGHT.findall(text)) >= num_highlights


def multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    """At least so many sections that a line such as "Section 2" starts. The misspelling is the public data sets'."""
    if not section_spliter.strip():
        raise ValueError("`section_spliter` must not be empty")
    mark = rf"^\W*{re.escape(section_spliter.strip())}\s+\d+"
    return len(re.findall(mark, text, re.MULTILINE | re.IGNORECASE)) >= num_sections


def json_format(text: str) -> bool:
    """The whole text is JSON, be it inside one fenced block."""
    block = last_block(text.strip())
    is_fenced = block is not None and text.strip().startswith(("```", "~~~"))
    try:
        json.loads(block.content if block is not None and is_fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def title(text: str) -> bool:
    """A title in double angular brackets, such as <<poem of joy>>, that is not empty."""
    return _TITLE.search(text) is not None


def two_responses(text: str) -> bool:
    """Exactly two different texts, separated by a line of six asterisks."""
    parts = [part.strip() for part in _RULE.split(text.strip())]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


def repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    """The text starts with the prompt, word for word, and then goes on."""
    if not prompt_to_repeat.strip():
        raise ValueError("`prompt_to_repeat` must not be empty")
    wanted, got = " ".join(prompt_to_repeat.split()).casefold(), " ".join(text.split()).casefold()
    return got.startswith(wanted) and len(got) > len(wanted)


def end_checker(text: str, *, end_phrase: str) -> bool:
    """The text ends with the phrase, whatever its case; a closing quotation mark may follow."""
    if not end_phrase.strip():
        raise ValueError("`end_phrase` must not be empty")
    return text.strip().rstrip("\"'\u201d").rstrip().casefold().endswith(end_phrase.strip().casefold())


def quotation(text: str) -> bool:
    """The whole text stands in double quotation marks."""
    stripped = text.strip()
    return len(stripped) > 2 and stripped[0] in '"\u201c' and stripped[-1] in '"\u201d'


def response_language(text: str, *, language: str) -> bool:
    """Most of the text is in the language (ISO 639 code)."""
    if not is_known(language):
        raise ValueError(f"not the ISO 639 code of a language that can be recognized: {language!r}")
    share = share_in(language, text, _MIN_LANGUAGE_LETTERS)
    return share is not None and share > 0.5
