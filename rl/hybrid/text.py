"""Next-token prediction beside reinforcement learning.

    L = L_RL + coefficient * mean over the learned text tokens of a step of -log p(token | chunk before it)

Source: the dual loss of RMT, 2025, as two reviews agree on it; its normalization is not published, and a mean over the
step's text tokens is this project's choice (`rl.packing.weigh`). lambda = .1 is the published value.

Assumption: text is raw, without a chat template, and a chunk is a context of its own. Which chunks a step gets is a
function of seed and step.

RMT's policy also predicts tokens of the text by thinking, and a token that is a task must not be learned here as well,
which would teach the answer. Chunks say which of their tokens are learned; `ponder tasks predict` writes tasks and text
that never meet. What it is not: a loss on the tasks' own prompts or answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rl.batch import Stream, TrainingSample
from rl.plan import Stateless, StepPlan
from rollout.schema import BoolArray, Int32Array, PolicySpan

EFFORT = "text"


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Text in one context: token_ids [L], learned [L]. The first token has no context and is never learned."""

    token_ids: Int32Array
    learned: BoolArray


class TextPolicy(Stateless):
    """Implements `rl.plan.BatchPolicy`."""

    name = "text"

    def __init__(self, chunks: Sequence[Chunk], *, per_step: int, coefficient: float, seed: int) -> None:
        """`chunks` hold at least one learned token each."""
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
        tokens, learned = self._chunks[index].token_ids, self._chunks[index].learned
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
