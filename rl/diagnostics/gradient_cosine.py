"""Angle between the gradients of two sets of samples, without touching anything that trains.

    cos = <g, h> / (|g| |h|),   g and h sums of the gradients of the shares of each set's loss

Source: gradient surgery, Yu et al. 2020 (arXiv 2001.06782), measures conflicts between tasks like this. Assumption: the
whole gradient fits into memory twice. What it is not: a statement about Adam's step, which is another direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch


def cosine_of_gradients(parameters: Sequence[torch.nn.Parameter], sets: Sequence[Iterable[torch.Tensor]]) -> float:
    """Cosine of two gradients; NaN if one of them is zero.

    Args:
        parameters: what the gradients are taken for.
        sets: two iterables of scalar losses, each with its graph. Lazy: one graph is held at a time.
    """
    first, second = (_sum(parameters, losses) for losses in sets)
    products = [[_dot(a, b) for b in (first, second)] for a in (first, second)]
    size = math.sqrt(products[0][0] * products[1][1])
    return products[0][1] / size if size > 0 else math.nan


def _sum(parameters: Sequence[torch.nn.Parameter], losses: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    total = [torch.zeros_like(p, dtype=torch.float32) for p in parameters]
    for loss in losses:
        if not loss.requires_grad:  # a micro-batch of padding
            continue
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        for place, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                place += gradient
    return total


def _dot(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))
