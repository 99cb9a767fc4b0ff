"""REINFORCE with a capped importance weight.

    l_t = -detach(clip(exp(learner_t - anchor_t), min_ratio, max_ratio)) * A_t * learner_t

Source: MiniMax-M1 (arXiv 2506.13585). `max_ratio` is the cap itself; other systems write its distance from 1.

Assumption: a rare token that became likely is worth learning from, at a bounded weight. Every token keeps its gradient,
where ppo_clip gives none to a token beyond the bound.

What it is not: a loss whose value means something. It grows with -log p; only its gradient is meant.
"""

from __future__ import annotations

from rl.losses.config import Cispo
from rl.losses.contract import TokenLoss, Tokens


def cispo(config: Cispo, tokens: Tokens) -> TokenLoss:
    """[K] weighted log-likelihood losses."""
    ratio = tokens.log_ratio.detach().exp()
    weight = ratio.clamp(config.min_ratio, config.max_ratio)
    return TokenLoss(
        values=-weight * tokens.advantages * tokens.learner,
        sums={"loss/clip_low": (ratio < config.min_ratio).sum(), "loss/clip_high": (ratio > config.max_ratio).sum()},
    )
