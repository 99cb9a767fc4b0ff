"""alpha-ReQ: how fast the spectrum of the covariance of hidden states falls.

The slope of a weighted least-squares line through (-ln i, ln lambda_i) for ranks i = 11 to 99, with weights 1 / i,
where lambda_1 >= lambda_2 >= ... are the eigenvalues of the covariance. lambda_i = c i^-alpha gives alpha, whatever c
is. Around 1 the representation is rich; much higher, a few directions carry everything; near 0 it is as flat as noise.
Source: Agrawal et al., "alpha-ReQ" (NeurIPS 2022). Assumption: the ranks from 11 to 99 follow a power law; the first
ten, which do not, are left out as in the authors' later code (their earlier code took 3 to 50 or 3 to 100).
What it is not: defined for fewer than 99 eigenvalues above zero, so a model of width below 99 has none.
"""

from __future__ import annotations

import torch

from rl.diagnostics.config import ALPHA_RANKS


def num_above_rounding(eigenvalues: torch.Tensor) -> int:
    """How many of [K] eigenvalues, largest first, are more than the rounding of a float64 decomposition."""
    rounding = (eigenvalues.numel() * torch.finfo(torch.float64).eps) ** 2
    return int((eigenvalues > eigenvalues[0] * rounding).sum())


def alpha_req(eigenvalues: torch.Tensor) -> float:
    """Decay of [K] eigenvalues, largest first.

    Raises:
        ValueError: fewer than 99 of them are above zero.
    """
    first, last = ALPHA_RANKS
    if (num_positive := num_above_rounding(eigenvalues)) < last:
        raise ValueError(
            f"alpha-ReQ fits eigenvalues {first} to {last}, got {num_positive} above zero: it needs a model at least "
            f"{last} wide and more than {last} states"
        )
    ranks = torch.arange(first, last + 1, dtype=torch.float64, device=eigenvalues.device)
    x, y, w = -ranks.log(), eigenvalues[first - 1 : last].double().log(), 1.0 / ranks
    dx, dy = x - (w * x).sum() / w.sum(), y - (w * y).sum() / w.sum()
    return float((w * dx * dy).sum() / (w * dx * dx).sum())
