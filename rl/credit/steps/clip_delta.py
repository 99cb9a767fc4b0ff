"""Clip and delta: two changes of step scores whose sums do not grow with the number of steps.

Formula, per answer of K steps with scores q and threshold eta:
    clip    r_k = min(q_k - eta, 0)                          P_k = sum_{j >= k} r_j, never positive
    delta   r_k = q_k - q_{k+1}, r_{K-1} = q_{K-1}, r_K = 0   P_k = sum_{j >= k} r_j = q_k, and 0 at the last step
and both: clip first. Afterwards the mean of the other siblings' values is taken off, once a step; with delta, of their
steps before the last, from the steps before the last.
Source: arXiv 2410.15115; its abstract was read, the formulas are from memory, and the baseline is ours (the paper has a
critic in its place): a reconstruction.
Assumption: appending a step of score eta or more must not pay. Clip's first value never rises by it; delta's first
value does not depend on the number of steps, from two on.
What it is not: a reason to take steps. With clip an answer of no steps loses nothing, so the outcome must pay for them;
delta rewards a good current step and nothing that follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.credit.steps.rows import FloatArray, Row, Values, mean_of_others, returns


def clipped(scores: FloatArray, threshold: float) -> FloatArray:
    """[S] what each score lacks below the threshold, never positive."""
    return np.minimum(scores - threshold, 0.0)


def deltas(scores: FloatArray) -> FloatArray:
    """[S] differences to the next score; the last but one keeps its own, the last gets 0. One step alone gets 0."""
    found = np.zeros_like(scores)
    found[:-1] = scores[:-1]
    found[:-2] -= scores[1:-1]
    return found


def clip_terms(rows: Sequence[Row], *, threshold: float) -> list[Values]:
    """Per sibling, one value a step; 0 where there is no other sibling to compare with."""
    own = [None if row is None else returns(clipped(row.scores, threshold)) for row in rows]
    return _above_others(own, [None if v is None else float(v.mean()) for v in own])


def delta_terms(rows: Sequence[Row], *, clip_at: float | None) -> list[Values]:
    """The same for delta; `clip_at` None does not clip. A last step has no value and no baseline: taking the mean of
    the others off its 0 would pay for every step that is not the last, and so for more steps."""
    scores = [None if row is None else row.scores for row in rows]
    if clip_at is not None:
        scores = [None if s is None else clipped(s, clip_at) for s in scores]
    own = [None if s is None else returns(deltas(s)) for s in scores]
    means = [None if v is None or len(v) < 2 else float(v[:-1].mean()) for v in own]
    terms = _above_others(own, means)
    for term in terms:
        if term is not None:
            term[-1] = 0.0
    return terms


def _above_others(own: Sequence[Values], means: Sequence[float | None]) -> list[Values]:
    return [
        None if values is None else (values * 0.0 if baseline is None else values - baseline)
        for values, baseline in zip(own, mean_of_others(means), strict=True)
    ]
