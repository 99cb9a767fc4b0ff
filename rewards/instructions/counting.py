"""Instructions about words, letters and their numbers. Pure functions `(text, **arguments) -> bool`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence

_RELATIONS: dict[str, Callable[[int, int], bool]] = {
    "at least": operator.ge,
    "less than": operator.lt,
    "at most": operator.le,
    "more than": operator.gt,
    "exactly": operator.eq,
}
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f\u2026]+[\"'\u201d\u2019)\]]*(?=\s|$)|\n+")
# A full stop after these ends no sentence.
_ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|etc|e\.g|i\.e|Inc|Ltd|Co|No|Fig|[A-Z])\.(?=\s)")
_PARAGRAPH_RULE = re.compile(r"^\s*\*\s?\*\s?\*\s*$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n\s*\n")


def holds(count: int, relation: str, number: int) -> bool:
    """Raises ValueError for a relation that is not known."""
    if relation not in _RELATIONS:
        raise ValueError(f"a relation is one of {', '.join(_RELATIONS)}, got {relation!r}")
    return _RELATIONS[relation](count, number)


def words_of(text: str) -> list[str]:
    """Words in order; "don't" and "well-known" are one each, punctuation is none."""
    return _WORD.findall(text)


def count_sentences(text: str) -> int:
    """Stretches of text with a word in them, between full stops, question and exclamation marks or line ends."""
    marked = _ABBREVIATION.sub(lambda match: match[0][:-1], text)
    return sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(marked))


def _num_occurrences(text: str, keyword: str) -> int:
    """Occurrences of a whole word or phrase, whatever its case."""
    if not keyword.strip():
        raise ValueError("a keyword must not be empty")
    return len(re.findall(rf"(?<!\w){re.escape(keyword.strip())}(?!\w)", text, re.IGNORECASE))


def existence(text: str, *, keywords: Sequence[str]) -> bool:
    """Every keyword occurs."""
    return all(_num_occurrences(text, keyword) for keyword in _texts(keywords))


def forbidden(text: str, *, forbidden_words: Sequence[str]) -> bool:
    """None of the words occurs."""
    return not any(_num_occurrences(text, word) for word in _texts(forbidden_words))


def frequency(text: str, *, keyword: str, frequency: int, relation: str = "at least") -> bool:
    """The keyword occurs so often."""
    return holds(_num_occurrences(text, keyword), relation, frequency)


def letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str = "at least") -> bool:
    """The letter, or other character, occurs so often, whatever its case."""
    if len(letter) != 1:
        raise ValueError(f"`letter` must be one character, got {letter!r}")
    return holds(text.casefold().count(letter.casefold()), let_relation, let_frequency)


def number_words(text: str, *, num_words: int, relation: str = "at least") -> bool:
    """So many words."""
    return holds(len(words_of(text)), relation, num_words)


def number_sentences(text: str, *, num_sentences: int, relation: str = "at least") -> bool:
    """So many sentences."""
    return holds(count_sentences(text), relation, num_sentences)


def number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many paragraphs, separated by lines of three asterisks; none of them empty."""
    parts = _PARAGRAPH_RULE.split(text.strip())
    return len(parts) == num_paragraphs and all(part.strip() for part in parts)


def nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Exactly so many paragraphs, separated by blank lines, and the n-th (from 1) starts with the word."""
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise ValueError(f"there is no paragraph {nth_paragraph} of {num_paragraphs}")
    parts = [part for part in _BLANK_LINES.split(text.strip()) if part.strip()]
    if len(parts) != num_paragraphs:
        return False
    words = words_of(parts[nth_paragraph - 1])
    return bool(words) and words[0].casefold() == first_word.strip().casefold()


def capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str = "at least") -> bool:
    """So many words are all capital letters; a lone capital letter such as "I" is one too."""
    return holds(sum(word.isupper() for word in words_of(text)), capital_relation, capital_frequency)


def all_capital(text: str) -> bool:
    """No small letter, and at least one capital."""
    return text.isupper()


def all_lowercase(text: str) -> bool:
    """No capital letter, and at least one small one."""
    return text.islower()


def no_comma(text: str) -> bool:
    """No comma of any script."""
    return not re.search("[,\u060c\u3001\uff0c]", text)


def _texts(values: Sequence[str]) -> Sequence[str]:
    if not isinstance(values, list | tuple) or not values or not all(isinstance(value, str) for value in values):
        raise ValueError(f"a list of words was wanted, got {str(values)[:80]!r}")
    return values
