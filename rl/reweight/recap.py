"""RECAP: weights of several objectives from the history of their rewards.

    h_k        mean rewards in [0, 1] of objective k, higher is better; old and new: the first and second half of 2 W
    lambda_k   K exp(s_k / T) / sum_j exp(s_j / T),    so they sum to K, and equal histories give 1

    recommended  s = c + i    c = clip(old / new, 1/4, 4)          i = std(h) / (old + new)    means + .001
    paper        s = c + i    c = old / new of the losses 1 - h    i = std(1 - h) / (old + new)
    code         K (softmax(c / T) + softmax(i / T)) / 2           c = old / new, i = std(h) / mean(h), std biased

Source: RECAP, 2025 (arXiv 2510.21978). Paper and released trainer disagree in the sign of c, in its data and in the
softmax; `code` compares the halves of all history there, here of the 2 W kept. `recommended` is this project's own
reading: what gets worse weighs more (reward falling: old / new above 1), which is what both branches of the code do.

Assumption: rewards, not losses, show how an objective fares: the loss of a policy gradient is near zero in the mean.

What it is not: useful on one reward before a division by the group's deviation, which takes the factor out again. So
domains are weighed in the advantages, and components inside their sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Weights = npt.NDArray[np.float64]
SMALLEST = 1e-3  # keeps ratios of rewards finite
LARGEST_RATIO = 4.0


def recommended(histories: Sequence[Sequence[float]], temperature: float) -> Weights:
    """[K] weights from histories of equal, even length."""
    rewards = np.asarray(histories, dtype=np.float64)
    old, new = (half + SMALLEST for half in _halves(rewards))
    convergence = np.clip(old / new, 1.0 / LARGEST_RATIO, LARGEST_RATIO)
    return _softmax((convergence + rewards.std(axis=1, ddof=1) / (old + new)) / temperature)


def paper(histories: Sequence[Sequence[float]], temperature: float) -> Weights:
    """[K] weights by the published formula on losses, which are 1 - reward and at least .001."""
    losses = np.maximum(SMALLEST, 1.0 - np.asarray(histories, dtype=np.float64))
    old, new = _halves(losses)
    return _softmax((old / new + losses.std(axis=1, ddof=1) / (old + new)) / temperature)


def code(histories: Sequence[Sequence[float]], temperature: float) -> Weights:
    """[K] weights as the released trainer computes them on rewards, at least .001."""
    rewards = np.maximum(SMALLEST, np.asarray(histories, dtype=np.float64))
    old, new = _halves(rewards)
    instability = rewards.std(axis=1) / rewards.mean(axis=1)
    return 0.5 * (_softmax(old / new / temperature) + _softmax(instability / temperature))


def _halves(values: Weights) -> tuple[Weights, Weights]:
    middle = values.shape[1] // 2
    return values[:, :middle].mean(axis=1), values[:, middle:].mean(axis=1)


def _softmax(scores: Weights) -> Weights:
    powers = np.exp(scores - scores.max())
    weights: Weights = scores.size * powers / powers.sum()
    return weights
