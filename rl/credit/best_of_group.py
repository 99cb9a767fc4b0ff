"""Credit for the best of the group alone (pass@k).

Formula: A_i = (r_i - second largest r) / (s + epsilon) for the sibling with the largest reward, 0 for all others;
s is the sample standard deviation of the judged rewards (ddof = 1).
Source: the leave-one-out gradient of max(r_1..r_G), "Optimizing Language Models for Inference Time Objectives",
arXiv 2503.19595, with the group's deviation as its scale.
Assumption: the model will be used by drawing G answers and keeping the best. The second best is what the group would
have been worth without the best, so the gradient is that of the expected maximum, up to the scale.
What it is not: a signal from groups with two right answers. With rewards of 0 and 1 only a lone right answer is
credited, nothing is ever pushed down, and pass@1 may fall.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def best_of_group_advantages(rewards: npt.NDArray[np.float64], *, epsilon: float) -> npt.NDArray[np.float64]:
    """Advantages [G] of rewards [G]. NaN marks an unjudged sibling: it is neither first nor second and stays NaN.

    A single judged sibling, or a tie for the best, is credited with 0.
    """
    advantages = rewards * 0.0
    judged = np.flatnonzero(~np.isnan(rewards))
    if judged.size < 2:
        return advantages
    second, best = judged[np.argsort(rewards[judged])[-2:]]
    deviation = float(np.nanstd(rewards, ddof=1))
    advantages[best] = (rewards[best] - rewards[second]) / (deviation + epsilon)
    return advantages
