"""Group-relative advantage with unit variance (GRPO).

Formula: A_i = (r_i - mean(r)) / (s + epsilon), s the *sample* standard deviation of the judged rewards (ddof = 1, as
all widely used trainers have it; the paper is usually read as ddof = 0).
Source: DeepSeekMath, arXiv 2402.03300, section 4.1.2 (outcome supervision).
Assumption: siblings are independent samples for one prompt, so their mean is a baseline. It contains r_i itself, which
scales the expected gradient by (G - 1) / G.
What it is not: unbiased in the weight of prompts. With success rate p the mean |A| goes as sqrt(p(1-p)), so very easy
and very hard prompts weigh more than in the gradient of the mean reward; `dr_grpo` leaves the division out.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def grpo_advantages(rewards: npt.NDArray[np.float64], *, epsilon: float) -> npt.NDArray[np.float64]:
    """Advantages [G] of rewards [G]. NaN marks an unjudged sibling: it leaves mean and deviation and stays NaN.

    A single judged sibling has nothing to be compared with and gets 0.
    """
    judged = rewards[~np.isnan(rewards)]
    if judged.size < 2:
        return rewards * 0.0
    mean = judged.sum() / judged.size
    deviation = math.sqrt(float(((judged - mean) ** 2).sum()) / (judged.size - 1))
    advantages: npt.NDArray[np.float64] = (rewards - mean) / (deviation + epsilon)
    return advantages
