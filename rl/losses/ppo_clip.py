"""The clipped token-level policy loss.

    r_t = exp(learner_t - anchor_t)
    l_t = max(-r_t A_t, -clip(r_t, 1 - clip_low, 1 + clip_high) A_t)
    l_t = min(l_t, -dual_clip A_t)   where A_t < 0, if dual_clip is set

Sources: PPO (Schulman et al. 2017, arXiv 1707.06347); dual clip from Ye et al. 2019 (arXiv 1912.09729). DAPO
(arXiv 2503.14476) is this loss with its two bounds and the token mean; Dr. GRPO (arXiv 2503.20783) is this loss with
the constant-length average and advantages that are not divided by their deviation.

Assumption: tokens were drawn from (nearly) the anchor's distribution. The first optimizer step of a batch then has
r = 1 and the plain policy gradient, -A grad log pi; clipping only bounds the later steps.

What it is not: a trust region. Clipping cuts the gradient of a token that has gone too far, and pulls nothing back.
"""

from __future__ import annotations

import torch

from rl.losses.config import PpoClip
from rl.losses.contract import TokenLoss, Tokens


def ppo_clip(config: PpoClip, tokens: Tokens) -> TokenLoss:
    """[K] clipped losses; counts of tokens whose gradient is cut."""
    ratio = tokens.log_ratio.exp()
    values = clipped(ratio, tokens.advantages, config.clip_low, config.clip_high)
    sums = clip_counts(ratio, tokens.advantages, config.clip_low, config.clip_high)
    if config.dual_clip is not None:
        is_bad = tokens.advantages < 0
        values = torch.where(is_bad, torch.minimum(values, -config.dual_clip * tokens.advantages), values)
        sums["loss/dual_clip"] = ((ratio.detach() > config.dual_clip) & is_bad).sum()
    return TokenLoss(values=values, sums=sums)


def clipped(ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """PPO's pessimistic choice between the ratio and the clipped ratio."""
    return torch.maximum(-ratio * advantages, -ratio.clamp(1.0 - low, 1.0 + high) * advantages)


def clip_counts(ratio: torch.Tensor, advantages: torch.Tensor, low: float, high: float) -> dict[str, torch.Tensor]:
    """How many gradients the two bounds cut."""
    ratio = ratio.detach()
    return {
        "loss/clip_low": ((ratio < 1.0 - low) & (advantages < 0)).sum(),
        "loss/clip_high": ((ratio > 1.0 + high) & (advantages > 0)).sum(),
    }
