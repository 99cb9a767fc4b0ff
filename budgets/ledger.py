"""What a run has spent, and the ceilings at which it stops."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from budgets.config import CeilingsConfig
from rollout.schema import Group, Metric


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A ceiling by its name in `[budgets.ceilings]`, its value, and what is spent."""

    name: str
    ceiling: float
    spent: float


class Ledger:
    """Counts generated tokens per effort, judge calls and seconds over the whole run, resumed parts included.

    Only what the policy sampled counts as generated: forced tokens cost no decoding step of their own. The clock runs
    from construction; a checkpoint carries the seconds so far.
    """

    def __init__(self, ceilings: CeilingsConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ceilings = ceilings
        self._clock = clock
        self._started = clock()
        self._seconds_before = 0.0
        self._tokens: dict[str, int] = {}
        self._judge_calls = 0

    @property
    def generated_tokens(self) -> int:
        return sum(self._tokens.values())

    @property
    def judge_calls(self) -> int:
        return self._judge_calls

    @property
    def seconds(self) -> float:
        return self._seconds_before + self._clock() - self._started

    def charge_generated(self, group: Group) -> None:
        """Book the sampled tokens of a group, of whatever purpose, under its effort."""
        effort = group.job.budget.effort
        sampled = sum(int(np.count_nonzero(trajectory.sampled)) for trajectory in group.trajectories)
        self._tokens[effort] = self._tokens.get(effort, 0) + sampled

    def charge_judged(self, num_calls: int) -> None:
        """Book attempts handed to the verifier."""
        if num_calls < 0:
            raise ValueError(f"num_calls must not be negative, got {num_calls}")
        self._judge_calls += num_calls

    def breach(self) -> Breach | None:
        """The first ceiling reached, or None while the run may go on."""
        spent: tuple[tuple[str, float, float | None], ...] = (
            ("max_generated_tokens", self.generated_tokens, self._ceilings.max_generated_tokens),
            ("max_judge_calls", self._judge_calls, self._ceilings.max_judge_calls),
            ("max_seconds", self.seconds, self._ceilings.max_seconds),
        )
        for name, amount, ceiling in spent:
            if ceiling is not None and amount >= ceiling:
                return Breach(name=name, ceiling=ceiling, spent=amount)
        return None

    def metrics(self) -> list[Metric]:
        totals = {
            **{f"ledger/generated_tokens/{effort}": float(count) for effort, count in sorted(self._tokens.items())},
            "ledger/judge_calls": float(self._judge_calls),
            "ledger/seconds": self.seconds,
        }
        return [Metric(name=name, value=value, reduce="last") for name, value in totals.items()]

    def state_dict(self) -> Mapping[str, Any]:
        return {"tokens": dict(self._tokens), "judge_calls": self._judge_calls, "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what an interrupted run had spent when it saved `state`; the clock goes on from there."""
        self._tokens = {str(effort): int(count) for effort, count in state["tokens"].items()}
        self._judge_calls = int(state["judge_calls"])
        self._seconds_before, self._started = float(state["seconds"]), self._clock()
