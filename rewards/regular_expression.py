"""The answer must match the pattern that is the task's reference (syntax of the `regex` package)."""

from __future__ import annotations

import regex

from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.settings import RegularExpressionSettings
from rollout.schema import Outcome, Status

MAX_CHARS = 100_000


def verify(sample: Sample) -> Outcome:
    """1 for a match. An answer on which the pattern runs out of time scores 0: else it could be dodged that way."""
    settings = RegularExpressionSettings.model_validate(sample.settings)
    pattern = _compiled(sample.reference, settings)
    if isinstance(pattern, str):
        return unjudged(Status.BAD_REFERENCE, pattern)
    answer = sample.answer.strip()
    if len(answer) > MAX_CHARS:
        return unparseable(f"an answer of {len(answer)} characters, more than {MAX_CHARS}")
    match = pattern.fullmatch if settings.whole else pattern.search
    try:
        found = match(answer, timeout=settings.max_seconds)
    except TimeoutError:
        return unparseable(f"the pattern takes over {settings.max_seconds:g} s on this answer")
    return judged(float(found is not None))


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 for a pattern that compiles."""
    pattern = _compiled(sample.reference, RegularExpressionSettings.model_validate(sample.settings))
    return unjudged(Status.BAD_REFERENCE, pattern) if isinstance(pattern, str) else judged(1.0)


def _compiled(reference: str, settings: RegularExpressionSettings) -> regex.Pattern[str] | str:
    """The pattern, or why it is none."""
    if not reference:
        return "the pattern is empty"
    try:
        return regex.compile(reference, regex.IGNORECASE if settings.ignore_case else 0)
    except (regex.error, RecursionError, OverflowError) as error:
        return f"not a regular expression: {error}"
