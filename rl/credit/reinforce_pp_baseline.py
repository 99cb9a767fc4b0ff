"""Group-relative advantage, whitened over the tokens of the batch (REINFORCE++-baseline).

Formula: a_i = r_i - mean_g(r), put on every loss token of i; then whitened over all loss tokens of the batch.
Source: REINFORCE++, arXiv 2501.03262, the variant with a group baseline.
Assumption: rewards of all tasks are on one scale. The scale is one number for the batch, as in `batch_scaled`, but
counted in tokens, so long answers have more say in it.
What it is not: zero where a group is. Whitening re-centres over tokens: a group of equal rewards gets the negative of
the batch's mean, small but not 0. Drop such groups beforehand (sampling.judge_on = "outcome") and it does not arise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.dr_grpo import dr_grpo_advantages
from rl.credit.whitening import whitening

FloatArray = npt.NDArray[np.float64]


def reinforce_pp_baseline_advantages(
    rewards: Sequence[FloatArray], lengths: Sequence[npt.NDArray[np.int64]]
) -> list[FloatArray]:
    """Per group, advantages [G] of rewards [G] and loss tokens [G]. NaN marks an unjudged sibling: it leaves the
    baseline and the whitening, and stays NaN."""
    if not rewards:
        return []
    centered = [dr_grpo_advantages(r) for r in rewards]
    mean, divisor = whitening(np.concatenate(centered), np.concatenate(lengths))
    return [(a - mean) / divisor for a in centered]
