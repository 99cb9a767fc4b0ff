"""One policy-gradient estimator, of which SFT, REINFORCE, PPO, CISPO, GSPO, LUFFY and weighted replay are cases.

    gradient of the loss of a token = - 1_stable * A * h(r) * grad log learner,      r = learner / D

    denominator D   policy: learner itself, r = 1      anchor: learner before the batch      sampler: who drew the token
                    one: D = 1, r is the probability   sequence: r = exp(mean_t log (learner / anchor)) of the sequence
    likelihood      plain: h(r) = r                    shaped: h(r) = gamma r / (r + gamma)^2, of f(r) = r / (r + gamma)
    weight          h(r) is cut at max_weight, and at max_negative_weight where A < 0
    1_stable        clip (by learner / anchor, in the direction of A), band (by anchor / sampler, of a token),
                    drift (by mean |log (anchor / sampler)|, of a sequence)

    method        denominator  likelihood  mask         advantage
    SFT           policy       plain       -            1
    REINFORCE     policy       plain       -            reward - baseline
    PPO, GRPO     anchor       plain       clip         of the group
    CISPO         anchor       plain       -            of the group, with max_weight
    GSPO          sequence     plain       clip         of the group (clipped here by token, not by sequence)
    LUFFY         one          shaped      -            of the group with the demonstration in it
    replay        sampler      plain       clip, band   as it was given when the trajectory was fresh

Source: the decomposition is HPT's unified view, Lv et al. 2025 (arXiv 2509.04419); the shaping is LUFFY's, Yan et al.
2025 (arXiv 2504.14945). `max_negative_weight` = 1 is TOPR's asymmetry.

Assumption: weights carry no gradient, so the loss is `-weight * A * log learner` and its value means nothing: only its
gradient does. Where no log-probability of a sampler exists (demonstrations, text), `sampler`, band and drift have
nothing to compare with, and the settings refuse them.

What it is not: a loss to watch. For PPO it has the gradient of `ppo_clip`, and another value.
"""

from __future__ import annotations

import torch

from rl.losses.config import Unified
from rl.losses.contract import MAX_LOG_RATIO, TokenLoss, Tokens
from rl.losses.estimator_config import Estimator, Mask


def unified(config: Unified, tokens: Tokens) -> TokenLoss:
    """The estimator as the loss of a recipe, for fresh samples."""
    return estimate(config.estimator, tokens)


def estimate(estimator: Estimator, tokens: Tokens) -> TokenLoss:
    """[K] losses whose gradients are the estimator's; sums: weights and tokens that were left out."""
    weights = token_weights(estimator, tokens)
    stable = is_stable(estimator.mask, tokens)
    values = -(weights * stable * tokens.advantages).detach() * tokens.learner
    return TokenLoss(values=values, sums={"weight": (weights * stable).sum(), "left_out": (~stable).sum()})


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not type-checked
def token_weights(estimator: Estimator, tokens: Tokens) -> torch.Tensor:
    """[K] h(r), bounded."""
    ratio = _log_ratio(estimator, tokens).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if estimator.likelihood == "shaped":
        ratio = estimator.gamma * ratio / (ratio + estimator.gamma).square()
    if estimator.max_weight is not None:
        ratio = ratio.clamp(max=estimator.max_weight)
    if estimator.max_negative_weight is not None:
        ratio = torch.where(tokens.advantages < 0, ratio.clamp(max=estimator.max_negative_weight), ratio)
    return ratio


@torch.no_grad()  # type: ignore[untyped-decorator]
def is_stable(mask: Mask, tokens: Tokens) -> torch.Tensor:
    """[K] bool, tokens that every rule of the mask lets pass."""
    stable = torch.ones_like(tokens.advantages, dtype=torch.bool)
    ratio, log_rho = tokens.log_ratio.exp(), tokens.anchor - tokens.sampler
    if mask.clip_low is not None:
        stable &= ~((tokens.advantages < 0) & (ratio < 1.0 - mask.clip_low))
    if mask.clip_high is not None:
        stable &= ~((tokens.advantages > 0) & (ratio > 1.0 + mask.clip_high))
    rho = log_rho.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if mask.band_low is not None:
        stable &= rho >= mask.band_low
    if mask.band_high is not None:
        stable &= rho <= mask.band_high
    if mask.drift is not None:
        stable &= tokens.spread(tokens.sequence_mean(log_rho.abs())) <= mask.drift
    return stable


def _log_ratio(estimator: Estimator, tokens: Tokens) -> torch.Tensor:
    learner = tokens.learner.detach()
    match estimator.denominator:
        case "policy":
            return torch.zeros_like(learner)
        case "anchor":
            return learner - tokens.anchor
        case "sampler":
            return learner - tokens.sampler
        case "sequence":
            return tokens.spread(tokens.sequence_mean(learner - tokens.anchor))
        case "one":
            return learner
