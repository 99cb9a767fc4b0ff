"""L1: as many tokens as the prompt names, exactly or at most.

For an attempt of n tokens (all after the prompt) whose prompt names N, and c = 1 if right, else 0

    exact   r = c - alpha * |N - n|
    max     r = c * clip(alpha * (N - n) + delta, 0, 1)

Source: L1 / LCPO (arXiv 2503.04697), alpha = 0.0003, delta = 0.5, N drawn uniformly from 100 to 4000 for each task. The
released code of the second has half the slope: alpha = 0.00015 is what it computes.

Assumption: the number is in the prompt; an effort with `numbers` or an instruction with {tokens} puts it there. What it
is not: a cap. Nothing is cut, and in the exact form a wrong answer is paid for its length too, so its margin between
right and wrong is 1 - alpha * (largest possible |N - n|), which the settings are checked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import L1ExactConfig, L1MaxConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings, named_number
from rollout.schema import Group


class L1Exact(GroupShaper):
    """The shaper: component `length`, minus alpha for each token off."""

    name = "l1_exact"

    def __init__(self, config: L1ExactConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        return {"length": -self._config.alpha * np.abs(named_number(group) - siblings.lengths)}


class L1Max(GroupShaper):
    """The shaper: component `length`, what the factor takes from a right attempt."""

    name = "l1_max"

    def __init__(self, config: L1MaxConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        factor = max_factor(siblings.lengths, named_number(group), self._config.alpha, self._config.delta)
        return {"length": np.where(siblings.correct, siblings.scores * (factor - 1.0), 0.0)}


def max_factor(lengths: FloatArray, number: int, alpha: float, delta: float) -> FloatArray:
    """Between 0 and 1, [G]."""
    return np.clip(alpha * (number - lengths) + delta, 0.0, 1.0)
