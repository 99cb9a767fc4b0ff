"""Penalty on the distance from the reference model, as a term of the loss.

    d_t = learner_t - reference_t
    k1 = d    k2 = d^2 / 2    k3 = exp(-d) - 1 + d    unbiased: k3 exp(learner_t - anchor_t)

Sources: Schulman's note on approximating KL (2020); on the gradients, Tang and Munos 2025 (arXiv 2506.09477);
unbiased k3 from DeepSeek-V3.2 (arXiv 2512.02556).

Assumption: tokens were drawn from (nearly) the policy. Then as values k1 and k3 estimate KL(policy || reference). As
losses they do something else: the gradient of k1 is 0 in expectation (refused in the settings), that of k2 is exactly
the gradient of KL(policy || reference), that of k3 is the gradient of KL(reference || policy). Multiplied by the ratio,
k3 has the gradient of KL(policy || reference) too.

What it is not: the penalty in the reward. There only the value of k1 counts; credit subtracts it.
"""

from __future__ import annotations

import torch

from rl.losses.contract import MAX_LOG_RATIO, Tokens
from rl.losses.term_config import Kl


def kl_values(estimator: str, learner: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """[K] estimates of KL(learner || reference) at tokens drawn from the learner."""
    difference = (learner - reference).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    match estimator:
        case "k1":
            return difference
        case "k2":
            return 0.5 * difference.square()
        case "k3":
            return torch.expm1(-difference) + difference
        case _:
            raise ValueError(f"unknown KL estimator {estimator!r}; there are k1, k2 and k3")


def kl_term(config: Kl, tokens: Tokens, reference: torch.Tensor) -> torch.Tensor:
    """[K] penalties with gradient, before their coefficient."""
    values = kl_values(config.estimator, tokens.learner, reference)
    return values * tokens.log_ratio.exp() if config.unbiased else values
