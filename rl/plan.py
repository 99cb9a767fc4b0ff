"""What a step trains on: its fresh samples, and what policies put beside them, replace or re-weigh.

Policies run in order when the step's turn has come, between two updates and not while the batch is packed ahead of
time. So all their state belongs to the last whole step, and a checkpoint taken there is exact. What they add is outside
of the staleness proof in `rl/buffer.py`, which is about fresh samples; every policy bounds the age of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rl.batch import StepResult, TrainingBatch
from rl.ports import State
from rl.record import Settled
from rollout.schema import Metric


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepPlan:
    """The batches of one step, in the order of training; the weights are published after the last.

    `groups` holds every group that was settled, dropped ones included. `taught` names groups that train through
    something else than their own samples, such as a demonstration, and are no drought.
    """

    groups: tuple[Settled, ...]
    batch: TrainingBatch
    more: tuple[TrainingBatch, ...] = ()
    taught: frozenset[str] = frozenset()

    @property
    def step(self) -> int:
        return self.batch.step

    @property
    def batches(self) -> tuple[TrainingBatch, ...]:
        """Those that hold a sample."""
        return tuple(batch for batch in (self.batch, *self.more) if batch.samples)


class BatchPolicy(Protocol):
    """Changes the plan of a step before its update, and learns from the outcome."""

    name: str

    async def plan(self, plan: StepPlan) -> StepPlan: ...

    async def observe(self, plan: StepPlan, results: Sequence[StepResult]) -> None:
        """The plan was carried out; one result a batch of `plan.batches`."""
        ...

    def metrics(self) -> list[Metric]: ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State) -> None: ...

    def save(self, folder: Path) -> None:
        """Write below `folder`, inside a checkpoint, what is too large for the state."""
        ...

    def restore(self, folder: Path | None) -> None:
        """Put files back to what `save` wrote, or for None to nothing at all. Later ones are set aside, not deleted."""
        ...


class Stateless:
    """The part of a policy that remembers nothing."""

    async def observe(self, plan: StepPlan, results: Sequence[StepResult]) -> None:
        """Nothing to learn."""

    def metrics(self) -> list[Metric]:
        return []

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State) -> None:
        """Nothing to load."""

    def save(self, folder: Path) -> None:
        """Nothing to write."""

    def restore(self, folder: Path | None) -> None:
        """Nothing to put back."""


async def make_plan(policies: Sequence[BatchPolicy], groups: tuple[Settled, ...], batch: TrainingBatch) -> StepPlan:
    """What all policies together make of a step's fresh batch."""
    plan = StepPlan(groups=groups, batch=batch)
    for policy in policies:
        plan = await policy.plan(plan)
    return plan


def states(policies: Sequence[BatchPolicy]) -> dict[str, State]:
    """Entry of the checkpoint."""
    return {policy.name: policy.state_dict() for policy in policies}


def save(policies: Sequence[BatchPolicy], folder: Path) -> None:
    """Files of the checkpoint, a folder a policy."""
    for policy in policies:
        place = folder / policy.name
        place.mkdir(parents=True, exist_ok=True)
        policy.save(place)


def restore(policies: Sequence[BatchPolicy], states: State, folder: Path | None) -> None:
    """Put every policy where the checkpoint left it; one that the checkpoint does not know starts anew."""
    for policy in policies:
        if policy.name in states:
            policy.load_state_dict(states[policy.name])
        policy.restore(folder / policy.name if folder is not None and policy.name in states else None)
