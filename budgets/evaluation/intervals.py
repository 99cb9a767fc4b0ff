"""Intervals by resampling tasks, paired between modes.

The tasks are the sample, so whole tasks are drawn with replacement, with all their attempts in all modes: R resamples
of N tasks, given as counts w [N]. A mean over attempts or tasks is a ratio sum(w * numerator) / sum(w * denominator),
and the 2.5 % and 97.5 % quantiles over the resamples are its interval (percentile bootstrap, Efron 1979). The counts
depend on (seed, N) alone: two modes see the same resamples, so the interval of their difference or ratio is paired and
much narrower than two intervals apart suggest.

Assumption: tasks are drawn independently from what one wants to know about, and there are enough of them; below 20 an
interval is an indication. What it is not: where every task of a proportion is right, or every task is wrong, resampling
sees no spread at all; there the exact binomial bound on N tasks, (0.025)^(1/N), stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from budgets.evaluation.attempt import FloatArray

NUM_RESAMPLES = 2000
TAIL = 0.025
_CHUNK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A value with its 95 % interval; all NaN where nothing could be measured."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"value": number(self.value), "low": number(self.low), "high": number(self.high)}


def number(value: float) -> float | None:
    """Six decimals for JSON; None for what could not be measured."""
    return round(float(value), 6) if np.isfinite(value) else None


def task_means(values: FloatArray) -> FloatArray:
    """[N] mean over the samples of each task of [N, K], NaN where none of them counts."""
    counts = (~np.isnan(values)).sum(axis=-1)
    sums = np.nansum(values, axis=-1)
    means: FloatArray = np.divide(sums, counts, out=np.full(len(values), np.nan), where=counts > 0)
    return means


def mean(values: FloatArray, *, seed: int, is_share: bool = False) -> Estimate:
    """Mean over the tasks of [N] values that are not NaN. `is_share`: values are proportions in [0, 1]."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Estimate(value=np.nan, low=np.nan, high=np.nan)
    if is_share and len(set(known.tolist())) == 1 and known[0] in (0.0, 1.0):
        bound = TAIL ** (1 / len(known))
        return Estimate(value=float(known[0]), low=bound if known[0] else 0.0, high=1.0 if known[0] else 1 - bound)
    return _estimate(known.mean(), _resampled(known[:, None], seed)[:, 0])


def shares(values: FloatArray, *, seed: int) -> dict[str, Any]:
    """The JSON of `mean` over [N] proportions, with the number of tasks that have one."""
    return {**mean(values, seed=seed, is_share=True).as_json(), "num_tasks": int((~np.isnan(values)).sum())}


def pooled_mean(sums: FloatArray, counts: FloatArray, *, seed: int) -> Estimate:
    """sum(sums) / sum(counts) over tasks, [N] each: a mean over attempts where tasks have different numbers of them."""
    used = counts > 0
    if not used.any():
        return Estimate(value=np.nan, low=np.nan, high=np.nan)
    drawn = _resampled(np.stack([sums[used], counts[used]], axis=1), seed)
    return _estimate(sums[used].sum() / counts[used].sum(), drawn[:, 0] / drawn[:, 1])


def paired(values: FloatArray, base: FloatArray, *, seed: int) -> tuple[Estimate, Estimate]:
    """Difference and ratio of the means of two [N] columns over the tasks that both have. Ratio NaN if base is 0."""
    both = ~np.isnan(values) & ~np.isnan(base)
    if not both.any():
        nothing = Estimate(value=np.nan, low=np.nan, high=np.nan)
        return nothing, nothing
    a, b = values[both], base[both]
    drawn = _resampled(np.stack([a, b], axis=1), seed)
    difference = _estimate(a.mean() - b.mean(), drawn[:, 0] - drawn[:, 1])
    if not b.mean():
        return difference, Estimate(value=np.nan, low=np.nan, high=np.nan)
    ratios = np.divide(drawn[:, 0], drawn[:, 1], out=np.full(len(drawn), np.inf), where=drawn[:, 1] != 0)
    return difference, _estimate(a.mean() / b.mean(), ratios)


def _estimate(value: float, drawn: FloatArray) -> Estimate:
    low, high = np.quantile(drawn, [TAIL, 1 - TAIL], method="nearest")
    return Estimate(value=float(value), low=float(low), high=float(high))


def _resampled(columns: FloatArray, seed: int) -> FloatArray:
    """[R, C] means of the columns [N, C] in every resample."""
    size = len(columns)
    rng = np.random.default_rng([seed, size])
    parts = []
    for start in range(0, NUM_RESAMPLES, _CHUNK):
        counts = rng.multinomial(size, np.full(size, 1 / size), size=min(_CHUNK, NUM_RESAMPLES - start))
        parts.append(counts @ columns / size)
    return np.concatenate(parts)
