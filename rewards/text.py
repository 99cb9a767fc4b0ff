"""Words against words, exact or fuzzy. The reference is a text, or a JSON list of texts any of which is right."""

from __future__ import annotations

import json
import unicodedata

from rapidfuzz import fuzz

from rewards.answer_text import last_boxed
from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.settings import TextSettings
from rollout.schema import Outcome, Status

MAX_CHARS = 20_000
_MEASURES = {"characters": fuzz.ratio, "words": fuzz.token_sort_ratio, "word_set": fuzz.token_set_ratio}


def verify(sample: Sample) -> Outcome:
    """1 from `min_similarity` on, else 0; the part `similarity` is that to the nearest accepted text, in [0, 1]."""
    settings = TextSettings.model_validate(sample.settings)
    accepted = [plain for text in accepted_texts(sample.reference) if (plain := normalize(text, settings))]
    if not accepted:
        return unjudged(Status.BAD_REFERENCE, f"no text to compare with: {sample.reference[:80]!r}")
    taken = _taken(sample.answer, settings)
    if taken is None:
        return unparseable("no box in the answer")
    if len(taken) > MAX_CHARS:
        return unparseable(f"an answer of {len(taken)} characters, more than {MAX_CHARS}")
    answer = normalize(taken, settings)
    if not answer:
        return unparseable("no answer")
    if settings.min_similarity == 1.0:
        similarity = float(answer in accepted)
    else:
        similarity = max(_MEASURES[settings.measure](answer, text) for text in accepted) / 100
    is_right = similarity >= settings.min_similarity
    score = (similarity if settings.graded else 1.0) if is_right else 0.0
    return Outcome(status=Status.JUDGED, score=score, parts={"similarity": similarity})


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 when there is a text left after normalization."""
    settings = TextSettings.model_validate(sample.settings)
    if any(normalize(text, settings) for text in accepted_texts(sample.reference)):
        return judged(1.0)
    return unjudged(Status.BAD_REFERENCE, f"no text to compare with: {sample.reference[:80]!r}")


def accepted_texts(reference: str) -> list[str]:
    """The texts of a JSON list of texts; any other reference is one text, as it stands."""
    if reference.lstrip().startswith("["):
        try:
            texts = json.loads(reference)
        except (ValueError, RecursionError):
            return [reference]
        if isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts):
            return texts
    return [reference]


def normalize(text: str, settings: TextSettings) -> str:
    """One spelling of equal characters (NFKC), single spaces, and without what the settings say does not count."""
    text = unicodedata.normalize("NFKC", text)
    if not settings.case_sensitive:
        text = text.casefold()
    if not settings.punctuation:
        text = "".join(" " if unicodedata.category(char)[0] == "P" else char for char in text)
    return " ".join(text.split())


def _taken(answer: str, settings: TextSettings) -> str | None:
    if settings.take == "box":
        return last_boxed(answer[-MAX_CHARS:])
    stripped = answer.strip()
    return stripped.splitlines()[-1] if settings.take == "last_line" and stripped else stripped
