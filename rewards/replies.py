"""What a worker replied, as outcomes. A reply is data from an untrusted process: anything unexpected is a crash."""

from __future__ import annotations

import math
from typing import Any

from rewards.outcome import unjudged
from rewards.sandbox import Reply, ReplyStatus
from rollout.schema import Outcome, Status

_MAX_PARTS = 64
_MAX_TEXT = 500


def outcome_of(reply: Reply) -> Outcome:
    """The reply to one sample. Never raises and never makes a score out of a failure."""
    failure = failed(reply)
    return _checked(reply.value) if failure is None else failure


def outcomes_of(reply: Reply, count: int) -> list[Outcome]:
    """The reply to a unit of `count` samples."""
    failure = failed(reply)
    if failure is not None:
        return [failure] * count
    if not isinstance(reply.value, list) or len(reply.value) != count:
        return [unjudged(Status.CRASH, f"the worker did not give {count} outcomes")] * count
    return [_checked(value) for value in reply.value]


def failed(reply: Reply) -> Outcome | None:
    """The unjudged outcome of a reply that carries no value; None for one that does."""
    if reply.status is ReplyStatus.OK:
        return None
    if reply.status is ReplyStatus.TIMEOUT:
        return unjudged(Status.TIMEOUT, f"the verifier took {reply.detail}")
    return unjudged(Status.CRASH, f"{reply.status}: {reply.detail}")


def _checked(value: Any) -> Outcome:
    try:
        return _outcome(value)
    except (TypeError, ValueError, KeyError) as error:
        return unjudged(Status.CRASH, f"the verifier did not return an Outcome: {str(error)[:200]}")


def _outcome(value: Any) -> Outcome:
    if not isinstance(value, dict):
        raise TypeError(f"got a {type(value).__name__}")
    score, parts = value["score"], value["parts"]
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise TypeError(f"score is a {type(score).__name__}")
    if not isinstance(parts, dict) or len(parts) > _MAX_PARTS:
        raise TypeError(f"parts must be at most {_MAX_PARTS} named numbers")
    numbers = {_clean(str(name)): float(part) for name, part in parts.items()}
    if not all(math.isfinite(part) for part in numbers.values()):
        raise ValueError("parts must be finite")
    status = Status(value["status"])
    return Outcome(
        status=status, score=None if score is None else float(score), parts=numbers, reason=_clean(str(value["reason"]))
    )


def _clean(text: str) -> str:
    """Short, and encodable: half a surrogate pair would break whoever writes it to a file."""
    return text[:_MAX_TEXT].encode(errors="replace").decode()
