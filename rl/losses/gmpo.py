"""Geometric-mean policy optimization.

    d_it = learner_it - anchor_it
    c_it = sgn(A_i) min(sgn(A_i) d_it, sgn(A_i) clip(d_it, -log_clip, log_clip))
    l_i  = -A_i exp(mean_t c_it)

Source: Zhao et al. 2025 (arXiv 2507.20673). `log_clip` = 0.4 is the ratio range (0.670, 1.492), far wider than PPO's,
which the geometric mean can afford: one outlier moves it by a root of the length.

Assumption: one advantage a sequence. What it is not: GSPO with a wider bound; GSPO clips the mean, this clips each
token in the direction of its advantage before the mean.
"""

from __future__ import annotations

import torch

from rl.losses.config import Gmpo
from rl.losses.contract import TokenLoss, Tokens


def gmpo(config: Gmpo, tokens: Tokens) -> TokenLoss:
    """[K] the loss of the token's sequence."""
    log_ratio, is_good = tokens.log_ratio, tokens.advantages > 0
    bound = config.log_clip
    one_sided = torch.where(is_good, log_ratio.clamp(max=bound), log_ratio.clamp(min=-bound))
    ratio = tokens.spread(tokens.sequence_mean(one_sided)).exp()
    return TokenLoss(
        values=-tokens.advantages * ratio,
        sums={
            "loss/clip_low": ((log_ratio.detach() < -bound) & (tokens.advantages < 0)).sum(),
            "loss/clip_high": ((log_ratio.detach() > bound) & is_good).sum(),
        },
    )
