"""Fixed weights for right and wrong answers (W-REINFORCE; its ends are NSR and PSR).

Formula: A_i = +positive if answer i is right, -negative if it is wrong; no baseline.
    NSR          positive 0,   negative 1    only wrong answers teach
    PSR          positive 1,   negative 0    only right answers teach
    W-REINFORCE  positive 0.1, negative 1    the paper's lambda = 0.1
Source: "The Surprising Effectiveness of Negative Reinforcement", arXiv 2506.01347.
Assumption: right and wrong are all there is; shaping terms and KL penalties of the reward are not read. Pushing a wrong
answer down gives its probability to the alternatives in proportion to what they have, which keeps diversity (pass@k)
where positive weights sharpen.
What it is not: centred. A group of wrong answers alone has a gradient, so it must not be dropped; and long training on
negatives alone degrades the model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def w_reinforce_advantages(
    correct: npt.NDArray[np.float64], *, positive: float, negative: float
) -> npt.NDArray[np.float64]:
    """Advantages [G] of verdicts [G]: 1 right, 0 wrong. NaN marks an unjudged sibling and stays NaN."""
    return np.where(np.isnan(correct), np.nan, np.where(correct > 0, positive, -negative))
