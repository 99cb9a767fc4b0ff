"""Two wordings of one step that mean the same must score the same.

    tie(d) = -1/2 [ log sigma(d) + log sigma(-d) ]         d: difference of the two log-odds;  least at d = 0, log 2

Source: Crome (arXiv 2506.16507), weight 1 beside a log-sigmoid loss of pairs that differ in quality; there the pairs
are answers to a question that they do not belong to. Here, a reconstruction for steps, a tie is a step and its neutral
copy (`prm/label/augment.py`), and the copy keeps its label, too: labels say where the score should be, ties that
wording moves it nowhere.
Assumption: the copy means the same. What it is not: a regularizer towards one half; d is the difference alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def tie_losses(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """[K] losses of log-odds that should be equal."""
    difference = first - second
    return 0.5 * (F.softplus(difference) + F.softplus(-difference))
