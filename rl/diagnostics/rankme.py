"""RankMe: how many directions a set of hidden states really uses, from their singular values.

    p_k = sigma_k / sum_j sigma_j + 1e-7,    RankMe(Z) = exp(-sum_k p_k ln p_k)

for the singular values sigma of the raw, uncentred matrix Z [N, D], in float64. Between 1 (one direction) and
min(N, D) (all directions alike); a rotation or a scale changes nothing.
Source: Garrido et al., "RankMe" (arXiv 2210.02885). Assumption: N is at least D, better 2 D; below that, N is the
bound.
What it is not: the effective rank of the covariance (`rl/diagnostics/covariance_rank.py`), which squares the singular
values and centres first. Of the singular values 4, 2, 1, 1 this one says 3.3636 and that one 2.2763.
"""

from __future__ import annotations

import torch

EPSILON = 1e-7


def rankme(states: torch.Tensor) -> float:
    """RankMe of [N, D] states. NaN when all of them are zero."""
    sigma = torch.linalg.svdvals(states.double())
    p = sigma / sigma.sum() + EPSILON
    return float(torch.exp(-(p * p.log()).sum()))
