"""Reward over that of the greedy answer (ReMax).

Formula: A_i = r_i - r(greedy answer to the same prompt, under the same budget).
Source: "ReMax", arXiv 2310.10505.
Assumption: the greedy answer is a function of prompt and weights, not of the sampled siblings, so any value of it
leaves the expected gradient as it is; it lowers the variance as far as it is close to the mean reward.
What it is not: free. One attempt a group is generated and judged, and never trained on. Equal rewards are no reason to
drop a group: eight wrong answers below a right greedy one have an advantage of -1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def remax_advantages(rewards: npt.NDArray[np.float64], *, greedy: float) -> npt.NDArray[np.float64]:
    """Advantages [G] of rewards [G]. NaN marks an unjudged sibling and stays NaN; without a judged greedy answer there
    is no baseline and all become NaN."""
    return rewards - greedy
