"""REINFORCE with a trust region measured in probability, not in ratios.

    p = exp(learner_t), q = exp(anchor_t)
    distance  tv: |p - q|      kl: q log(q / p) + (1 - q) log((1 - q) / (1 - p))
    l_t = -detach(min(p / q, max_ratio)) A_t learner_t,
    but 0 where A_t > 0, p > q and distance > clip_high, and where A_t < 0, p < q and distance > clip_low

Source: DPPO (Qi et al. 2026, arXiv 2602.04879). Assumption: a ratio of 2 on a token of probability .01 is noise and on
one of .4 it is a change of policy; only the second should stop. What it is not: a bound on the whole distribution: it
sees the sampled token against all others.
"""

from __future__ import annotations

import torch

from rl.losses.config import Dppo
from rl.losses.contract import TokenLoss, Tokens

SMALLEST = 1e-7  # of a probability and its complement inside a logarithm


def dppo(config: Dppo, tokens: Tokens) -> TokenLoss:
    """[K] weighted log-likelihood losses, zero outside the trust region."""
    learner, advantages = tokens.learner.detach(), tokens.advantages
    p, q = learner.exp(), tokens.anchor.exp()
    distance = (p - q).abs() if config.divergence == "tv" else _binary_kl(q, p)
    is_too_high = (advantages > 0) & (p > q) & (distance > config.clip_high)
    is_too_low = (advantages < 0) & (p < q) & (distance > config.clip_low)
    weight = tokens.log_ratio.detach().exp().clamp(max=config.max_ratio)
    weight = torch.where(is_too_high | is_too_low, 0.0, weight)
    return TokenLoss(
        values=-weight * advantages * tokens.learner,
        sums={"loss/clip_low": is_too_low.sum(), "loss/clip_high": is_too_high.sum()},
    )


def _binary_kl(q: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    q, p = (x.clamp(SMALLEST, 1.0 - SMALLEST) for x in (q, p))
    return q * (q / p).log() + (1.0 - q) * ((1.0 - q) / (1.0 - p)).log()
