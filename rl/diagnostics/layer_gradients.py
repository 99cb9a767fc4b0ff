"""What one sample's gradient looks like, layer by layer: its size, its shape, and how it jumps from layer to layer.

For the gradient G of one weight matrix, with singular values sigma:

    nuclear = sum sigma,    frobenius = sqrt(sum sigma^2),    peak = max sigma / sum sigma

and for the curve x_1, ..., x_n of one number over the layers of a model

    MAD = mean_i |x_(i+1) - x_i|

Source: Li, Li and Zhou, "What Happened in LLMs Layers when Trained for Fast vs. Slow Thinking" (arXiv 2410.23743):
short, unreasoned answers give large gradients in early layers and a large MAD, detailed reasoning small and even ones.
Assumption: the loss is the mean negative log-probability of the response tokens of one sample, as there. Scaling the
loss scales `nuclear`, `frobenius` and `MAD`, and leaves `peak`.
What it is not: the gradient of the policy loss. It has no advantage in it; what it tells is how far an answer is from
what the model would say, and where in the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientShape:
    """Of one matrix; all in units of the loss per unit of weight, `peak` without a unit and NaN for a zero gradient."""

    nuclear: float
    frobenius: float
    peak: float


def gradient_shape(gradient: torch.Tensor) -> GradientShape:
    """Of a gradient [m, n], in float64."""
    sigma = torch.linalg.svdvals(gradient.double())
    nuclear = sigma.sum()
    return GradientShape(
        nuclear=float(nuclear), frobenius=float(torch.linalg.vector_norm(sigma)), peak=float(sigma.max() / nuclear)
    )


def mean_absolute_difference(curve: Sequence[float]) -> float:
    """Of neighbours along a curve of at least two points; 0 for a single one."""
    steps = [abs(b - a) for a, b in pairwise(curve)]
    return sum(steps) / len(steps) if steps else 0.0
