"""Outcome advantage per sibling, plus the step term where one is configured, spread over the sampled tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from rl.config import CreditConfig, ProcessCredit
from rl.credit.dr_grpo import dr_grpo_advantages
from rl.credit.grpo import grpo_advantages
from rl.credit.process import step_terms
from rl.verdict import final_rewards, is_correct, judged
from rollout.schema import Float32Array, ScoredGroup

AdvantageRule = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


class GroupCredit:
    """Implements `rl.ports.Credit`."""

    def __init__(self, name: str, rule: AdvantageRule, process: ProcessCredit | None) -> None:
        self.name = name
        self._rule = rule
        self._process = process

    def __call__(self, scored: ScoredGroup) -> tuple[Float32Array | None, ...]:
        outcome = self._rule(final_rewards(scored))
        terms = self._step_terms(scored)
        advantages: list[Float32Array | None] = []
        for trajectory, value, term in zip(scored.group.trajectories, outcome, terms, strict=True):
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


def build_credit(config: CreditConfig) -> GroupCredit:
    """The credit rule that `config` describes."""
    if config.type == "grpo":
        return GroupCredit(config.type, partial(grpo_advantages, epsilon=config.epsilon), config.process)
    return GroupCredit(config.type, dr_grpo_advantages, config.process)
