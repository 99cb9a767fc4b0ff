"""What labelling needs from other rooms: who writes on, who judges answers, who reads critically.

Tokens in, tokens out: a prefix is a trajectory as it was sampled, cut at the end of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rollout.schema import Message, Task, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Opening:
    """Where to go on from: a trajectory that was cut, or None for the prompt alone. Equal seeds give equal tokens."""

    prefix: Trajectory | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Written:
    """A response so far; `ended` says whether it is finished."""

    trajectory: Trajectory
    ended: bool
    num_new_tokens: int


class Writer(Protocol):
    """Engines that continue responses to one task."""

    async def write(self, task: Task, openings: Sequence[Opening], *, stop: str = "") -> Sequence[Written]:
        """One continuation an opening, in order: to the end, or with `stop` to the end of one more step."""
        ...


class OutcomeJudge(Protocol):
    """The verifier service."""

    async def judge(self, task: Task, responses: Sequence[Trajectory]) -> Sequence[float | None]:
        """Is the answer right: a score in [0, 1] each, None where there is no verdict."""
        ...


class Critic(Protocol):
    """A chat model that reads solutions critically."""

    async def ask(self, messages: Sequence[Message], *, temperature: float, seed: int) -> str | None:
        """Its reply, None when there is none in time."""
        ...
