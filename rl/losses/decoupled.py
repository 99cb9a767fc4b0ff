"""Decoupled PPO: the policy that clipping is centred on is not the one that drew the tokens.

    w_t = detach(anchor_t / sampler_t), at most max_weight
    r_t = exp(learner_t - anchor_t)
    l_t = w_t max(-r_t A_t, -clip(r_t, 1 - clip_low, 1 + clip_high) A_t)

Sources: Hilton et al. 2021 (arXiv 2110.00641); asynchronous use in AReaL (arXiv 2505.24298).

Assumption: tokens may be several batches old. The learner's log-probabilities before the batch are the proximal policy
that bounds the update, the sampler's are the behaviour policy that the weight corrects for.

What it is not: ppo_clip with anchor = "sampler", whose bounds an old token has already left before the first update.
With sampler = anchor the two are the same.
"""

from __future__ import annotations

from rl.losses.config import Decoupled
from rl.losses.contract import MAX_LOG_RATIO, TokenLoss, Tokens
from rl.losses.ppo_clip import clip_counts, clipped


def decoupled(config: Decoupled, tokens: Tokens) -> TokenLoss:
    """[K] weighted clipped losses."""
    ratio = tokens.log_ratio.exp()
    weight = (tokens.anchor - tokens.sampler).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if config.max_weight is not None:
        weight = weight.clamp(max=config.max_weight)
    values = weight * clipped(ratio, tokens.advantages, config.clip_low, config.clip_high)
    return TokenLoss(values=values, sums=clip_counts(ratio, tokens.advantages, config.clip_low, config.clip_high))
