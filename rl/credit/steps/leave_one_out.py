"""Sums of later step scores above what the other siblings' steps are worth on the mean (the dense half of PRIME).

Formula: P_ik = sum_{j >= k} gamma^(j - k) * (r_ij - mean_{l != i} m_l), with m_l the mean of r_l over its steps.
The outcome has a leave-one-out baseline of its own in `rloo`; the two are computed apart and then added, so that the
dense half never sees the outcome's baseline. With token spans and kind logratio this is PRIME's own form.
Source: PRIME, arXiv 2502.01456. `batch_norm` divides r by the largest |sum of later r| of the batch, as its code does.
Assumption: a score above the siblings' mean is better than another step of theirs. A constant added to every score of a
group changes nothing, so good-looking steps earn nothing by their number unless they look better than the others'.
What it is not: free of length. P of the first step is (number of steps) * (own mean - others' mean): a long answer of
more than average score is amplified. PRIME's whitening over the batch's tokens is left out; `share` bounds the scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.credit.steps.rows import Row, Values, mean_of_others, returns


def leave_one_out_terms(rows: Sequence[Row], *, gamma: float = 1.0, scale: float = 1.0) -> list[Values]:
    """Per sibling, one value a step; 0 where there is no other sibling to compare with.

    Args:
        scale: what the scores are divided by; see `largest_return`.
    """
    baselines = mean_of_others([None if row is None else float(row.scores.mean()) for row in rows])
    terms: list[Values] = []
    for row, baseline in zip(rows, baselines, strict=True):
        if row is None:
            terms.append(None)
        elif baseline is None:
            terms.append(row.scores * 0.0)
        else:
            terms.append(returns((row.scores - baseline) / scale, gamma))
    return terms


def largest_return(groups: Sequence[Sequence[Row]]) -> float:
    """The largest |sum of later scores| of a batch; 1 where all of them are 0."""
    sums = [np.abs(returns(row.scores)).max() for rows in groups for row in rows if row is not None]
    return float(max(sums, default=0.0)) or 1.0
