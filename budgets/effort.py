"""Which effort the next job gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from budgets.config import BudgetsConfig
from rollout.schema import TokenBudget


def token_budgets(config: BudgetsConfig) -> dict[str, TokenBudget]:
    """The limits of every effort, by name, in the configured order."""
    return {
        name: TokenBudget(
            effort=name,
            max_prompt_tokens=config.max_prompt_tokens,
            max_thinking_tokens=effort.max_thinking_tokens,
            max_answer_tokens=effort.max_answer_tokens,
            instruction=effort.instruction,
        )
        for name, effort in config.efforts.items()
    }


def mix_at(config: BudgetsConfig, step: int) -> dict[str, float]:
    """Probability of each effort at training step `step` (from 1): the first phase not over yet, else the weights."""
    shares = {name: effort.weight for name, effort in config.efforts.items()}
    for phase in config.phases:
        if step <= phase.until_step:
            shares = {name: phase.mix.get(name, 0.0) for name in config.efforts}
            break
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


class EffortSchedule:
    """Draws an effort for every job, independently, from the mix of the job's step.

    Draw number n of a seed is a pure function of (seed, n), so the state is one counter, and a resumed run continues
    with the draw that the interrupted one would have made.
    """

    def __init__(self, config: BudgetsConfig, *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._budgets = token_budgets(config)
        self._num_draws = 0

    def next(self, step: int) -> TokenBudget:
        """The budget of the next job, admitted for training step `step`."""
        mix = mix_at(self._config, step)
        names = [name for name, probability in mix.items() if probability > 0]
        point = np.random.default_rng([self._seed, self._num_draws]).random()
        self._num_draws += 1
        edges = np.cumsum([mix[name] for name in names])
        return self._budgets[names[min(int(np.searchsorted(edges, point, side="right")), len(names) - 1)]]

    def state_dict(self) -> Mapping[str, Any]:
        return {"seed": self._seed, "num_draws": self._num_draws}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` left off. Raises ValueError when it belongs to another seed."""
        if state["seed"] != self._seed:
            raise ValueError(
                f"the effort schedule was saved with seed {state['seed']} and this run has seed {self._seed}: "
                "resume with the seed of the saved run"
            )
        self._num_draws = int(state["num_draws"])
