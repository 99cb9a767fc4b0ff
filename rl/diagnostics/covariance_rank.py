"""Effective rank of the covariance of hidden states: the exponential of its von Neumann entropy.

    p_k = lambda_k / sum_j lambda_j,    rank(Z) = exp(-sum_k p_k ln p_k)

for the eigenvalues lambda of the covariance of Z [N, D], that is the squared singular values of Z less its mean row.
Between 1 and min(N - 1, D); exactly 1 when all states lie on one line.
Source: Li et al., "Tracing the Representation Geometry of Language Models from Pretraining to Post-training"
(arXiv 2509.23024), which calls it RankMe and sees it rise under supervised fine-tuning and fall under RL with
verifiable rewards. Assumption: rows are states of different inputs, not of neighbouring tokens.
What it is not: RankMe as first defined (`rl/diagnostics/rankme.py`); the two are never to be compared.
"""

from __future__ import annotations

import torch


def covariance_rank(eigenvalues: torch.Tensor) -> float:
    """Effective rank of a covariance with these [K] eigenvalues. NaN when all of them are zero."""
    p = eigenvalues / eigenvalues.sum()
    entropy = -torch.special.xlogy(p, p).sum()
    return float(torch.exp(entropy))


def covariance_eigenvalues(states: torch.Tensor) -> torch.Tensor:
    """[min(N, D)] eigenvalues of the scatter matrix of [N, D] states about their mean, largest first, float64."""
    centred = states.double() - states.double().mean(dim=0)
    return torch.linalg.svdvals(centred) ** 2
