"""Weights for the difference between the sampler and the learner.

    rho_t = anchor_t / sampler_t, detached;   P = prod_t rho_t;   G = P^(1/n)   over the n loss tokens of a sequence

    token_tis       min(rho_t, high)
    clamp_tis       clip(rho_t, low, high)
    icepop          rho_t if low <= rho_t <= high, else 0
    sequence_tis    min(P, high)
    sequence_mis    P if P <= high, else 0
    geometric_mask  1 if low <= G <= high, else 0
    k3_mask         1 if mean_t (rho_t - 1 - log rho_t) <= high, else 0

Sources: truncated importance sampling for engine mismatch, Yao et al. 2025; IcePop, Ling team 2025 (arXiv 2510.18855);
sequence masks, Liu, Li et al. 2025 ("When speed kills stability"). Truncation itself: Ionides 2008.

Assumption: the sampler's log-probabilities are those after temperature, without top-p or top-k. A product drifts with
length: a mean log-ratio of .001 over 1000 tokens is P = 2.7 and G = 1.001, so bounds on P belong to a length.

What it is not: part of the average. What is left out adds zero and stays in the normalizer, so that rejecting data
shrinks the step and re-weights nothing.
"""

from __future__ import annotations

import torch

from rl.losses.contract import MAX_LOG_RATIO, Tokens
from rl.losses.term_config import (
    ClampTis,
    Correction,
    GeometricMask,
    IcePop,
    K3Mask,
    SequenceMis,
    SequenceTis,
    TokenTis,
)


def correct(config: Correction, tokens: Tokens) -> tuple[torch.Tensor, torch.Tensor]:
    """[K] float weights without gradient, and [K] bool, which tokens count. NaN in, NaN out: it rejects nothing."""
    log_rho = (tokens.anchor - tokens.sampler).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    match config:
        case TokenTis():
            return _all(log_rho.exp().clamp(max=config.high))
        case ClampTis():
            return _all(log_rho.exp().clamp(config.low, config.high))
        case IcePop():
            return _masked(log_rho.exp(), config.low, config.high)
        case SequenceTis():
            return _all(_product(tokens, log_rho).clamp(max=config.high))
        case SequenceMis():
            return _masked(_product(tokens, log_rho), 0.0, config.high)
        case GeometricMask():
            mean = tokens.spread(tokens.sequence_mean(log_rho)).exp()
            return _only_mask(mean, config.low, config.high)
        case K3Mask():
            mean = tokens.spread(tokens.sequence_mean(torch.expm1(log_rho) - log_rho))
            return _only_mask(mean, -1.0, config.high)
        case _:
            raise TypeError(f"no correction for settings of type {type(config).__name__}")


def _product(tokens: Tokens, log_rho: torch.Tensor) -> torch.Tensor:
    return tokens.spread(tokens.sequence_sum(log_rho).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp())


def _all(weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return weights, torch.ones_like(weights, dtype=torch.bool)


def _masked(values: torch.Tensor, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    counts = (values >= low) & (values <= high)
    return values * counts, counts


def _only_mask(values: torch.Tensor, low: float, high: float) -> tuple[torch.Tensor, torch.Tensor]:
    counts = (values >= low) & (values <= high)
    return counts + 0.0 * values, counts
