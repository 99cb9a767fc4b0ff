"""One advantage per sibling, plus the step term where one is configured, spread over the sampled tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.config import ProcessCredit
from rl.credit.process import step_terms
from rl.verdict import is_correct, judged
from rollout.schema import Float32Array, ScoredGroup

Advantages = tuple[Float32Array | None, ...]
BatchRule = Callable[[Sequence[ScoredGroup]], Sequence[npt.NDArray[np.float64]]]
"""Groups of a batch to [G] advantages each, NaN where a sibling is not to be trained on."""


class GroupCredit:
    """Implements `rl.ports.Credit` for estimators that give an answer one number."""

    def __init__(
        self, name: str, rule: BatchRule, process: ProcessCredit | None = None, *, needs_greedy_baseline: bool = False
    ) -> None:
        self.name = name
        self.needs_greedy_baseline = needs_greedy_baseline
        self._rule = rule
        self._process = process

    def __call__(self, groups: Sequence[ScoredGroup]) -> list[Advantages]:
        per_sibling = self._rule(groups)
        return [self._spread(scored, values) for scored, values in zip(groups, per_sibling, strict=True)]

    def _spread(self, scored: ScoredGroup, values: npt.NDArray[np.float64]) -> Advantages:
        advantages: list[Float32Array | None] = []
        for trajectory, value, term in zip(scored.group.trajectories, values, self._step_terms(scored), strict=True):
            if np.isnan(value):
                advantages.append(None)
            else:
                advantages.append(np.where(trajectory.sampled, value + term, 0.0).astype(np.float32))
        return tuple(advantages)

    def _step_terms(self, scored: ScoredGroup) -> list[Float32Array]:
        lengths = [len(t.token_ids) for t in scored.group.trajectories]
        has_right_answer = any(is_correct(o) for o in scored.outcomes)
        if self._process is None or not (has_right_answer or self._process.on_all_wrong):
            return [np.zeros(length, dtype=np.float32) for length in lengths]
        steps = [s if is_judged else None for s, is_judged in zip(scored.steps, judged(scored), strict=True)]
        return step_terms(steps, lengths, weight=self._process.weight, cap=self._process.cap)
