"""DAPO's soft penalty on overlong answers: a slope before the limit instead of a cliff at it.

For an answer of n tokens (all after the prompt, thinking included), limit L and buffer B

    overlong = 0                 for n <= L - B
               (L - B - n) / B   inside the buffer, falling from 0 to -1
               -1                for n > L

times `factor`, and the driver adds it to the outcome score. Source: DAPO (arXiv 2503.14476), section 3.4, there with
L = 20480, B = 4096 and factor 1. L is `max_tokens`, or by default what the effort's budget allows.

Assumption: an answer near its limit is about to be cut, and a cut answer is wrong whatever was in it; the slope says so
before it happens. An attempt without a verdict gets 0. What this is not: a wish for short answers. Below L - B length
costs nothing, and it does not depend on the siblings.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import OverlongConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import Group, TokenBudget


class Overlong(GroupShaper):
    """The shaper: component `overlong`."""

    name = "overlong"

    def __init__(self, config: OverlongConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        limit = self._config.max_tokens or budget_tokens(group.job.budget)
        penalty = overlong_penalty(siblings.lengths, limit=limit, buffer=self._config.buffer_tokens)
        return {"overlong": self._config.factor * penalty}


def overlong_penalty(lengths: FloatArray, *, limit: int, buffer: int) -> FloatArray:
    """Between -1 and 0, [G], for answers of `lengths` tokens [G]."""
    return np.clip((limit - buffer - lengths) / buffer, -1.0, 0.0)


def budget_tokens(budget: TokenBudget) -> int:
    """Tokens of the longest answer that a budget allows, the forced end of its thinking not counted."""
    return (budget.max_thinking_tokens or 0) + budget.max_answer_tokens
