"""Drop groups that carry no training signal.

Rule (DAPO's dynamic sampling, arXiv 2503.14476): a group trains iff it holds both right and wrong answers, 0 < #right
< #judged. A group-relative advantage is zero otherwise, so such a group would only dilute the step's token average.
Assumption: what may train is decided on right and wrong, not on shaped reward; with a length term nearly every
all-wrong group "varies", and would train on length alone. `judge_on = "final_reward"` is for algorithms whose signal
inside all-right groups is the shaping term itself (ThinkDial's length reward). `judge_on = "off"` keeps only the rule
below. Siblings that could not be judged do not count; below `min_judged` of the rest there is no baseline worth the
name.
What it is not: a sampler. It sees finished groups only and saves no generation.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from rl.config import SamplingConfig
from rl.ports import State
from rl.verdict import final_rewards, is_correct
from rollout.schema import Metric, ScoredGroup

SMALLEST_SPREAD = 1e-6
"""Differences of final reward up to this size are float32 rounding, not signal."""


class SignalGate:
    """Implements `rl.ports.Gate`. A greedy attempt that was asked for as the baseline must be judged, whatever the
    rule."""

    def __init__(self, config: SamplingConfig) -> None:
        self._config = config
        self._reasons: Counter[str] = Counter()  # over the run; "" counts admitted groups

    def reject(self, scored: ScoredGroup) -> str | None:
        if scored.greedy is not None and is_correct(scored.greedy.outcomes[0]) is None:
            return "baseline_unjudged"
        verdicts = [v for v in map(is_correct, scored.outcomes) if v is not None]
        if len(verdicts) < self._config.min_judged:
            return "too_few_judged"
        if self._config.judge_on == "outcome" and len(set(verdicts)) == 1:
            return "all_right" if verdicts[0] else "all_wrong"
        if self._config.judge_on == "final_reward":
            rewards = final_rewards(scored)
            if np.nanmax(rewards) - np.nanmin(rewards) <= SMALLEST_SPREAD:
                return "equal_rewards"
        return None

    def observe(self, scored: ScoredGroup, reason: str | None) -> None:
        self._reasons[reason or ""] += 1

    def state_dict(self) -> State:
        return {"reasons": dict(self._reasons)}

    def load_state_dict(self, state: State) -> None:
        self._reasons = Counter(state["reasons"])

    def metrics(self) -> list[Metric]:
        total = max(1, self._reasons.total())
        return [Metric(name="gate/admitted_so_far", value=self._reasons[""] / total, reduce="last")]
