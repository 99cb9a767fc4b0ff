"""Which strategy to use for tasks of which difficulty at which budget, chosen on one half of the tasks for the other.

    bin(q)          quantile of the difficulty of q among all tasks
    best[f, b, n]   argmax over strategies of the mean accuracy on fold f's tasks of bin b at budget n
    value(q, n)     accuracy on q of best[1 - fold(q), bin(q), n]

Source: Snell et al. (arXiv 2408.03314), who take five bins from 2048 samples' success rate (oracle) or from the mean
final score of the scorer (predicted, which alone can be used on new tasks), and two folds. Assumption: the folds are
drawn at random, half and half within each bin. What it is not: the best strategy of each task, which would be chosen on
the very verdicts that are counted; without the second fold the gain is partly luck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mixed:
    """What the mix of strategies gives. `value` [N, B] accuracy, `chosen` [2, bins, B] strategy, `bins` and `folds`
    [N]."""

    value: FloatArray
    chosen: IntArray
    bins: IntArray
    folds: IntArray


def quantile_bins(difficulty: FloatArray, num_bins: int) -> IntArray:
    """[N] bin of each task, 0 the smallest values. Equal values share a bin, so a bin may stay empty."""
    ordered, size = np.sort(difficulty), len(difficulty)
    edges = ordered[[-(-k * size // num_bins) - 1 for k in range(1, num_bins)]]  # the last value of each bin but one
    return np.searchsorted(edges, difficulty, side="left").astype(np.int64)


def compute_optimal(accuracy: FloatArray, difficulty: FloatArray, *, num_bins: int = 5, seed: int = 0) -> Mixed:
    """Mix strategies by difficulty. `accuracy` [S, N, B]: strategies, tasks, budgets; NaN where it was not measured.

    Where the other fold has no measured task of a bin, the strategy that is best on all of that fold is taken. Raises
    ValueError for fewer than two tasks, or a budget that a fold has nothing for.
    """
    num_tasks, num_budgets = accuracy.shape[1:]
    if num_tasks < 2 or len(difficulty) != num_tasks or np.isnan(difficulty).any():
        raise ValueError(
            f"two folds need at least 2 tasks with a difficulty each, got {num_tasks} tasks and difficulties "
            f"{difficulty.shape} with {int(np.isnan(difficulty).sum())} unknown"
        )
    bins = quantile_bins(difficulty, num_bins)
    folds = _folds(bins, seed)
    chosen = np.zeros((2, num_bins, num_budgets), dtype=np.int64)
    for fold in (0, 1):
        whole = _means(accuracy[:, folds == fold])
        if np.isnan(whole).all(axis=0).any():
            raise ValueError("every budget needs a measured task in both folds; evaluate more tasks, or fewer budgets")
        for b in range(num_bins):
            means = _means(accuracy[:, (folds == fold) & (bins == b)])
            unknown = np.isnan(means).all(axis=0)
            means[:, unknown] = whole[:, unknown]
            chosen[fold, b] = np.argmax(np.nan_to_num(means, nan=-np.inf), axis=0)
    picked = chosen[1 - folds, bins]  # [N, B]
    value = np.take_along_axis(accuracy, picked[None], axis=0)[0]
    return Mixed(value=value, chosen=chosen, bins=bins, folds=folds)


def _folds(bins: IntArray, seed: int) -> IntArray:
    """[N] 0 or 1, half and half in every bin; bins of odd size give their extra task to the smaller fold."""
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(bins), dtype=np.int64)
    turn = 0
    for b in np.unique(bins):
        for place in rng.permutation(np.flatnonzero(bins == b)):
            folds[place] = turn
            turn = 1 - turn
    return folds


def _means(values: FloatArray) -> FloatArray:
    """[S, B] over tasks of [S, n, B], NaN where nothing was measured."""
    known = ~np.isnan(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    means: FloatArray = np.divide(sums, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
    return means
