"""Length-weighted baseline (OPO).

Formula: A_i = r_i - sum_j(n_j * r_j) / sum_j(n_j) over the judged siblings, n_j the loss tokens of sibling j.
Source: "On-Policy RL with Optimal Reward Baseline", arXiv 2505.23585.
Assumption: the squared gradient norm of a response grows in proportion to its length. The baseline that minimizes the
variance weighs rewards by that norm.
What it is not: centred. With unequal lengths the advantages of a group do not add up to 0 (times their lengths they
do), and as in `dr_grpo` the baseline contains r_i itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def opo_advantages(rewards: npt.NDArray[np.float64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Advantages [G] of rewards [G] and loss tokens [G]. NaN marks an unjudged sibling: it leaves the baseline and
    stays NaN. A group without a loss token has nothing to train on and gets 0."""
    judged = ~np.isnan(rewards)
    total = int(lengths[judged].sum())
    if total == 0:
        return rewards * 0.0
    return rewards - float((lengths[judged] * rewards[judged]).sum()) / total
