"""When the diagnostics are due, and what they look at. Runs in the driver: no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rl.batch import TrainingBatch, TrainingSample
from rl.diagnostics.config import DiagnosticsConfig
from rl.phases import PhaseClock
from rl.waits import Waits
from rollout.schema import Metric


class Inspector(Protocol):
    """The learner, looked into. Neither call changes its weights, its optimizer or its random state."""

    async def geometry(self, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
        """Metrics of the hidden states at the end of each prompt."""
        ...

    async def layer_gradients(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """Metrics of the gradients of single samples."""
        ...


class Diagnostics:
    """Measures at intervals, with the learner, while nothing else of the step goes on."""

    def __init__(
        self, config: DiagnosticsConfig, inspector: Inspector, prompts: Sequence[Sequence[int]], *, waits: Waits
    ) -> None:
        """`prompts` are token ids, the same ones throughout the run."""
        self._config = config
        self._inspector = inspector
        self._prompts = prompts
        self._waits = waits

    async def of_weights(self, step: int, clock: PhaseClock) -> list[Metric]:
        """Geometry of the weights after `step`, if it is due; step 0 is the model before training."""
        every = self._config.geometry_every
        if not every or step % every:
            return []
        with clock.phase("diagnose"):
            measured = self._inspector.geometry(self._prompts)
            return _metrics(await self._waits.outside("learn", f"the geometry of step {step}", measured))

    async def of_batch(self, batch: TrainingBatch, clock: PhaseClock) -> list[Metric]:
        """Layer gradients of samples spread over the batch, under the weights it is about to change, if due."""
        every = self._config.gradient_every
        if not every or batch.step % every or not batch.samples:
            return []
        chosen = spread_out(batch.samples, self._config.gradient_samples)
        with clock.phase("diagnose"):
            measured = self._inspector.layer_gradients(chosen)
            return _metrics(await self._waits.outside("learn", f"the layer gradients of step {batch.step}", measured))


def spread_out(samples: Sequence[TrainingSample], count: int) -> list[TrainingSample]:
    """At most `count` samples at equal distances, so that they come from as many groups as possible."""
    count = min(count, len(samples))
    return [samples[i * len(samples) // count] for i in range(count)]


def _metrics(values: dict[str, float]) -> list[Metric]:
    return [Metric(name=name, value=value, reduce="last") for name, value in values.items()]
