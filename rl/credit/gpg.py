"""Group-relative advantage, corrected for attempts without signal (GPG).

Formula: A_gi = (B / #nonzero) * (r_gi - mean_g(r)), B the judged attempts of the batch and #nonzero those of them whose
reward differs from the mean of their group.
Source: "GPG: A Simple and Strong Reinforcement Learning Baseline", arXiv 2504.02546, without its optional f_norm.
Assumption: the loss is averaged over the batch, so groups without variance dilute it; the factor undoes that.
What it is not: another direction than `dr_grpo`. It is one factor a batch, and with groups without variance dropped
beforehand (sampling.judge_on = "outcome") it is 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.dr_grpo import dr_grpo_advantages

FloatArray = npt.NDArray[np.float64]

SMALLEST_SIGNAL = 1e-9
"""Distance from the group's mean up to which a reward is equal to it: rounding of the mean, not signal."""


def gpg_advantages(rewards: Sequence[FloatArray]) -> list[FloatArray]:
    """Per group, advantages [G] of rewards [G]. NaN marks an unjudged sibling: it counts nowhere and stays NaN."""
    centered = [dr_grpo_advantages(r) for r in rewards]
    num_judged = sum(int((~np.isnan(a)).sum()) for a in centered)
    num_nonzero = sum(int((np.abs(a) > SMALLEST_SIGNAL).sum()) for a in centered)
    return [a * (num_judged / max(1, num_nonzero)) for a in centered]
