"""Leave-one-out advantage (RLOO).

Formula: A_i = r_i - mean_{j != i} r_j = J / (J - 1) * (r_i - mean(r)), over the J judged siblings.
Source: "Back to Basics", arXiv 2402.14740.
Assumption: siblings are independent samples for one prompt. The baseline of i does not contain r_i, so the expected
gradient is that of the mean reward, exactly and for every group size.
What it is not: smaller in variance than `dr_grpo`; the two differ by the constant J / (J - 1) and so, within one group
size, by the learning rate alone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def rloo_advantages(rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Advantages [G] of rewards [G]. NaN marks an unjudged sibling: it is nobody's baseline and stays NaN.

    A single judged sibling has nothing to be compared with and gets 0.
    """
    num_judged = int((~np.isnan(rewards)).sum())
    if num_judged < 2:
        return rewards * 0.0
    return (rewards - np.nanmean(rewards)) * (num_judged / (num_judged - 1))
