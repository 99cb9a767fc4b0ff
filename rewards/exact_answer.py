"""The answer must be the reference, character for character, apart from white space around it."""

from __future__ import annotations

from rewards.outcome import Sample, judged, unjudged, unparseable
from rollout.schema import Outcome, Status


def verify(sample: Sample) -> Outcome:
    """1 for equal strings, 0 otherwise."""
    reference = sample.reference.strip()
    if not reference:
        return unjudged(Status.BAD_REFERENCE, "the reference is empty")
    answer = sample.answer.strip()
    if not answer:
        return unparseable("no answer")
    return judged(float(answer == reference))
