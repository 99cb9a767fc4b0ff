"""What the training loop tells whoever watches it. `rl/report/` implements it for the terminal and the HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rl.batch import StepResult, TrainingBatch
from rl.evaluate import EvalResult
from rl.record import Fate
from rollout.schema import Metric, ScoredGroup


class Reporter(Protocol):
    """A watcher. Its methods return at once and never raise for what they are shown."""

    def step(self, step: int, batch: TrainingBatch, result: StepResult | None, metrics: Sequence[Metric]) -> None:
        """A step is trained, published and recorded; `result` is None when every group of it was dropped."""
        ...

    def group(self, scored: ScoredGroup, fate: Fate) -> None:
        """A group's fate is final."""
        ...

    def evaluation(self, result: EvalResult) -> None:
        """An evaluation is complete."""
        ...

    def phase(self, name: str, seconds: float) -> None:
        """A phase of the run ended: "start", "train", "evaluate" or "checkpoint"."""
        ...

    def warning(self, message: str) -> None:
        """Something went wrong that the run survives."""
        ...
