"""Step scores choose which answers train, and never enter a reward (PROF).

Rule: of a group, keep `keep` of the judged answers; among right ones those of the highest mean step score, among wrong
ones those of the lowest; right and wrong in the proportion asked for, as far as there are enough. What is not kept
leaves the baseline, too, as if it had not been sampled.
Source: PROF (code Chenluye99/PROF; read in summary). It samples more answers than it trains on; here that is
`rollout.group_size`, and `keep` of it trains.
Assumption: a right answer with bad steps and a wrong one with good steps are what the outcome labels worst.
What it is not: a reward. A policy cannot earn anything from the scorer, only lose samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def kept_answers(
    correct: Sequence[bool | None], scores: Sequence[float], *, keep: float, right_share: float | None
) -> list[int]:
    """Siblings that train, ascending. An answer without a score ranks as the mean of the others.

    Args:
        correct: right, wrong, or None where unjudged; those are never kept.
        scores: mean step score of each sibling, NaN where there is none.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = np.where(np.isnan(values), np.nanmean(values) if (~np.isnan(values)).any() else 0.0, values)
    right = sorted((i for i, c in enumerate(correct) if c is True), key=lambda i: (-values[i], i))
    wrong = sorted((i for i, c in enumerate(correct) if c is False), key=lambda i: (values[i], i))
    num_judged = len(right) + len(wrong)
    num_kept = min(num_judged, max(2, round(keep * num_judged)))  # one answer alone has nothing to be compared with
    share = right_share if right_share is not None else len(right) / max(1, num_judged)
    num_right = min(max(round(num_kept * share), num_kept - len(wrong)), len(right))
    if right and wrong:  # a group with both kinds keeps both
        num_right = min(max(num_right, 1), num_kept - 1)
    return sorted(right[:num_right] + wrong[: num_kept - num_right])
