"""What a plugin returned, as an outcome. A value that is no number is never read as one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rewards.outcome import judged, unjudged
from rollout.schema import Outcome, Status

SCORE_KEYS = ("score", "reward", "rewards")
_ROUNDING = 1e-6  # of the range: what single precision may add at its ends


class NotANumberError(TypeError):
    """A value was returned that cannot be read as one number."""


def to_outcome(value: Any, *, low: float = 0.0, high: float = 1.0, none: Status = Status.CRASH) -> Outcome:
    """The outcome that `value` means; numbers in [low, high] are mapped to [0, 1].

    Accepts an Outcome, bool, int, float, numpy or tensor scalar, and a dict of "score" (or "reward") with further
    numbers, which become parts. None is unjudged with status `none`. NaN, an infinity, a number outside the range and
    every other type are unjudged as CRASH.
    """
    if isinstance(value, Outcome):
        return value
    if value is None:
        return unjudged(none, "the plugin returned None")
    try:
        if isinstance(value, Mapping):
            return _of_mapping(value, low, high, none)
        return _scored(number(value), low, high)
    except NotANumberError as error:
        return unjudged(Status.CRASH, f"the plugin returned {error}")


def number(value: Any) -> float:
    """A bool, number, numpy scalar or tensor of one element as a float. Raises NotANumberError for anything else."""
    if not isinstance(value, bool | int | float):
        item = getattr(value, "item", None)
        if item is None:
            raise NotANumberError(f"a {type(value).__name__}, not a number")
        try:
            value = item()
        except (TypeError, ValueError, RuntimeError) as error:  # more than one element
            shape = tuple(getattr(value, "shape", ()))
            raise NotANumberError(f"a {type(value).__name__} of shape {shape}, not a number") from error
        if not isinstance(value, bool | int | float):
            raise NotANumberError(f"a {type(value).__name__}, not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise NotANumberError("an integer beyond every float") from error


def _of_mapping(value: Mapping[Any, Any], low: float, high: float, none: Status) -> Outcome:
    key = next((key for key in SCORE_KEYS if key in value), None)
    if key is None:
        raise NotANumberError(f"a dict without {SCORE_KEYS[0]!r}; it has {sorted(map(str, value))[:8]}")
    outcome = to_outcome(value[key], low=low, high=high, none=none)
    reason = value.get("reason")
    return Outcome(
        status=outcome.status,
        score=outcome.score,
        parts=parts_of({name: part for name, part in value.items() if name != key}),
        reason=outcome.reason or (reason if isinstance(reason, str) else ""),
    )


def parts_of(values: Mapping[Any, Any]) -> dict[str, float]:
    """The finite numbers among the values; texts and the like are for the plugin's own eyes."""
    parts: dict[str, float] = {}
    for name, value in values.items():
        try:
            part = number(value)
        except NotANumberError:
            continue
        if math.isfinite(part):
            parts[str(name)] = part
    return parts


def _scored(value: float, low: float, high: float) -> Outcome:
    if not math.isfinite(value):
        raise NotANumberError(f"{value}, which is no score")
    share = (value - low) / (high - low)
    if not -_ROUNDING <= share <= 1 + _ROUNDING:
        raise NotANumberError(
            f"{value:g}, outside its range [{low:g}, {high:g}]; set `range` under rewards.plugins to what it can return"
        )
    return judged(min(max(share, 0.0), 1.0))
