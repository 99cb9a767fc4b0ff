"""Settled slots become a batch: fates, credit, training samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rl.batch import TrainingBatch, TrainingSample
from rl.buffer import Slot
from rl.credit.kl_penalty import kl_rewards
from rl.ports import Credit
from rl.record import Fate, Settled
from rl.segments import joined
from rollout.schema import Float32Array, ScoredGroup, Trajectory

ReferenceLogprobs = Mapping[str, Sequence[Float32Array]]
"""Per group id, [L] reference log-probabilities of every sibling."""


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


def assemble(
    credit: Credit,
    step: int,
    slots: Sequence[Slot],
    *,
    reference: ReferenceLogprobs | None = None,
    kl_in_reward: float = 0.0,
) -> Packed:
    """Give every group its fate and credit, which is computed over the admitted groups of all slots together.

    Args:
        reference: reference log-probabilities of all admitted groups, where there is a reference model.
        kl_in_reward: coefficient of the KL penalty that joins the rewards before credit is given.

    Raises ValueError when credit is not finite or of the wrong shape.
    """
    attempts = [
        (_paid(scored, reference, kl_in_reward) if reason is None else scored, reason)
        for slot in slots
        for scored, reason in zip(slot.attempts, slot.drop_reasons, strict=True)
    ]
    advantages = iter(_checked_credit(credit, [scored for scored, reason in attempts if reason is None]))
    groups: list[Settled] = []
    samples: list[TrainingSample] = []
    for scored, reason in attempts:
        if reason is not None:
            groups.append(Settled(scored=scored, fate=Fate(name="dropped", step=step, reason=reason)))
            continue
        values = next(advantages)
        mine = _samples(scored, values, reference)
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
    pairs = [
        (trajectory, values)
        for scored, per_sibling in zip(groups, advantages, strict=True)
        for trajectory, values in zip(scored.group.trajectories, per_sibling, strict=True)
        if values is not None
    ]
    if not _is_sound(pairs):  # find the one that is at fault
        for trajectory, values in pairs:
            _check(credit.name, trajectory, values)
    return advantages


def _is_sound(pairs: Sequence[tuple[Trajectory, Float32Array]]) -> bool:
    """What `_check` asks of every trajectory, asked of all at once."""
    if any(values.shape != trajectory.token_ids.shape for trajectory, values in pairs):
        return False
    flat = joined([values for _, values in pairs], np.float32)
    sampled = joined([trajectory.sampled for trajectory, _ in pairs], np.bool_)
    return bool(np.isfinite(flat).all() and not flat[~sampled].any())


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


def _paid(scored: ScoredGroup, reference: ReferenceLogprobs | None, coefficient: float) -> ScoredGroup:
    """The group with its KL penalty among the token rewards, where there is one."""
    if coefficient == 0.0:
        return scored
    if reference is None:
        raise ValueError(f"a KL penalty of {coefficient} in the reward needs a reference model, got none")
    logprobs = reference[scored.group.job.group_id]
    penalties = tuple(
        kl_rewards(t.sampler_logprobs, values, t.sampled, coefficient=coefficient)
        for t, values in zip(scored.group.trajectories, logprobs, strict=True)
    )
    return replace(scored, token_rewards=penalties)


def _samples(
    scored: ScoredGroup, advantages: Sequence[Float32Array | None], reference: ReferenceLogprobs | None
) -> list[TrainingSample]:
    """Samples of the siblings that have credit and at least one sampled token."""
    size = len(scored.group.trajectories)
    logprobs = [None] * size if reference is None else reference[scored.group.job.group_id]
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
            reference_logprobs=known,
            source=scored.group.job.task.source,
        )
        for trajectory, values, known in zip(scored.group.trajectories, advantages, logprobs, strict=True)
        if values is not None and np.count_nonzero(trajectory.sampled)
    ]
