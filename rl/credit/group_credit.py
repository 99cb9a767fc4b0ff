"""One advantage per sibling, joined by step scores where a rule for them is configured, over the sampled tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.steps.process import Process
from rl.credit.steps.rows import FloatArray
from rl.segments import Segments, joined
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
        return _sampled_only(prepared, per_token)

    def metrics(self) -> list[Metric]:
        """What the step scores had to say in the last batch, beside the outcome."""
        return self._process.metrics()


def _sampled_only(groups: Sequence[ScoredGroup], per_token: Sequence[Sequence[FloatArray]]) -> list[Advantages]:
    """Per group and sibling, the advantages with 0 where nothing was sampled; None where they are NaN."""
    values = [of_one for of_group in per_token for of_one in of_group]
    flat = joined(values, np.float64)
    sampled = joined([t.sampled for scored in groups for t in scored.group.trajectories], np.bool_)
    segments = Segments.of(values)
    known = segments.counts(np.isnan(flat)) == 0
    kept = segments.split(np.where(sampled, flat, 0.0).astype(np.float32))
    each = iter([of_one if is_known else None for of_one, is_known in zip(kept, known.tolist(), strict=True)])
    return [tuple(next(each) for _ in of_group) for of_group in per_token]
