"""Many sequences end to end: what is computed for every answer of a step, computed at once.

A step of a large cluster holds ten thousand answers, and one small numpy call costs a microsecond or two: ten of them
an answer are a second of the driver. Over all tokens of the step they cost milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from rollout.schema import Trajectory

Int64Array = npt.NDArray[np.int64]
Scalar = TypeVar("Scalar", bound=np.generic)


class Segments:
    """Where N sequences of these lengths lie when they stand end to end."""

    def __init__(self, lengths: npt.ArrayLike) -> None:
        self.lengths: Int64Array = np.asarray(lengths, dtype=np.int64)  # [N]
        self.ends: Int64Array = np.cumsum(self.lengths)
        self.starts: Int64Array = self.ends - self.lengths

    @classmethod
    def of(cls, sequences: Sequence[npt.NDArray[np.generic]]) -> Segments:
        return cls([len(sequence) for sequence in sequences])

    def counts(self, mask: npt.NDArray[np.bool_]) -> Int64Array:
        """[N] how often `mask`, over all tokens, is True in each sequence."""
        before = np.zeros(mask.size + 1, dtype=np.int64)
        np.cumsum(mask, out=before[1:])
        found: Int64Array = before[self.ends] - before[self.starts]
        return found

    def within(self, mask: npt.NDArray[np.bool_]) -> Segments:
        """The same sequences with only the tokens where `mask` is True."""
        return Segments(self.counts(mask))

    def reduce(self, ufunc: np.ufunc, values: npt.NDArray[np.floating], empty: float) -> npt.NDArray[np.float64]:
        """[N] e.g. the sum of `values`, over all tokens, in each sequence; `empty` for one without tokens."""
        found = np.full(self.lengths.size, empty, dtype=np.float64)
        full = self.lengths > 0
        if full.any():
            found[full] = ufunc.reduceat(values, self.starts[full], dtype=np.float64)
        return found

    def split(self, values: npt.NDArray[Scalar]) -> list[npt.NDArray[Scalar]]:
        """[N] views of each sequence's part."""
        return [values[a:b] for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]


def joined(arrays: Sequence[npt.NDArray[Scalar]], dtype: type[Scalar]) -> npt.NDArray[Scalar]:
    """The arrays end to end; none of them are an empty array of this dtype."""
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)


def thinking_tokens(trajectories: Sequence[Trajectory]) -> Int64Array:
    """[N] `Trajectory.num_thinking_tokens` of each."""
    found = np.zeros(len(trajectories), dtype=np.int64)
    open_ones = [i for i, t in enumerate(trajectories) if t.thinking is not None]
    if not open_ones:
        return found
    chosen = [trajectories[i] for i in open_ones]
    segments = Segments.of([t.token_ids for t in chosen])
    # Characters of all texts are numbered through, so that one search finds the places in all of them.
    sizes = np.asarray([len(t.text) + 1 for t in chosen], dtype=np.int64)
    first = np.cumsum(sizes) - sizes
    ends = np.concatenate([t.char_ends for t in chosen]) + np.repeat(first, segments.lengths)
    spans = np.asarray([t.thinking for t in chosen], dtype=np.int64) + first[:, None]
    start = np.searchsorted(ends, spans[:, 0], side="right")
    end = np.minimum(np.searchsorted(ends, spans[:, 1], side="left") + 1, segments.ends)
    before = np.zeros(ends.size + 1, dtype=np.int64)
    np.cumsum(np.concatenate([t.sampled for t in chosen]), out=before[1:])
    is_open = spans[:, 1] > spans[:, 0]
    found[open_ones] = np.where(is_open & (end > start), before[end] - before[np.minimum(start, end)], 0)
    return found
