"""The clipped ratio of the whole sequence, as REINFORCE leave-one-out uses it.

    R_i = exp(sum_t (learner_it - anchor_it))
    l_i = max(-R_i A_i, -clip(R_i, 1 - clip_low, 1 + clip_high) A_i)

Source: Ahmadian et al. 2024 (arXiv 2402.14740), with the sequence-level clip of later implementations.

Assumption: a response is one action with one advantage. The sum grows with the length, so long responses leave the
bounds after small updates; it suits short ones and one update a batch.

What it is not: the leave-one-out baseline, which is credit. With sequence_mean, a sequence's gradient is A_i times the
sum of grad log p over its tokens: longer sequences push more, unlike a mean over tokens.
"""

from __future__ import annotations

from rl.losses.config import Rloo
from rl.losses.contract import MAX_LOG_RATIO, TokenLoss, Tokens
from rl.losses.ppo_clip import clip_counts, clipped


def rloo(config: Rloo, tokens: Tokens) -> TokenLoss:
    """[K] the loss of the token's sequence."""
    total = tokens.sequence_sum(tokens.learner - tokens.anchor).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = tokens.spread(total.exp())
    return TokenLoss(
        values=clipped(ratio, tokens.advantages, config.clip_low, config.clip_high),
        sums=clip_counts(ratio, tokens.advantages, config.clip_low, config.clip_high),
    )
