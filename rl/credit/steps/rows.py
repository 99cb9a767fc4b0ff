"""What the step rules read of a group, and how their results get back onto tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rl.credit.process_config import ProcessSection
from rl.credit.steps.kinds import require_kind
from rl.verdict import judged
from rollout.schema import ScoredGroup, ScoreKind, StepScores

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepRow:
    """The scored steps of one judged sibling, in order. Steps without a score are left out: S counts the others."""

    scores: FloatArray  # [S], never NaN
    lengths: npt.NDArray[np.int64]  # [S] tokens of each step
    spans: tuple[tuple[int, int], ...]  # [S] half-open token ranges

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())


Row = StepRow | None
"""None where a sibling is unjudged, has no step scores, or not one step with a score."""

Values = FloatArray | None
"""[S] one number per step of a row, None for a row that is None."""


def rows_of(scored: ScoredGroup, section: ProcessSection) -> tuple[list[Row], ScoreKind | None]:
    """Rows in sibling order, and the kind of their scores.

    Raises ValueError when the group mixes kinds, which share no scale, mixes versions of a scorer, or has a kind that
    the rule cannot read.
    """
    known = [s if ok else None for s, ok in zip(scored.steps, judged(scored), strict=True)]
    kinds = {s.kind for s in known if s is not None}
    if len(kinds) > 1:
        raise ValueError(
            f"step scores of one group must be of one kind, got {sorted(kinds)}: use one step scorer per run"
        )
    kind = next(iter(kinds), None)
    if kind is not None:
        require_kind(section, kind.value)
    versions = {s.version for s in known if s is not None}
    if len(versions) > 1:
        raise ValueError(
            f"step scores of one group must come from one version of the scorer, got {sorted(versions)} in group "
            f"{scored.group.job.group_id}: score a group in one call"
        )
    return [None if s is None else _row(s) for s in known], kind


def _row(steps: StepScores) -> Row:
    known = [(score, span) for score, span in zip(steps.scores.tolist(), steps.spans, strict=True) if score == score]
    if not known:  # the others are NaN
        return None
    return StepRow(
        scores=np.asarray([score for score, _ in known], dtype=np.float64),
        lengths=np.asarray([span.end - span.start for _, span in known], dtype=np.int64),
        spans=tuple((span.start, span.end) for _, span in known),
    )


def on_tokens(row: Row, values: Values, length: int) -> FloatArray:
    """[length] each step's value on its tokens, 0 outside of scored steps."""
    term = np.zeros(length)
    if row is not None and values is not None:
        for (start, end), value in zip(row.spans, values, strict=True):
            term[start:end] = value
    return term


def returns(rewards: FloatArray, gamma: float = 1.0) -> FloatArray:
    """[S] G_k = sum_{j >= k} gamma^(j - k) r_j."""
    if gamma == 1.0:
        return np.cumsum(rewards[::-1])[::-1]
    total, found = 0.0, np.empty_like(rewards)
    for k in range(len(rewards) - 1, -1, -1):
        total = float(rewards[k]) + gamma * total
        found[k] = total
    return found


def pooled(rows: Sequence[Row]) -> FloatArray:
    """All scores of all rows, end to end."""
    return np.concatenate([np.zeros(0), *(row.scores for row in rows if row is not None)])


def mean_of_others(values: Sequence[float | None]) -> Iterator[float | None]:
    """For each value, the mean of the others that are not None; None where there is no other or no value."""
    known = [v for v in values if v is not None]
    for value in values:
        if value is None or len(known) < 2:
            yield None
        else:
            yield (sum(known) - value) / (len(known) - 1)
