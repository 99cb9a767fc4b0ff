"""Difficulty of a task as measured, without looking at the attempt that is being counted.

An attempt's bin comes from the success rate of other attempts at its task: those of the other half of the samples (even
and odd numbers) in all modes together; with one sample per mode, those of the other modes. Were the attempt itself part
of its bin, a lucky one would move its task to the easy bin and be counted as a success there, and accuracy by bin would
be steep in pure noise.

    hard: rate < 1/3      medium: 1/3 <= rate < 2/3      easy: rate >= 2/3      none: no other judged attempt

What it is not: a property of the task alone. It is relative to this policy and these modes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from budgets.evaluation.attempt import FloatArray

BINS = ("hard", "medium", "easy")
EDGES = (1 / 3, 2 / 3)
UNKNOWN = -1


def success_elsewhere(correct: FloatArray) -> FloatArray:
    """[M, N, K] success rate of the attempts that place each attempt, NaN where there are none."""
    judged = (~np.isnan(correct)).astype(np.float64)
    right = np.nan_to_num(correct)
    rates = np.full(correct.shape, np.nan)
    if correct.shape[-1] >= 2:
        for half in (0, 1):
            other = slice(1 - half, None, 2)
            rates[:, :, half::2] = _rate(right[:, :, other].sum((0, 2)), judged[:, :, other].sum((0, 2)))[None, :, None]
        return rates
    for mode in range(len(correct)):
        others = np.arange(len(correct)) != mode
        rates[mode] = _rate(right[others].sum((0, 2)), judged[others].sum((0, 2)))[:, None]
    return rates


def difficulty_bins(correct: FloatArray) -> npt.NDArray[np.int64]:
    """[M, N, K] index into `BINS`, or UNKNOWN."""
    rates = success_elsewhere(correct)
    bins = np.searchsorted(np.asarray(EDGES) - 1e-12, np.nan_to_num(rates), side="right")
    placed: npt.NDArray[np.int64] = np.where(np.isnan(rates), UNKNOWN, bins)
    return placed


def _rate(right: FloatArray, judged: FloatArray) -> FloatArray:
    rates: FloatArray = np.divide(right, judged, out=np.full(right.shape, np.nan), where=judged > 0)
    return rates
