"""ThinkDial's length and leak terms: what an effort's length costs, within one (task, effort) group.

For attempt i of a group with lengths len (tokens after the prompt, thinking and answer together) and effort m

    lambda_i = 0.5 - (len_i - min len) / (max len - min len)        in [-0.5, 0.5]; 0 when all lengths are equal
    length_i = alpha(m) * (lambda_i if correct else min(0, lambda_i))
    leak_i   = +leak if the thinking was closed and the answer holds no keyword, else -leak

and the driver adds both to the outcome score. Source: ThinkDial (arXiv 2508.18773), reward of its second phase, with
leak = 0.5 and alpha = 0 / 0.5 / 1 for high / medium / low. The paper leaves two cases open; here equal lengths give
lambda = 0 and unclosed thinking counts as a leak.

`rank_safe` is ours, not the paper's, and the default: with the paper's numbers a correct but leaky long answer can
score below a wrong clean one. It counts the leak term, halved, only where the attempt is correct, so that correct
always outranks wrong.

Assumptions: all attempts of a group ran under one budget. An attempt without a verdict gets 0 and neither its length
nor its text touches its siblings. What this is not: standardized advantages cancel alpha in a group whose attempts are
all correct and leak nothing; use mean-only advantages where the efforts must press differently there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from budgets.shaping.config import ThinkDialConfig
from budgets.shaping.kimi import length_term
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import BoolArray, Group


class ThinkDial(GroupShaper):
    """The shaper: components `length` and, unless its size is 0, `leak`."""

    name = "thinkdial"

    def __init__(self, config: ThinkDialConfig) -> None:
        super().__init__(config)
        self._config = config
        self._pattern = keyword_pattern(config.keywords)

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        """Raises ValueError for an effort without alpha."""
        config, effort = self._config, group.job.budget.effort
        if effort not in config.alpha:
            raise ValueError(
                f"budgets.shaping.alpha has no weight for effort {effort!r}, only for {sorted(config.alpha)}; add it"
            )
        length = config.alpha[effort] * length_term(siblings.lengths, siblings.correct, siblings.judged)
        if config.leak == 0:
            return {"length": length}
        leaky = np.array([self._leaks(t.answer is not None, t.answer_text) for t in group.trajectories])
        return {"length": length, "leak": self._leak_term(leaky, siblings.correct)}

    def _leaks(self, is_closed: bool, answer: str) -> bool:
        return not is_closed or self._pattern.search(answer) is not None

    def _leak_term(self, leaky: BoolArray, correct: BoolArray) -> FloatArray:
        term = np.where(leaky, -self._config.leak, self._config.leak)
        return np.where(correct, term / 2, 0.0) if self._config.rank_safe else term


def keyword_pattern(keywords: Sequence[str]) -> re.Pattern[str]:
    """Matches any keyword as whole words in any case: `wait` matches in `Wait,` and not in `waiter`."""
    spelled = (r"\s+".join(map(re.escape, keyword.split())) for keyword in keywords)
    return re.compile(r"(?<!\w)(?:" + "|".join(spelled) + r")(?!\w)", re.IGNORECASE)
