"""What a search needs from outside: something that writes steps, and something that scores them.

`launch/` hands in both: the engines of a run behind `Extender`, any step scorer behind `Valuer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.schema import Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Branch:
    """A solution as far as it is written. `ended`: nothing can be added."""

    trajectory: Trajectory
    ended: bool = False

    @property
    def key(self) -> bytes:
        """Equal for branches of the same tokens."""
        return self.trajectory.token_ids.tobytes()


class Extender(Protocol):
    """Writes solutions of one task on; what it samples is counted."""

    @property
    def num_tokens(self) -> int:
        """Tokens sampled for this task so far, those of dropped branches included."""
        ...

    def root(self) -> Branch:
        """The branch before its first token."""
        ...

    async def extend(
        self, branches: Sequence[Branch], *, num_steps: int | None = 1, greedy: bool = False
    ) -> list[Branch]:
        """Each branch with up to `num_steps` more steps, None: to its end. An ended branch comes back as it is.

        The same branch given several times is written on in several ways, unless `greedy`.
        """
        ...


class Valuer(Protocol):
    """How good branches are; higher is better."""

    async def value(self, branches: Sequence[Branch]) -> list[float]:
        """One number per branch; NaN where it could not be judged, the root included."""
        ...


class Reviser(Protocol):
    """Writes a whole solution in view of earlier ones."""

    async def attempt(self, earlier: Sequence[Branch]) -> Branch:
        """A further solution; `earlier` are shown in their order."""
        ...


def distinct(branches: Sequence[Branch]) -> list[Branch]:
    """The branches without those whose tokens are another's, in their order."""
    first: dict[bytes, Branch] = {}
    for branch in branches:
        first.setdefault(branch.key, branch)
    return list(first.values())


def rank(value: float) -> float:
    """What branches are sorted by: an unjudged one comes last, and is not taken for a bad one by its number."""
    return float("-inf") if value != value else value
