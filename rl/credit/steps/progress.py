"""Progress: what a step adds to the chance of getting there (process advantage verifiers, PAV).

Formula: P_k = V_k - V_{k-1}, with V_k the value of the attempt after step k under a prover, and V = 1 - (1 - v)^K for
the best of K attempts of the prover. V_0, before any step: 0 for cumulative log-ratios, whose value at the prompt is 0
by construction; for probabilities the share of right answers in the group.
Source: PAV, arXiv 2410.08146. The paper takes V_0 from its own completions; the group's share in its place is ours.
Assumption: scores are values of prefixes under a prover that is neither the policy itself (adds nothing) nor so strong
or weak that all values are alike. A scorer of single steps, such as the exact checker, does not give such values.
What it is not: farmable by repetition. The values sum to V_end - V_0 whatever lies between.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.credit.steps.rows import FloatArray, Row, Values


def best_of(values: FloatArray, attempts: int) -> FloatArray:
    """Chance that the best of `attempts` independent attempts of chance `values` succeeds."""
    found: FloatArray = 1.0 - (1.0 - values) ** attempts
    return found


def progress(values: FloatArray, *, start: float) -> FloatArray:
    """[S] differences of values [S], the first to `start`."""
    return np.diff(values, prepend=start)


def progress_terms(rows: Sequence[Row], *, start: float, attempts: int = 1) -> list[Values]:
    """Per sibling, one value a step. `attempts` above 1 takes `start` and all scores for probabilities."""
    if attempts == 1:
        return [None if row is None else progress(row.scores, start=start) for row in rows]
    start = float(best_of(np.asarray([start]), attempts)[0])
    return [None if row is None else progress(best_of(row.scores, attempts), start=start) for row in rows]
