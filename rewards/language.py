"""Is the response in the wanted language? Formulas, program text, numbers and addresses are of none and left out.

The text is cut into pieces at line ends, each piece is recognized by itself, and the score is the share of letters in
pieces of the wanted language: a response that changes language half way gets half.
"""

from __future__ import annotations

import functools
import re

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from rewards.outcome import Sample, unjudged
from rewards.settings import LanguageSettings
from rollout.schema import Outcome, Status

MAX_CHARS = 50_000
_NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\\\[.*?\\\]|\\\(.*?\\\)|\\[A-Za-z]+|https?://\S+|<[^<>\n]*>",
    re.DOTALL,
)


@functools.cache
def _identifier() -> LanguageIdentifier:
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def verify(sample: Sample) -> Outcome:
    """The share of the text in the language, or 0 and 1 around `min_share`; 1 for a text too short to tell."""
    settings = LanguageSettings.model_validate(sample.settings)
    wanted = settings.language or sample.reference.strip().casefold()
    if not is_known(wanted):
        return unjudged(Status.BAD_REFERENCE, f"not the ISO 639 code of a language that can be recognized: {wanted!r}")
    share = share_in(wanted, _read(sample, settings)[:MAX_CHARS], settings.min_chars)
    if share is None:
        return Outcome(status=Status.JUDGED, score=1.0, reason="too short to tell the language")
    score = float(share >= settings.min_share) if settings.min_share else share
    return Outcome(status=Status.JUDGED, score=score, parts={"share": share})


def is_known(language: str) -> bool:
    """Whether there is a model of the language of this ISO 639 code."""
    return language in _identifier().labels


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 for a code that is known."""
    return verify(sample.with_reference_as_answer())


def share_in(wanted: str, text: str, min_chars: int) -> float | None:
    """Share of the letters that stand in pieces of the language; None when all together are fewer than `min_chars`."""
    pieces = _pieces(text, min_chars)
    sizes = [_num_letters(piece) for piece in pieces]
    if sum(sizes) < min_chars:
        return None
    inside = sum(size for piece, size in zip(pieces, sizes, strict=True) if _identifier().classify(piece)[0] == wanted)
    return inside / sum(sizes)


def _read(sample: Sample, settings: LanguageSettings) -> str:
    parts = {"answer": [sample.answer], "thinking": [sample.thinking], "both": [sample.thinking, sample.answer]}
    return "\n".join(parts[settings.reads])


def _pieces(text: str, min_chars: int) -> list[str]:
    """Lines, joined until each piece has `min_chars` letters; a last short piece goes to its neighbor."""
    pieces: list[str] = []
    current = ""
    for line in _NOT_PROSE.sub(" ", text).splitlines():
        current = f"{current} {line}".strip()
        if _num_letters(current) >= min_chars:
            pieces.append(current)
            current = ""
    if current and pieces:
        pieces[-1] += f" {current}"
    elif current:
        pieces.append(current)
    return pieces


def _num_letters(text: str) -> int:
    return sum(map(str.isalpha, text))
