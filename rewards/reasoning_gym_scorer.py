"""Scores of reasoning-gym's own families. Runs only inside a sandbox worker: some scorers execute what they parse.

A task of this kind names its family in `task.meta["family"]` and carries the family's `metadata` in
`task.meta["metadata"]`; reference and question are the task's own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reasoning_gym.factory import get_score_answer_fn

from rewards.outcome import Sample, judged, unjudged, unparseable
from rewards.settings import ReasoningGymSettings
from rollout.schema import Outcome, Status

# Families whose items accept many answers and name none: their scorers read the metadata alone.
OPEN_FAMILIES = frozenset({"boxnet", "graph_color", "propositional_logic", "rubiks_cube", "rush_hour"})


@functools.lru_cache(maxsize=64)
def _scorer(family: str) -> Callable[..., Any]:
    """Raises ValueError for an unknown family."""
    return get_score_answer_fn(family)  # type: ignore[no-any-return]


def verify(sample: Sample) -> Outcome:
    """The family's score of the answer, in [0, 1]; some families give partial marks, unless `whole` refuses them."""
    family = sample.meta.get("family")
    metadata = sample.meta.get("metadata")
    if not isinstance(family, str) or not isinstance(metadata, dict):
        return unjudged(
            Status.BAD_REFERENCE, "the task lacks meta['family'] or meta['metadata'] of its reasoning-gym item"
        )
    answer = sample.answer.strip()
    if not answer:
        return unparseable("no answer")
    if not sample.reference and family not in OPEN_FAMILIES:
        return unjudged(Status.BAD_REFERENCE, f"the reference is empty, and {family!r} needs one")
    entry = {"question": sample.prompt[-1].content, "answer": sample.reference or None, "metadata": metadata}
    score = float(_scorer(family)(answer=answer, entry=entry))
    if not math.isfinite(score):
        raise ValueError(f"the scorer of {family!r} returned {score}")
    if ReasoningGymSettings.model_validate(sample.settings).whole:
        score = float(score >= 1.0)
    return judged(min(max(score, 0.0), 1.0))


def check_reference(sample: Sample) -> Outcome:
    """JUDGED 1 when the family accepts the reference, or names none and its scorer can read the metadata."""
    if sample.reference:
        return verify(sample.with_reference_as_answer())
    outcome = verify(replace(sample, answer="no answer"))
    return outcome if outcome.score is None else judged(1.0, "the family names no answer")
