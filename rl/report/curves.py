"""Numbers behind the plots: series over training steps, thinned without losing a spike, and their running mean."""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EFFORT_ORDER = ("low", "medium", "high")
MAX_POINTS = 600
MAX_STACKED_POINTS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One curve: `values[i]` was measured at training step `steps[i]`; steps increase."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.steps) != len(self.values):
            raise ValueError(f"series {self.name!r}: {len(self.steps)} steps but {len(self.values)} values")

    def __len__(self) -> int:
        return len(self.steps)


def series_of(name: str, rows: Iterable[tuple[int, float | None]]) -> Series:
    """The series of (step, value) rows in any order. A missing or non-finite value leaves its step out; of two rows of
    one step, as a resumed run writes them, the later one counts."""
    latest = dict(rows)
    kept = sorted((step, value) for step, value in latest.items() if value is not None and math.isfinite(value))
    return Series(name=name, steps=tuple(s for s, _ in kept), values=tuple(v for _, v in kept))


def downsample(series: Series, limit: int = MAX_POINTS) -> Series:
    """At most `limit` points: the lowest and the highest of each of `limit // 2` stretches, in their order.

    Means would hide what people look for in a long run, a single bad step, so extremes are kept instead. The stretches
    differ in length by at most one point. A series of at most `limit` points is returned as it is.
    """
    if limit < 2:
        raise ValueError(f"a thinned curve needs at least 2 points, got limit {limit}")
    size = len(series)
    if size <= limit:
        return series
    num_stretches = limit // 2
    kept: list[int] = []
    for stretch in range(num_stretches):
        indices = range(stretch * size // num_stretches, (stretch + 1) * size // num_stretches)
        lowest = min(indices, key=series.values.__getitem__)
        highest = max(indices, key=series.values.__getitem__)
        kept.extend(sorted({lowest, highest}))
    return Series(
        name=series.name,
        steps=tuple(series.steps[i] for i in kept),
        values=tuple(series.values[i] for i in kept),
    )


def stretch_means(series: Series, limit: int = MAX_STACKED_POINTS) -> Series:
    """At most `limit` points: the mean of each of `limit` stretches at its last step, for curves that are stacked.

    The stretches depend on the number of points alone, so curves with the same steps stay comparable point by point.
    """
    size = len(series)
    num_stretches = min(limit, size)
    bounds = [stretch * size // num_stretches for stretch in range(num_stretches + 1)]
    means = [sum(series.values[a:b]) / (b - a) for a, b in itertools.pairwise(bounds)]
    return Series(name=series.name, steps=tuple(series.steps[b - 1] for b in bounds[1:]), values=tuple(means))


def aligned(curves: Mapping[str, Series]) -> dict[str, Series]:
    """The curves over the steps of all of them; where one has no value, nothing of it happened: 0."""
    steps = tuple(sorted({step for series in curves.values() for step in series.steps}))
    filled = {}
    for name, series in curves.items():
        known = dict(zip(series.steps, series.values, strict=True))
        filled[name] = Series(name=series.name, steps=steps, values=tuple(known.get(step, 0.0) for step in steps))
    return filled


def running_mean(series: Series, window: int) -> Series:
    """Centered mean over `window` neighboring points; at the ends, over those that exist."""
    if window < 1:
        raise ValueError(f"a running mean needs a window of at least 1 point, got {window}")
    totals = [0.0]
    for value in series.values:
        totals.append(totals[-1] + value)
    before, after = (window - 1) // 2, window // 2
    smooth: list[float] = []
    for index in range(len(series)):
        low, high = max(index - before, 0), min(index + after + 1, len(series))
        smooth.append((totals[high] - totals[low]) / (high - low))
    return Series(name=series.name, steps=series.steps, values=tuple(smooth))


def smoothing_window(num_points: int) -> int:
    """Points in the running mean: a tenth of the run, at least 1 and at most 25, odd so that it is centered."""
    return min(max(num_points // 10, 1), 25) // 2 * 2 + 1


def matching(series: Mapping[str, Series], patterns: Sequence[str]) -> dict[str, Series]:
    """The curves whose names fit, by what the star stands for (or the last part of a name without one)."""
    found: dict[str, Series] = {}
    for pattern in patterns:
        head, star, tail = pattern.partition("*")
        for name in series:
            if len(series[name]) and fnmatch.fnmatchcase(name, pattern):
                found[
                    name[len(head) : len(name) - len(tail)] if star else name.rpartition("/")[2].removesuffix("_s")
                ] = series[name]
    return {name: found[name] for name in ranked_names(list(found), (*EFFORT_ORDER, *_exact(patterns)))}


def _exact(patterns: Sequence[str]) -> list[str]:
    return [_last_part(pattern) for pattern in patterns if "*" not in pattern]


def _last_part(name: str) -> str:
    return name.rpartition("/")[2].removesuffix("_s")


def ranked_names(names: Sequence[str], order: Sequence[str] = EFFORT_ORDER) -> list[str]:
    """`names` without repetition: those in `order` first and in that order, then the others by name."""
    known = [name for name in order if name in names]
    return known + sorted(set(names) - set(order))
