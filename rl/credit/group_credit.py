"""One advantage per sibling, joined by step scores where a rule for them is configured, over the sampled tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.steps.process import Process
from rollout.schema import Float32Array, Metric, ScoredGroup

Advantages = tuple[Float32Array | None, ...]
BatchRule = Callable[[Sequence[ScoredGroup]], Sequence[npt.NDArray[np.float64]]]
"""Groups of a batch to [G] advantages each, NaN where a sibling is not to be trained on."""


class GroupCredit:
    """Implements `rl.ports.Credit` for estimators that give an answer one number."""

    def __init__(
        self, name: str, rule: BatchRule, process: Process | None = None, *, needs_greedy_baseline: bool = False
    ) -> None:
        self.name = name
        self.needs_greedy_baseline = needs_greedy_baseline
        self._rule = rule
        self._process = process or Process()

    def __call__(self, groups: Sequence[ScoredGroup]) -> list[Advantages]:
        prepared = self._process.prepare(groups)
        per_token = self._process.advantages(prepared, self._rule(prepared))
        return [_sampled_only(scored, values) for scored, values in zip(prepared, per_token, strict=True)]

    def metrics(self) -> list[Metric]:
        """What the step scores had to say in the last batch, beside the outcome."""
        return self._process.metrics()


def _sampled_only(scored: ScoredGroup, values: Sequence[npt.NDArray[np.float64]]) -> Advantages:
    return tuple(
        None if np.isnan(of_one).any() else np.where(trajectory.sampled, of_one, 0.0).astype(np.float32)
        for trajectory, of_one in zip(scored.group.trajectories, values, strict=True)
    )
