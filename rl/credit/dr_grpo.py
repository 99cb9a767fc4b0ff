"""Group-relative advantage without scaling (Dr. GRPO).

Formula: A_i = r_i - mean(r) over the judged siblings.
Source: "Understanding R1-Zero-Like Training", arXiv 2503.20783.
Assumption: rewards of all tasks are on one scale. With success rate p the mean |A| is 2p(1-p), as in the policy
gradient of the mean reward up to the factor (G - 1) / G.
What it is not: the whole of Dr. GRPO. Its second half, dividing the loss by a constant length instead of each
response's own, belongs to the loss.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def dr_grpo_advantages(rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Advantages [G] of rewards [G]. NaN marks an unjudged sibling: it leaves the mean and stays NaN."""
    if np.isnan(rewards).all():
        return rewards
    return rewards - np.nanmean(rewards)
