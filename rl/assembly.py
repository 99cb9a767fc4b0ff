"""Settled slots become a batch: fates, credit, training samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rl.batch import TrainingBatch, TrainingSample
from rl.buffer import Slot
from rl.ports import Credit
from rl.record import Fate, Settled
from rollout.schema import Float32Array, ScoredGroup


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
    """Give every group its fate and credit. Raises ValueError when credit is not finite or of the wrong shape."""
    groups: list[Settled] = []
    samples: list[TrainingSample] = []
    for slot in slots:
        for scored, reason in zip(slot.attempts, slot.drop_reasons, strict=True):
            if reason is not None:
                groups.append(Settled(scored=scored, fate=Fate(name="dropped", step=step, reason=reason)))
                continue
            advantages = _checked_credit(credit, scored)
            mine = _samples(scored, advantages)
            fate = Fate(name="trained", step=step)
            if not mine:
                fate, advantages = Fate(name="dropped", step=step, reason="no_loss_tokens"), ()
            groups.append(Settled(scored=scored, fate=fate, advantages=advantages))
            samples.extend(mine)
    return Packed(step=step, num_slots=len(slots), groups=tuple(groups), samples=tuple(samples))


def _checked_credit(credit: Credit, scored: ScoredGroup) -> tuple[Float32Array | None, ...]:
    advantages = credit(scored)
    group_id = scored.group.job.group_id
    for trajectory, values in zip(scored.group.trajectories, advantages, strict=True):
        if values is None:
            continue
        if values.shape != trajectory.token_ids.shape:
            raise ValueError(
                f"credit {credit.name!r} must give one advantage per token, got {values.shape} for "
                f"{trajectory.token_ids.shape} in {group_id}/{trajectory.sibling}"
            )
        if not np.isfinite(values).all() or values[~trajectory.sampled].any():
            raise ValueError(
                f"credit {credit.name!r} must be finite, and 0 at tokens the policy did not sample, got something "
                f"else in {group_id}/{trajectory.sibling}: look at its rewards and step scores"
            )
    return advantages


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
