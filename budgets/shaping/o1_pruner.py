"""O1-Pruner's weight as a reward: shorter than usual for this task, and right more often than usual.

With mean length M and success rate p of the group

    w_i = clip((M - len_i) / len_i + alpha * (c_i - p), lowest, highest)

Source: O1-Pruner (arXiv 2501.12570), weight of its released code with alpha = 5 and bounds -2 and 4. There M and p come
from samples of a frozen model, and w weighs a supervised loss. RECONSTRUCTION: here M and p are the group's own, and w
is the reward of on-policy training. The component is w minus the outcome score, so that their sum is w.

`rank_safe`, ours and the default, gives a wrong attempt no reward for being short.
Assumption: a group large enough for M and p to mean something. What it is not: symmetric. Half the mean length earns
1, twice the mean length costs 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import O1PrunerConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import BoolArray, Group


class O1Pruner(GroupShaper):
    """The shaper: component `o1_pruner`."""

    name = "o1_pruner"

    def __init__(self, config: O1PrunerConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        config, judged = self._config, siblings.judged
        if not judged.any():
            return {"o1_pruner": np.zeros(len(judged))}
        weight = weights(
            siblings.lengths,
            siblings.correct,
            mean_length=float(siblings.lengths[judged].mean()),
            success=float(siblings.correct[judged].mean()),
            alpha=config.alpha,
            rank_safe=config.rank_safe,
        )
        return {"o1_pruner": np.clip(weight, config.lowest, config.highest) - siblings.scores}


def weights(
    lengths: FloatArray, correct: BoolArray, *, mean_length: float, success: float, alpha: float, rank_safe: bool
) -> FloatArray:
    """w before clipping, [G]. A response without a token counts as one of one token."""
    shorter = mean_length / np.maximum(lengths, 1.0) - 1.0
    if rank_safe:
        shorter = np.where(correct, shorter, np.minimum(shorter, 0.0))
    return shorter + alpha * (correct - success)
