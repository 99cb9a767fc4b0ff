"""Tapered off-policy REINFORCE.

    w_i = 1                                           where A_i > 0
    w_i = detach(min(learner(y_i) / sampler(y_i), 1)) where A_i < 0
    l_it = -w_i A_i learner_it

`ratio` = product takes the likelihood ratio of the sequence, geometric its root by the length.

Source: Le Roux et al. 2025 (arXiv 2503.14286). Assumption: the sign of the advantage says good or bad, so the reward
should be centred. Good sequences are learned at full weight however old; bad ones fade as they become unlikely.

What it is not: unbiased. The tapering is what keeps it stable off-policy. Its ratio is to the sampler, so it takes no
anchor and no correction.
"""

from __future__ import annotations

import torch

from rl.losses.config import Topr
from rl.losses.contract import MAX_LOG_RATIO, TokenLoss, Tokens


def topr(config: Topr, tokens: Tokens) -> TokenLoss:
    """[K] weighted log-likelihood losses."""
    log_ratio = (tokens.learner - tokens.sampler).detach()
    combine = tokens.sequence_sum if config.ratio == "product" else tokens.sequence_mean
    taper = tokens.spread(combine(log_ratio).clamp(-MAX_LOG_RATIO, 0.0).exp())
    weight = torch.where(tokens.advantages > 0, torch.ones_like(taper), taper)
    return TokenLoss(
        values=-weight * tokens.advantages * tokens.learner,
        sums={"loss/taper": torch.where(tokens.advantages < 0, 1.0 - taper, 0.0).sum()},
    )
