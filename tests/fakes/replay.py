"""Stored samples and stand-ins for tests of replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rl.batch import TrainingBatch, TrainingSample
from rl.plan import StepPlan
from rl.record import Fate, Settled
from rollout.schema import PolicySpan
from tests.fakes.loop import PROMPT_LEN, make_job, make_scored


def sample(group_id: str, sibling: int, *, length: int = 4, advantage: float = 1.0, version: int = 0) -> TrainingSample:
    """`length` loss tokens behind a prompt."""
    total = PROMPT_LEN + length
    mask = np.arange(total) >= PROMPT_LEN
    return TrainingSample(
        group_id=group_id,
        sibling=sibling,
        effort="high",
        token_ids=np.arange(total, dtype=np.int32),
        loss_mask=mask,
        advantages=np.where(mask, advantage, 0.0).astype(np.float32),
        sampler_logprobs=np.where(mask, -0.25 * (1 + sibling), 0.0).astype(np.float32),
        policy=PolicySpan(start=version, end=version),
        source="fake",
    )


def group(group_id: str, right: Sequence[bool], lengths: Sequence[int]) -> tuple[Settled, list[TrainingSample]]:
    """A trained group whose advantages are +-1, and its samples."""
    scored = make_scored([float(r) for r in right], job=make_job(group_id, num_siblings=len(right)))
    samples = [
        sample(group_id, i, length=length, advantage=1.0 if r else -1.0)
        for i, (r, length) in enumerate(zip(right, lengths, strict=True))
    ]
    return Settled(scored=scored, fate=Fate(name="trained", step=1)), samples


def plan_of(step: int, *groups: tuple[Settled, list[TrainingSample]]) -> StepPlan:
    samples = tuple(s for _, mine in groups for s in mine)
    batch = TrainingBatch(step=step, version=step - 1, samples=samples, num_groups=len(groups))
    return StepPlan(groups=tuple(settled for settled, _ in groups), batch=batch)


@dataclass
class FakeComparer:
    """Gives the cosines one after the other."""

    cosines: list[float]
    calls: list[tuple[int, int]] = field(default_factory=list)

    async def gradient_cosine(self, some: Sequence[TrainingSample], others: Sequence[TrainingSample]) -> float:
        self.calls.append((len(some), len(others)))
        return self.cosines.pop(0)
