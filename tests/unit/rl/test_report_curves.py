"""Exact numbers of the series behind the report's plots."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.report.curves import (
    Series,
    aligned,
    downsample,
    ranked_names,
    running_mean,
    series_of,
    smoothing_window,
    stretch_means,
)


def curve(*values: float) -> Series:
    return Series(name="x", steps=tuple(range(1, len(values) + 1)), values=tuple(values))


def test_rows_become_a_series_in_order_and_the_later_row_of_a_step_counts() -> None:
    series = series_of("x", [(3, 0.3), (1, 0.1), (2, None), (4, math.nan), (3, 0.5)])
    assert (series.steps, series.values) == ((1, 3), (0.1, 0.5))


def test_downsampling_keeps_the_extremes_of_each_stretch() -> None:
    # 8 points, limit 4: two stretches [5 1 9 2] and [3 3 0 8]; lowest and highest of each, in their order
    thin = downsample(curve(5, 1, 9, 2, 3, 3, 0, 8), limit=4)
    assert (thin.steps, thin.values) == ((2, 3, 7, 8), (1, 9, 0, 8))


def test_a_flat_stretch_is_one_point() -> None:
    assert downsample(curve(1, 1, 1, 1, 2, 3), limit=4).values == (1, 1, 3)  # [1 1 1] and [1 2 3]


def test_a_short_series_is_left_alone() -> None:
    assert downsample(curve(1, 2, 3), limit=3).values == (1, 2, 3)


def test_downsampling_to_less_than_two_points_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 points, got limit 1"):
        downsample(curve(1, 2), limit=1)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(2, 60))
def test_downsampling_is_bounded_and_loses_no_extreme(values: list[float], limit: int) -> None:
    thin = downsample(curve(*values), limit=limit)
    assert len(thin) <= max(limit, 2)
    assert (min(thin.values), max(thin.values)) == (min(values), max(values))
    assert list(thin.steps) == sorted(set(thin.steps))


def test_the_running_mean_is_centered_and_shrinks_at_the_ends() -> None:
    assert running_mean(curve(0, 3, 6, 9, 3), window=3).values == (1.5, 3.0, 6.0, 6.0, 6.0)
    assert running_mean(curve(2, 4), window=1).values == (2, 4)


def test_the_smoothing_window_is_odd_and_bounded() -> None:
    assert [smoothing_window(n) for n in (1, 9, 20, 60, 1000)] == [1, 1, 3, 7, 25]


def test_stretch_means_stand_at_the_last_step_of_their_stretch() -> None:
    means = stretch_means(curve(1, 3, 5, 7, 9), limit=2)  # [1 3] and [5 7 9]
    assert (means.steps, means.values) == ((2, 5), (2.0, 7.0))


def test_curves_are_aligned_with_zeros() -> None:
    a = Series(name="a", steps=(1, 3), values=(1.0, 2.0))
    b = Series(name="b", steps=(2,), values=(5.0,))
    filled = aligned({"a": a, "b": b})
    assert filled["a"].values == (1.0, 0.0, 2.0)
    assert filled["b"].values == (0.0, 5.0, 0.0)
    assert filled["b"].steps == (1, 2, 3)


def test_efforts_keep_their_natural_order() -> None:
    assert ranked_names(["high", "zen", "low", "high", "deep"]) == ["low", "high", "deep", "zen"]


def test_a_series_with_unequal_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="1 steps but 2 values"):
        Series(name="x", steps=(1,), values=(1.0, 2.0))
