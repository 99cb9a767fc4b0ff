"""Settled slots become a batch: fates, credit, training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl.batch import TrainingBatch, TrainingSample
from rl.buffer import Slot
from rl.ports import Credit
from rl.record import Fate, Settled
from rollout.schema import Float32Array, ScoredGroup, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packed:
    """The slots of one step in order. `groups` holds every attempt at every slot, dropped ones included."""

    step: int
    num_slots: int
    groups: tuple[Settled, ...]
    samples: tuple[TrainingSample, ...]

    def batch(self, version: int) -> TrainingBatch:
        """Stamp the samples with the version they are trained from, which is known only when their turn comes."""
        return TrainingBatch(step=self.step, version=version, samples=self.samples, num_groups=self.num_slots)


def assemble(credit: Credit, step: int, slots: Sequence[Slot]) -> Packed:
    """Give every group its fate and credit, which is computed over the admitted groups of all slots together.

    Raises ValueError when credit is not finite or of the wrong shape.
    """
    attempts = [pair for slot in slots for pair in zip(slot.attempts, slot.drop_reasons, strict=True)]
    admitted = [scored for scored, reason in attempts if reason is None]
    advantages = iter(_checked_credit(credit, admitted))
    groups: list[Settled] = []
    samples: list[TrainingSample] = []
    for scored, reason in attempts:
        if reason is not None:
            groups.append(Settled(scored=scored, fate=Fate(name="dropped", step=step, reason=reason)))
            continue
        values = next(advantages)
        mine = _samples(scored, values)
        fate = Fate(name="trained", step=step)
        if not mine:
            fate, values = Fate(name="dropped", step=step, reason="no_loss_tokens"), ()
        groups.append(Settled(scored=scored, fate=fate, advantages=values))
        samples.extend(mine)
    return Packed(step=step, num_slots=len(slots), groups=tuple(groups), samples=tuple(samples))


def _checked_credit(credit: Credit, groups: Sequence[ScoredGroup]) -> list[tuple[Float32Array | None, ...]]:
    if not groups:
        return []
    advantages = list(credit(groups))
    for scored, per_sibling in zip(groups, advantages, strict=True):
        for trajectory, values in zip(scored.group.trajectories, per_sibling, strict=True):
            if values is not None:
                _check(credit.name, trajectory, values)
    return advantages


def _check(name: str, trajectory: Trajectory, values: Float32Array) -> None:
    place = f"{trajectory.group_id}/{trajectory.sibling}"
    if values.shape != trajectory.token_ids.shape:
        raise ValueError(
            f"credit {name!r} must give one advantage per token, got {values.shape} for "
            f"{trajectory.token_ids.shape} in {place}"
        )
    if not np.isfinite(values).all() or values[~trajectory.sampled].any():
        raise ValueError(
            f"credit {name!r} must be finite, and 0 at tokens the policy did not sample, got something else in "
            f"{place}: look at its rewards and step scores"
        )


def _samples(scored: ScoredGroup, advantages: Sequence[Float32Array | None]) -> list[TrainingSample]:
    """Samples of the siblings that have credit and at least one sampled token."""
    return [
        TrainingSample(
            group_id=trajectory.group_id,
            sibling=trajectory.sibling,
            effort=scored.group.job.budget.effort,
            token_ids=trajectory.token_ids,
            loss_mask=trajectory.sampled,
            advantages=values,
            sampler_logprobs=trajectory.sampler_logprobs,
            policy=trajectory.policy,
        )
        for trajectory, values in zip(scored.group.trajectories, advantages, strict=True)
        if values is not None and trajectory.sampled.any()
    ]
