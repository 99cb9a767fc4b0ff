"""The forgetting matrix, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from budgets.evaluation.forgetting import best_before, forgetting, forgetting_matrix

NAN = float("nan")


def test_forgetting_of_three_suites_by_hand() -> None:
    # after: the start, two stages.  best - last: .5 - .2, .6 - .6, .9 - .7
    matrix = [[0.5, 0.1, 0.9], [0.4, 0.3, 0.8], [0.2, 0.6, 0.7]]
    assert forgetting(matrix) == pytest.approx((0.3 + 0.0 + 0.2) / 3)
    assert forgetting([[0.4, 0.9]]) == 0.0
    with pytest.raises(ValueError, match="at least one row and one suite"):
        forgetting([])


def test_the_best_before_is_the_earliest_of_equals_and_never_unjudged() -> None:
    assert best_before([0.5, 0.5, 0.1], 2) == 0
    assert best_before([NAN, 0.2, 0.1], 2) == 1
    assert best_before([NAN, 0.2], 1) is None and best_before([0.3], 0) is None


def test_the_matrix_pairs_each_drop_with_the_best_row_before() -> None:
    tasks = np.arange(20)
    rows = {
        "start": {"a": (tasks < 10).astype(float), "b": (tasks < 4).astype(float)},
        "sft": {"a": (tasks < 16).astype(float), "b": (tasks < 8).astype(float)},
        "rl": {"a": (tasks < 12).astype(float), "b": (tasks < 14).astype(float)},
    }
    found = forgetting_matrix(rows, ["a", "b"], seed=0)
    assert [row["stage"] for row in found["rows"]] == ["start", "sft", "rl"]
    start, _, rl = (row["suites"] for row in found["rows"])
    assert start["a"]["drop"] is None and start["a"]["accuracy"]["value"] == 0.5
    assert rl["a"]["drop"]["value"] == pytest.approx(0.2) and rl["a"]["drop"]["best_after"] == "sft"
    assert 0.0 <= rl["a"]["drop"]["low"] < 0.2 < rl["a"]["drop"]["high"] < 0.5
    assert rl["b"]["drop"]["value"] == pytest.approx(-0.3)  # a new best
    assert found["forgetting"] == pytest.approx((0.2 + 0.0) / 2)


def test_unjudged_tasks_leave_a_row_and_an_unjudged_suite_has_no_drop() -> None:
    rows = {"start": {"a": np.asarray([1.0, NAN])}, "sft": {"a": np.asarray([0.0, 1.0])}}
    found = forgetting_matrix(rows, ["a"], seed=0)
    assert found["rows"][1]["suites"]["a"]["drop"]["value"] == 1.0  # over the one task that both rows judged
    lost = forgetting_matrix({"start": {"a": np.asarray([NAN])}, "sft": {"a": np.asarray([1.0])}}, ["a"], seed=0)
    assert lost["rows"][1]["suites"]["a"]["drop"] is None and lost["forgetting"] is None
    assert forgetting_matrix({}, ["a"], seed=0)["forgetting"] is None
