"""The clipped token-level policy loss.

    r_t = exp(learner_t - anchor_t)
    l_t = max(-r_t A_t, -clip(r_t, 1 - clip_low, 1 + clip_high) A_t)
    l_t = min(l_t, -dual_clip A_t)   where A_t < 0, if dual_clip is set
    L   = (1 / normalizer) * sum_t m_t weight_t l_t

Sources: PPO (Schulman et al. 2017, arXiv 1707.06347); separate bounds and the token mean from DAPO (arXiv 2503.14476);
dual clip from Ye et al. 2019 (arXiv 1912.09729); the constant-length normalizer from Dr. GRPO (arXiv 2503.20783).

Assumption: tokens were drawn from (nearly) the anchor's distribution. The first optimizer step of a batch then has
r = 1 and the plain policy gradient, -A grad log pi; clipping only bounds the later steps.

What it is not: it has no KL penalty, no entropy bonus and no correction for the difference between sampler and anchor.
That difference is measured (`mismatch/*`), not repaired: a small lag and matching numerics keep it near zero.
"""

from __future__ import annotations

import torch

from rl.losses.config import PpoClip
from rl.losses.contract import LossInputs, LossOutput

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8 keeps float32 products finite; clipping has cut the gradient long before


def ppo_clip(config: PpoClip, inputs: LossInputs) -> LossOutput:
    """Summed loss of one micro-batch and its metric sums. Masked tokens have no effect, whatever they hold."""
    zero = inputs.advantages.new_zeros(())
    # Masked values are replaced before any arithmetic: NaN * 0 is NaN, in the backward pass too.
    learner = torch.where(inputs.mask, inputs.learner_logprobs, zero)
    anchor = torch.where(inputs.mask, inputs.anchor_logprobs, zero)
    sampler = torch.where(inputs.mask, inputs.sampler_logprobs, zero)
    advantages = torch.where(inputs.mask, inputs.advantages, zero)
    weights = torch.where(inputs.mask, inputs.weights, zero)

    log_ratio = (learner - anchor.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1.0 - config.clip_low, 1.0 + config.clip_high)
    loss = torch.maximum(-ratio * advantages, -clipped * advantages)
    if config.dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -config.dual_clip * advantages), loss)
    loss = (loss * weights).sum() / inputs.normalizer

    with torch.no_grad():
        mismatch = anchor - sampler
        sums = {
            "loss/clip_low": ((ratio < 1.0 - config.clip_low) & (advantages < 0)).sum(),
            "loss/clip_high": ((ratio > 1.0 + config.clip_high) & (advantages > 0)).sum(),
            "loss/update_k3": torch.expm1(log_ratio).sub(log_ratio).sum(),
            "mismatch/k1": -mismatch.sum(),
            "mismatch/k3": torch.expm1(mismatch.clamp(max=MAX_LOG_RATIO)).sub(mismatch).sum(),
        }
        if config.dual_clip is not None:
            sums["loss/dual_clip"] = ((ratio > config.dual_clip) & (advantages < 0)).sum()
        return LossOutput(loss=loss, sums=sums, maxima={"mismatch/max_abs": mismatch.abs().amax()})
