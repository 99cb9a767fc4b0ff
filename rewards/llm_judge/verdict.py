"""A model's reply becomes a grade, strictly: one JSON object with a rationale and a whole number, or nothing."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rewards.fenced import last_block
from rewards.llm_judge.settings import ModelJudgeSettings

_MAX_REPLY_CHARS = 200_000
_MAX_RATIONALE_CHARS = 2_000


class MalformedVerdictError(ValueError):
    """A reply that is no grade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One grading: marks in 0 .. max_marks."""

    marks: int
    rationale: str


def parse_vote(reply: str, max_marks: int) -> Vote:
    """Raises MalformedVerdictError. A reasoning model's thoughts before the object are not read."""
    text = reply.rpartition("</think>")[2].strip()[:_MAX_REPLY_CHARS]
    if text.startswith("```"):
        block = last_block(text)
        text = text if block is None else block.content
    try:
        content = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise MalformedVerdictError(f"not one JSON object: {str(error)[:120]}") from None
    if not isinstance(content, dict) or content.keys() != {"rationale", "score"}:
        raise MalformedVerdictError("the object must have `rationale` and `score`, and nothing else")
    marks, rationale = content["score"], content["rationale"]
    if isinstance(marks, bool) or not isinstance(marks, int) or not 0 <= marks <= max_marks:
        raise MalformedVerdictError(f"`score` must be a whole number from 0 to {max_marks}")
    if not isinstance(rationale, str) or not rationale.strip():
        raise MalformedVerdictError("`rationale` must say something")
    # Half a surrogate pair, which JSON can spell, would break whoever writes it to a file.
    return Vote(marks=marks, rationale=rationale.strip()[:_MAX_RATIONALE_CHARS].encode(errors="replace").decode())


def verdict_schema(max_marks: int) -> dict[str, Any]:
    """JSON schema of what `parse_vote` reads. The rationale comes first, so that the grade can follow from it."""
    # An enum and a pattern, not minimum and maxLength: every guided decoder knows these two.
    rationale = {"type": "string", "pattern": r'^[^"\\\x00-\x1f]{1,600}$'}
    return {
        "type": "object",
        "properties": {"rationale": rationale, "score": {"type": "integer", "enum": list(range(max_marks + 1))}},
        "required": ["rationale", "score"],
        "additionalProperties": False,
    }


def aggregate(votes: Sequence[Vote], settings: ModelJudgeSettings) -> tuple[float, Vote]:
    """The score in [0, 1], and the vote nearest to it, whose rationale is kept."""
    marks = [vote.marks for vote in votes]
    if settings.aggregate == "mean":
        grade = statistics.fmean(marks)
    elif settings.aggregate == "median":
        grade = float(statistics.median(marks))
    else:
        counts = Counter(marks)
        grade = float(min(counts, key=lambda mark: (-counts[mark], mark)))
    nearest = min(votes, key=lambda vote: abs(vote.marks - grade))
    return grade / settings.max_marks, nearest


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key occurs twice")
    return found
