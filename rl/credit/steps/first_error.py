"""Only what comes after the first error of a wrong answer is penalized (VPPO).

Formula: for a wrong answer of advantage A < 0 whose first step of score below the threshold is e, tokens from the end
of the last right step before e on keep A, and tokens before get prefix * |A|. Where no step is an error, the error lies
after the last step that was scored: in stopping there, or in the answer. Right answers, and wrong ones without a
scored step, keep A everywhere.
Source: VPPO, arXiv 2601.18984, read in summary: the size of the prefix's credit is ours.
Assumption: the scorer finds first errors; a missed one moves the penalty further back, which is where outcome credit
puts it anyway.
What it is not: a reward for steps. With prefix = 0 the scorer can only take penalties away from steps it calls right.
"""

from __future__ import annotations

import numpy as np

from rl.credit.steps.rows import FloatArray, Row


def first_error_advantages(
    row: Row, advantage: float, length: int, *, correct: bool, threshold: float, prefix: float
) -> FloatArray:
    """[length] advantages of one answer."""
    advantages = np.full(length, advantage)
    if row is None or correct or advantage >= 0:
        return advantages
    errors = np.flatnonzero(row.scores < threshold)
    num_right = int(errors[0]) if errors.size else len(row.scores)
    if num_right:
        advantages[: row.spans[num_right - 1][1]] = prefix * abs(advantage)
    return advantages
