"""Soft adaptive policy optimization: a sigmoid gate instead of a clip.

    r_t = exp(learner_t - anchor_t),   tau = tau_positive if A_t > 0 else tau_negative
    l_t = -(4 / tau) sigmoid(tau (r_t - 1)) A_t

Source: Gao et al. 2025 (arXiv 2511.20347). The gradient weight 4 s (1 - s) r is 1 at r = 1 and falls off on both sides.

Assumption: a token far from the anchor still says something, less the further it is. What it is not: bounded pressure
by clipping; there is no ratio beyond which a gradient is exactly zero.
"""

from __future__ import annotations

import torch

from rl.losses.config import Sapo
from rl.losses.contract import TokenLoss, Tokens


def sapo(config: Sapo, tokens: Tokens) -> TokenLoss:
    """[K] gated losses."""
    positive = torch.full_like(tokens.advantages, config.tau_positive)
    tau = torch.where(tokens.advantages > 0, positive, config.tau_negative)
    gate = torch.sigmoid(tau * (tokens.log_ratio.exp() - 1.0)) * 4.0 / tau
    return TokenLoss(values=-gate * tokens.advantages)
