"""Which weights the tokens of a trajectory were drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpan:
    """Weight versions (numbers of optimizer steps) at the first and at the last sampled token, and where they changed.

    `switches` holds (t, version) for each token t of the trajectory that is the first one drawn from a newer version.
    Versions never go back along a trajectory, so `start` is the age of its oldest token. A span whose versions differ
    and that has no switches does not know where; all of its tokens then count as the oldest.
    """

    start: int
    end: int
    switches: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"policy versions must satisfy 0 <= start <= end, got {self.start}, {self.end}")
        versions = [self.start, *(version for _, version in self.switches)]
        places = [place for place, _ in self.switches]
        rises = all(a < b for a, b in (*pairwise(versions), *pairwise(places)))
        if self.switches and not (rises and places[0] >= 0 and versions[-1] == self.end):
            raise ValueError(
                f"switches must rise in place and version from {self.start} to {self.end}, got {self.switches}"
            )

    @classmethod
    def of(cls, versions: Sequence[int], places: Sequence[int]) -> PolicySpan:
        """From the version of each sampled token, at least one of them, and its place in the trajectory."""
        changes = zip(pairwise(versions), places[1:], strict=True)
        switches = tuple((int(place), int(new)) for (old, new), place in changes if old != new)
        return cls(start=int(versions[0]), end=int(versions[-1]), switches=switches)

    def at(self, places: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """[K] version of the tokens at these places [K]."""
        starts = [place for place, _ in self.switches]
        versions = np.asarray([self.start, *(version for _, version in self.switches)], dtype=np.int32)
        found: npt.NDArray[np.int32] = versions[np.searchsorted(starts, places, side="right")]
        return found
