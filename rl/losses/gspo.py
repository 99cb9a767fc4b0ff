"""Group sequence policy optimization: one ratio a sequence.

    s_i  = exp(mean_t (learner_it - anchor_it))
    l_i  = max(-s_i A_i, -clip(s_i, 1 - clip_low, 1 + clip_high) A_i)
    token = true:  s_it = detach(s_i) * p_it / detach(p_it), in the place of s_i, with A_it

Source: Zheng et al. 2025 (arXiv 2507.18071). With sequence_mean it is the published loss; a sum over tokens in its
place (dr_grpo) gives the length-weighted form.

Assumption: the reward belongs to the whole sequence. GSPO-token has the same value and gradient where advantages are
constant, and lets them differ. Bounds are about a thousand times tighter than those of a token ratio.

What it is not: importance sampling of the sequence. The geometric mean is not its likelihood ratio; `rloo` has that.
"""

from __future__ import annotations

from rl.losses.config import Gspo
from rl.losses.contract import TokenLoss, Tokens
from rl.losses.ppo_clip import clip_counts, clipped


def gspo(config: Gspo, tokens: Tokens) -> TokenLoss:
    """[K] the loss of the token's sequence, or with `token` the losses of the tokens."""
    log_ratio = tokens.spread(tokens.sequence_mean(tokens.log_ratio))
    if config.token:
        log_ratio = log_ratio.detach() + tokens.learner - tokens.learner.detach()
    ratio = log_ratio.exp()
    return TokenLoss(
        values=clipped(ratio, tokens.advantages, config.clip_low, config.clip_high),
        sums=clip_counts(ratio, tokens.advantages, config.clip_low, config.clip_high),
    )
