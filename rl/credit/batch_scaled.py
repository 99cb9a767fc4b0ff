"""Group-relative advantage on the scale of the batch.

Formula: A_gi = (r_gi - mean_g(r)) / (s + epsilon), s the sample standard deviation (ddof = 1) of all judged rewards of
the batch.
Source: the group-mean, batch-deviation normalization of "Tricks or Traps?", arXiv 2508.08221.
Assumption: rewards of all tasks are on one scale. One divisor for all groups, so the weight of prompts is that of
`dr_grpo`, while the size of a step does not depend on the unit of the reward.
What it is not: a function of the group alone. The same group gets another advantage in another batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.dr_grpo import dr_grpo_advantages

FloatArray = npt.NDArray[np.float64]


def batch_scaled_advantages(rewards: Sequence[FloatArray], *, epsilon: float) -> list[FloatArray]:
    """Per group, advantages [G] of rewards [G]. NaN marks an unjudged sibling: it leaves both means and stays NaN.

    Fewer than two judged siblings in the whole batch have no deviation and get 0.
    """
    judged = np.concatenate([r[~np.isnan(r)] for r in rewards]) if rewards else np.zeros(0)
    deviation = float(judged.std(ddof=1)) if judged.size > 1 else 0.0
    return [dr_grpo_advantages(r) / (deviation + epsilon) for r in rewards]
