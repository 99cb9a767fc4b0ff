"""Which effort the next job gets."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

import numpy as np

from budgets.config import PLACE, BudgetsConfig, NumbersConfig
from budgets.decay import tokens_at
from budgets.shaping.thinkprune import limits_at
from rollout.schema import TokenBudget

LAST_STEP = 2**31


def token_budgets(config: BudgetsConfig) -> dict[str, TokenBudget]:
    """The budget of every effort as it is evaluated, by name, in the configured order: the limits of the last stage,
    the number that a decay ends with, and of drawn numbers the one chosen for evaluation."""
    return {name: budget_at(config, name, step=LAST_STEP) for name in config.efforts}


def budget_at(config: BudgetsConfig, name: str, *, step: int, number: int | None = None) -> TokenBudget:
    """The budget of an effort at a training step; `number` is the one drawn, where the effort has numbers."""
    effort = config.efforts[name]
    cap, answer = limits_at(
        effort.stages,
        step,
        max_thinking_tokens=effort.max_thinking_tokens,
        max_answer_tokens=effort.max_answer_tokens,
    )
    if effort.numbers is not None:
        number = number or effort.numbers.evaluate or effort.numbers.high
        cap = number if effort.numbers.is_cap else cap
    elif (decay := effort.decay) is not None:
        number = tokens_at(step - 1, decay.steps, first=decay.first, least=decay.least, factor=decay.factor)
    elif PLACE in effort.instruction:
        number = answer if cap is None else cap
    return TokenBudget(
        effort=name,
        max_prompt_tokens=config.max_prompt_tokens,
        max_thinking_tokens=cap,
        max_answer_tokens=answer,
        instruction=effort.instruction.replace(PLACE, str(number)),
        opens_thinking=effort.opens_thinking,
        prefix=effort.prefix,
        forced_close=effort.forced_close,
        target_tokens=number,
    )


def draw_number(numbers: NumbersConfig, point: float) -> int:
    """The number at `point` in [0, 1) of the distribution."""
    if numbers.spacing == "uniform":
        return numbers.low + int(point * (numbers.high - numbers.low + 1))
    span = math.log((numbers.high + 1) / numbers.low)
    return min(numbers.high, int(numbers.low * math.exp(point * span)))


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
    """Draws an effort for every job, independently, from the mix of the job's step, and a number where it has them.

    Draw number n of a seed is a pure function of (seed, n), so the state is one counter, and a resumed run continues
    with the draw that the interrupted one would have made.
    """

    def __init__(self, config: BudgetsConfig, *, seed: int) -> None:
        self.adopt(config)
        self._seed = seed
        self._num_draws = 0

    def next(self, step: int) -> TokenBudget:
        """The budget of the next job, admitted for training step `step`."""
        names, edges = self._drawn_from(step)
        rng = np.random.default_rng([self._seed, self._num_draws])
        point, number_point = rng.random(), rng.random()
        self._num_draws += 1
        name = names[min(bisect_right(edges, point), len(names) - 1)]
        numbers = self._config.efforts[name].numbers
        number = None if numbers is None else draw_number(numbers, number_point)
        return budget_at(self._config, name, step=step, number=number)

    def adopt(self, config: BudgetsConfig) -> None:
        """Draw by these settings from now on; the draws go on where they were."""
        self._config = config
        self._mix_of: tuple[int, list[str], list[float]] | None = None  # of the step that was asked for last

    def _drawn_from(self, step: int) -> tuple[list[str], list[float]]:
        """The efforts that may be drawn at a step, and the sums of their probabilities up to each."""
        if self._mix_of is None or self._mix_of[0] != step:
            mix = {name: probability for name, probability in mix_at(self._config, step).items() if probability > 0}
            self._mix_of = (step, list(mix), np.cumsum(list(mix.values())).tolist())
        return self._mix_of[1:]

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
