"""Engines and learner that take turns on the same GPUs (`cluster.placement = "colocated"`)."""

from __future__ import annotations

from typing import Any, Protocol

from rl.batch import StepResult, TrainingBatch


class Sleepers(Protocol):
    """The engines: they give their memory back, and wake with the next publish."""

    async def sleep(self) -> None: ...


class TakingTurns:
    """The learner, before each of whose steps the engines go to sleep; everything else is the learner's own.

    With `buffer.max_lag` = 0, which `launch/placement_rules.py` asks for, no response is in flight then.
    """

    def __init__(self, learner: Any, engines: Sleepers) -> None:
        self._learner = learner
        self._engines = engines

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    async def step(self, batch: TrainingBatch) -> StepResult:
        """Update the weights with the whole GPU, and leave room for the engines to wake."""
        await self._engines.sleep()
        result: StepResult = await self._learner.step(batch)
        await self._learner.give_back()
        return result
