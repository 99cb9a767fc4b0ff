"""AdaptThink's bonus: answer without thinking wherever that is as right.

    no_thinking_i = delta   if the attempt answers and has no token of thinking, else 0

Source: AdaptThink (arXiv 2505.13417), A = delta * 1[no thinking] + c - p_ref, delta = 0.05. There p_ref is the success
rate of a frozen model on the task, half of the attempts are made to start without thinking, and there is no group
baseline. RECONSTRUCTION: the bonus alone. The baseline is the one that `[credit]` computes (`dr_grpo` divides by no
deviation, as the paper), and whether to think is left to the policy.

Assumption: the policy sometimes does not think, otherwise the bonus is never seen; a cold start with tasks of both
kinds sees to that. What it is not: safe at any size. delta is the accuracy that may be given up for not thinking.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import AdaptThinkConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import Group


class AdaptThink(GroupShaper):
    """The shaper: component `no_thinking`."""

    name = "adapt_think"

    def __init__(self, config: AdaptThinkConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        answers = np.array([t.answer is not None for t in group.trajectories])
        return {"no_thinking": np.where(answers & (siblings.thinking == 0), self._config.delta, 0.0)}
