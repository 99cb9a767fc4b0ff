"""Centered step term: which steps of a response were better than the group's steps on the whole.

Formula: for every token of step k of sibling i
    P_ik = clip(weight * (q_ik - mean(q)), -cap, +cap)
with the mean over all scored steps of all judged siblings of the group.
Source: a step-wise variant of process supervision in DeepSeekMath (arXiv 2402.03300, section 4.1.3) without the sum
over later steps (`group_returns`). That sum pays for the number of steps: eight steps of 0.9 beat two of 0.9. Here the
number of steps earns nothing.
Assumption: a step's score says something about that step alone and scores of one group are comparable.
What it is not: a return. A step gets no credit for what it makes possible later; the outcome advantage carries that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.credit.steps.rows import Row, Values, pooled


def centered_terms(rows: Sequence[Row], *, weight: float, cap: float) -> list[Values]:
    """Per sibling, one value a step; a row that is None leaves the mean."""
    scores = pooled(rows)
    center = float(scores.mean()) if scores.size else 0.0
    terms = np.minimum(np.maximum(weight * (scores - center), -cap), cap)
    found: list[Values] = []
    end = 0
    for row in rows:
        start, end = end, end + (0 if row is None else row.scores.size)
        found.append(None if row is None else terms[start:end])
    return found
