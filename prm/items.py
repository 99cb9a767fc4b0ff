"""What a learned step scorer is asked about one trajectory, and what it answers. Plain arrays: they cross processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rollout.schema import BoolArray, Float32Array, Int32Array, Message, StepSpan, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreItem:
    """One sequence and the spans to score. `messages` and `steps` are the same as text, for models that read text."""

    token_ids: Int32Array  # [L]
    sampled: BoolArray  # [L]; only these tokens count in a log-ratio
    spans: tuple[tuple[int, int], ...]  # [S] half-open token ranges, ordered and disjoint
    messages: tuple[Message, ...] = ()
    steps: tuple[str, ...] = ()  # [S] or empty


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemScores:
    """Scores of one item; NaN for a span beyond the model's reach, which `truncated` then says."""

    scores: Float32Array  # [S]
    truncated: bool
    version: int


def item_of(
    trajectory: Trajectory,
    spans: tuple[StepSpan, ...],
    *,
    messages: tuple[Message, ...] = (),
    steps: tuple[str, ...] = (),
) -> ScoreItem:
    """The item of one trajectory."""
    return ScoreItem(
        token_ids=trajectory.token_ids,
        sampled=trajectory.sampled,
        spans=tuple((span.start, span.end) for span in spans),
        messages=messages,
        steps=steps,
    )


def token_spans(trajectory: Trajectory) -> tuple[StepSpan, ...]:
    """One span per sampled token."""
    return tuple(StepSpan(start=t, end=t + 1) for t in np.flatnonzero(trajectory.sampled).tolist())


def fault_of(item: ScoreItem, answer: ItemScores) -> str | None:
    """What is wrong with an answer, or None: one score per span, finite unless the item was truncated."""
    if answer.scores.shape != (len(item.spans),):
        return f"{answer.scores.shape} scores for {len(item.spans)} steps"
    bad = ~np.isfinite(answer.scores)
    if bad.any() and (not answer.truncated or np.isinf(answer.scores).any()):
        return f"non-finite scores at steps {np.flatnonzero(bad)[:8].tolist()}"
    return None
