"""The forgetting matrix: accuracy on every suite after every stage of training, and what was lost on the way.

With a[t, j] the accuracy on suite j after stage t, t = 0 before the first one, and T the last

    drop[t, j] = max_{s < t} a[s, j] - a[t, j]           against the best before; negative: a new best
    F          = mean_j (max_t a[t, j] - a[T, j])        forgetting of the whole, 0 if every suite ends at its best

Source: the F of Chaudhry et al. 2018 (arXiv 1801.10112), whose maximum leaves the last stage out. Intervals of a drop
are paired: both accuracies are of the same tasks, resampled together (`budgets.evaluation.intervals`).

Assumption: the suites are never trained on. What it is not: free of chance. The best of several noisy rows is too good
on average, so with many stages a small drop is expected of nothing; look at its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from budgets.evaluation import intervals
from budgets.evaluation.attempt import FloatArray

Row = Mapping[str, FloatArray]  # by suite, [N] mean of each of its tasks, NaN unjudged; the order of tasks is fixed


def forgetting(accuracy: Sequence[Sequence[float]]) -> float:
    """F of [T + 1, J] accuracies. Raises ValueError for an empty matrix."""
    matrix = np.asarray(accuracy, dtype=np.float64)
    if matrix.ndim != 2 or not matrix.size:
        raise ValueError(f"a forgetting matrix needs at least one row and one suite, got shape {matrix.shape}")
    return float((matrix.max(axis=0) - matrix[-1]).mean())


def best_before(column: Sequence[float], row: int) -> int | None:
    """The row before `row` with the highest accuracy, the earliest of equal ones; None for the first row, or where
    nothing before could be judged."""
    known = [t for t in range(row) if not np.isnan(column[t])]
    return max(known, key=lambda t: (column[t], -t)) if known else None


def forgetting_matrix(rows: Mapping[str, Row], suites: Sequence[str], *, seed: int) -> dict[str, Any]:
    """The matrix as JSON: per row and suite accuracy with its interval, and the paired drop against the best before."""
    names = list(rows)
    means = {s: [_mean(rows[name][s]) for name in names] for s in suites}
    table = []
    for t, name in enumerate(names):
        cells = {}
        for suite in suites:
            values = rows[name][suite]
            best = best_before(means[suite], t)
            drop = None
            if best is not None:
                difference, _ = intervals.paired(rows[names[best]][suite], values, seed=seed)
                drop = {**difference.as_json(), "best_after": names[best]}
            cells[suite] = {"accuracy": intervals.shares(values, seed=seed), "drop": drop}
        table.append({"stage": name, "suites": cells})
    whole = [[means[suite][t] for suite in suites] for t in range(len(names))]
    found = forgetting(whole) if whole and suites and not np.isnan(whole).any() else None
    return {"suites": list(suites), "rows": table, "forgetting": None if found is None else intervals.number(found)}


def _mean(values: FloatArray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
