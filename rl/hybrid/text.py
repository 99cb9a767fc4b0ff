"""Next-token prediction beside reinforcement learning.

    L = L_RL + coefficient * mean over the text tokens of a step of -log p(token | chunk before it)

Source: the dual loss of RMT, 2025, as two reviews agree on it; its normalization is not published, and a mean over the
step's text tokens is this project's choice (`rl.packing.weigh`). lambda = .1 is the published value.

Assumption: text is raw, without a chat template, and a chunk is a context of its own. Which chunks a step gets is a
function of seed and step.

What it is not: the whole of RMT. There the policy also predicts tokens of the text by thinking, and those chosen for it
are left out of this term; here text and tasks are apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from rl.batch import Stream, TrainingSample
from rl.plan import Stateless, StepPlan
from rollout.schema import Int32Array, PolicySpan

EFFORT = "text"


class TextPolicy(Stateless):
    """Implements `rl.plan.BatchPolicy`."""

    name = "text"

    def __init__(self, chunks: Sequence[Int32Array], *, per_step: int, coefficient: float, seed: int) -> None:
        """`chunks` hold at least two tokens each."""
        self._chunks = chunks
        self._per_step = per_step
        self._coefficient = coefficient
        self._seed = seed

    async def plan(self, plan: StepPlan) -> StepPlan:
        """Add the chunks of this step, each at most once."""
        rng = np.random.default_rng([self._seed, plan.step])
        count = min(self._per_step, len(self._chunks))
        chosen = rng.choice(len(self._chunks), size=count, replace=False)
        added = [self._sample(int(index), plan.batch.version) for index in chosen]
        return replace(plan, batch=replace(plan.batch, samples=(*plan.batch.samples, *added)))

    def _sample(self, index: int, version: int) -> TrainingSample:
        tokens = self._chunks[index]
        learned = np.arange(tokens.size) > 0
        return TrainingSample(
            group_id=f"text{index:08d}",
            sibling=0,
            effort=EFFORT,
            token_ids=tokens,
            loss_mask=learned,
            advantages=np.where(learned, np.float32(self._coefficient), np.float32(0)),
            sampler_logprobs=np.zeros(tokens.size, dtype=np.float32),
            policy=PolicySpan(start=version, end=version),
            stream=Stream.TEXT,
        )
