"""Which tokens of a text become tasks of predicting them: the uncertain ones, in tiers of uncertainty.

    H(position)   -sum_i q_i log q_i of a frozen model's `k` most likely next tokens, q renormalized over them (nats)
    tier          of the positions that may be tasks, the share `skip` of lowest H is left out; the rest is cut at equal
                  quantiles of H into `count` tiers, 0 the least uncertain
    tasks         up to `most` positions of a chunk, drawn uniformly from its positions that have a tier

Source: Reinforcement Mid-Training (arXiv 2509.24375) after Reinforcement Pre-Training, whose proxy is a small model
with k = 16. Thresholds, the share of tokens and the tiers are not published: skip = 0.7, three tiers and four tokens a
chunk are this project's.

Assumption: what a small model is unsure of is worth thinking about. What it is not: a filter for noise; a token that
nobody can know is among the most uncertain ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def top_entropy(log_probabilities: Floats) -> npt.NDArray[np.float64]:
    """[N] in nats, from the log-probabilities of the most likely tokens [N, k]."""
    values = log_probabilities.astype(np.float64)
    q = np.exp(values - values.max(axis=1, keepdims=True))
    q /= q.sum(axis=1, keepdims=True)
    return np.asarray(-(q * np.log(np.where(q > 0, q, 1.0))).sum(axis=1), dtype=np.float64)


def tiers_of(
    entropies: npt.NDArray[np.float64], *, skip: float, count: int
) -> tuple[npt.NDArray[np.int8], list[float]]:
    """[N] tier or -1, and the lower edge of every tier."""
    edges = np.quantile(entropies, [skip + (1.0 - skip) * tier / count for tier in range(count)])
    tiers = np.searchsorted(edges, entropies, side="right").astype(np.int8) - np.int8(1)
    return tiers, [float(edge) for edge in edges]


def may_be_task(text: str, char_ends: Sequence[int], *, least_context: int) -> npt.NDArray[np.bool_]:
    """[L] whether a token has something to show beside spaces, and enough tokens before it."""
    starts = [0, *char_ends[:-1]]
    shown = [bool(text[start:end].strip()) for start, end in zip(starts, char_ends, strict=True)]
    return np.asarray(shown, dtype=np.bool_) & (np.arange(len(char_ends)) >= least_context)


def draw_positions(tiers: npt.NDArray[np.int8], *, most: int, rng: np.random.Generator) -> list[int]:
    """Positions of a chunk that become tasks, ascending."""
    members = np.flatnonzero(tiers >= 0)
    return sorted(map(int, rng.choice(members, size=min(most, members.size), replace=False)))
