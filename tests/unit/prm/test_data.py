"""Files of step labels: ours and others', and figures on them with worked numbers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm import calibration
from prm.data import StepRow, read_rows, split_rows, write_rows
from prm.evaluate import (
    auc,
    best_of_n,
    f1_of,
    localization,
    predict,
    prmbench,
    processbench,
    step_figures,
    worst_is_last,
)
from prm.formats import read_any, write_as

LABELS = [2, 0, -1, -1, 3]


def scores_for(prediction: int, steps: int = 4) -> np.ndarray[Any, Any]:
    return np.array([0.1 if i == prediction else 0.9 for i in range(steps)], np.float32)


def row(**changes: Any) -> StepRow:
    base: dict[str, Any] = {"id": "a", "question": "1+1=?", "steps": ("x", "y", "z"), "labels": (1.0, 0.0, None)}
    return StepRow(**base | changes)


# ------------------------------------------------------------------------------------------------ ProcessBench


def test_processbench_numbers() -> None:
    found = localization(LABELS, [scores_for(p) for p in (2, 1, -1, 0, 3)], 0.5)
    assert (found.error_accuracy, found.correct_accuracy) == pytest.approx((2 / 3, 1 / 2))
    assert found.f1 == pytest.approx(0.571429, abs=1e-6)
    assert localization(LABELS, [scores_for(-1)] * 5, 0.5).f1 == 0
    assert localization(LABELS, [scores_for(p) for p in LABELS], 0.5).f1 == 1
    assert f1_of(0.6, 0.9) == pytest.approx(0.72)


def test_a_missing_score_is_counted_wrong_and_reported() -> None:
    hole = np.array([0.9, np.nan, 0.1], np.float32)
    assert predict(hole, 0.5) is None
    assert predict(np.array([0.1, np.nan], np.float32), 0.5) == 0
    found = localization([2, -1], [hole, hole], 0.5)
    assert found.num_incomplete == 2 and found.f1 == 0


def test_the_threshold_is_tuned_on_one_split_and_used_on_the_others() -> None:
    def solution(source: str, low: float, label: int) -> tuple[StepRow, np.ndarray[Any, Any]]:
        labels = (0.0, None) if label == 0 else (1.0, 1.0)
        return row(id=f"{source}{low}", source=source, steps=("a", "b"), labels=labels), np.array(
            [low, 0.95], np.float32
        )

    pairs = [solution("gsm8k", 0.3, 0), solution("gsm8k", 0.5, -1), solution("math", 0.45, 0), solution("math", 0.2, 0),
             solution("math", 0.9, -1)]  # fmt: skip
    rows, scores = [p[0] for p in pairs], [p[1] for p in pairs]
    found = processbench(rows, scores, threshold=None, tuned_on="gsm8k")
    assert found["gsm8k"].f1 == 1 and 0.3 < found["gsm8k"].threshold <= 0.5
    assert found["math"].threshold == found["gsm8k"].threshold and found["math"].error_accuracy == 0.5
    with pytest.raises(ValueError, match="no row has the source"):
        processbench(rows, scores, threshold=None, tuned_on="x")


# ------------------------------------------------------------------------------- PRMBench, AUC, best of N


def test_prmbench_numbers() -> None:
    rows = [row(source="circular", labels=(1.0, 0.0, 1.0)), row(source="redundency", labels=(1.0, 1.0, 0.0))]
    scores = [np.array([0.9, 0.6, 0.4], np.float32), np.array([0.2, 0.9, 0.1], np.float32)]
    found = prmbench(rows, scores)
    # circular: right steps 1, 3; predicted right 1, 2 -> F1 1/2; wrong steps 2; predicted wrong 3 -> 0
    assert found["circular"] == {"f1": 0.5, "negative_f1": 0.0, "prm_score": 0.25, "first_error_accuracy": 0.0}
    assert found["redundency"]["prm_score"] == 1.0  # its threshold is 0.15
    assert found["mean"]["prm_score"] == pytest.approx(0.625)
    clean = prmbench([row(labels=(1.0, 1.0, 1.0))], [np.full(3, 0.9, np.float32)])["all"]
    assert clean["f1"] == 1 and math.isnan(clean["negative_f1"]) and clean["prm_score"] == 1


def test_auc_counts_pairs() -> None:
    assert auc([0.9, 0.4, 0.6, 0.4], [1, 1, 0, 0]) == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert math.isnan(auc([0.5], [1]))
    figures = step_figures([row(labels=(1.0, 0.0, None))] * 2, [np.array([0.8, 0.2, np.nan], np.float32)] * 2)
    assert figures["steps"] == 4 and figures["auc"] == 1 and figures["ece"] == pytest.approx(0.2)
    assert all(math.isnan(value) for value in figures["auc_by_position"])  # one sort of label at each position


def test_a_scorer_of_answers_has_its_lowest_score_last() -> None:
    nan = float("nan")
    rows = [[0.2, 0.9], [0.9, 0.2], [0.8, 0.3, nan], [0.5, 0.5, 0.7], [0.1], [nan, 0.3], [nan]]
    assert worst_is_last([np.asarray(r, np.float32) for r in rows]) == pytest.approx(2 / 3)
    assert np.isnan(worst_is_last([np.asarray([1.0, 1.0], np.float32)]))


def test_best_of_n_gain() -> None:
    rows = [row(id=str(i), outcome=float(i == 1)) for i in range(3)] + [row(id="9", question="other", outcome=1.0)]
    found = best_of_n(rows, {"0": 0.1, "1": 0.7, "2": 0.3, "9": 1.0}, size=3)
    assert found == {
        "questions": 1.0,
        "best": 1.0,
        "random": pytest.approx(1 / 3),
        "oracle": 1.0,
        "gain": pytest.approx(2 / 3),
    }


# ------------------------------------------------------------------------------------------------ calibration


def test_temperature_finds_the_scale_and_keeps_the_order() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(size=20_000) * 2
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-odds))).astype(float)
    overconfident = 1 / (1 + np.exp(-3 * odds))
    fitted = calibration.fit("temperature", overconfident, labels)
    assert fitted["temperature"] == pytest.approx(3, rel=0.05)
    better = calibration.apply(fitted, overconfident)
    assert calibration.expected_calibration_error(better, labels) < 0.02
    assert calibration.expected_calibration_error(overconfident, labels) > 0.1


def test_isotonic_pools_violators() -> None:
    fitted = calibration.fit("isotonic", [0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
    assert calibration.apply(fitted, [0.05, 0.1, 0.25, 0.35, 0.9]).tolist() == [0, 0, 0.5, 0.5, 1]
    assert math.isnan(calibration.apply(fitted, [np.nan])[0])
    assert calibration.apply({}, [0.3]).tolist() == [0.3]
    with pytest.raises(ValueError, match="of type temperature or isotonic"):
        calibration.apply({"type": "magic"}, [0.3])


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_isotonic_never_falls_and_keeps_the_mean(pairs: list[tuple[float, bool]]) -> None:
    scores, labels = [p for p, _ in pairs], [float(y) for _, y in pairs]
    _, values = calibration.fit_isotonic(scores, labels)
    assert (np.diff(values) > 0).all() or len(values) == 1
    fitted = calibration.fit("isotonic", scores, labels)
    assert calibration.apply(fitted, scores).mean() == pytest.approx(np.mean(labels))


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    tokens = row(
        id="b", token_ids=(1, 2, 3, 4), spans=((1, 2), (2, 3), (3, 4)), prompt_len=1, meta={"n": [1, {"m": "ü"}]}
    )
    rows = [row(outcome=0.0), tokens, row(id="c", kind="soft", labels=(0.25, None, 1.0))]
    assert write_rows(tmp_path / f"rows{suffix}", rows) == 3
    assert read_rows(tmp_path / f"rows{suffix}") == rows


def test_rows_that_lie_are_refused(tmp_path: Path) -> None:
    for changes, named in [
        ({"labels": (1.0,)}, "1 labels for 3 steps"),
        ({"labels": (0.5, 1.0, None)}, "kind hard cannot be 0.5"),
        ({"outcome": 2.0}, "outcome lies in"),
        ({"token_ids": (1, 2), "spans": ((0, 1), (1, 2), (2, 3))}, "one token range a step"),
        ({"token_ids": (1, 2)}, "come together"),
    ]:
        with pytest.raises(ValueError, match=named):
            row(**changes)
    (tmp_path / "bad.jsonl").write_text(
        '{"id": "1", "question": "q", "steps": [], "labels": [], "kind": "hard", "x": 1}\n'
    )
    with pytest.raises(ValueError, match=r"row 1: unknown fields \['x'\]"):
        read_rows(tmp_path / "bad.jsonl")


def test_first_errors() -> None:
    assert row().first_error == 1
    assert row(labels=(1.0, None, 0.0)).first_error is None
    assert row(labels=(1.0, 1.0, 1.0)).first_error == -1
    assert row(labels=(1.0, 0.0, -1.0), kind="three_way").first_error == 2


def test_solutions_of_one_question_stay_on_one_side() -> None:
    rows = [row(id=f"{q}/{i}", question=str(q)) for q in range(200) for i in range(3)]
    train, held = split_rows(rows, 0.25, seed=1)
    assert not {r.question for r in train} & {r.question for r in held}
    assert 0.15 < len(held) / len(rows) < 0.35


def completion(text: str, rating: int | None) -> dict[str, Any]:
    return {"text": text, "rating": rating, "flagged": False}


def prm800k(steps: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    label = {"steps": steps, "total_time": 1, "finish_reason": "found_error"}
    return {"question": {"problem": "P", "ground_truth_answer": "7"}, "label": label} | changes


def test_prm800k_alternatives_share_the_chosen_past(tmp_path: Path) -> None:
    steps = [
        {"completions": [completion("a", 1), completion("b", -1)], "human_completion": None, "chosen_completion": 0},
        {
            "completions": [completion("c", -1)],
            "human_completion": {"text": "h", "rating": None},
            "chosen_completion": None,
        },
        {
            "completions": [completion("d", 0), completion("e", None)],
            "human_completion": None,
            "chosen_completion": None,
        },
    ]
    lines = [prm800k(steps), prm800k(steps, is_quality_control_question=True)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    name, rows = read_any(tmp_path / "p.jsonl")
    assert name == "prm800k"
    assert [(r.steps, r.labels) for r in rows] == [
        (("a",), (1.0,)), (("b",), (-1.0,)), (("a", "c"), (1.0, -1.0)), (("a", "h", "d"), (1.0, 1.0, 0.0))
    ]  # fmt: skip
    assert all(-1 not in r.labels[:-1] and r.kind == "three_way" for r in rows)


def test_math_shepherd_signs_are_read_at_the_tags(tmp_path: Path) -> None:
    tag = "\u043a\u0438"
    value = {
        "input": f"Two + 3? Step 1: 2 + 3 = 5 {tag}\nStep 2: The answer is: 5 {tag}",
        "label": "Two + 3? Step 1: 2 + 3 = 5 +\nStep 2: The answer is: 5 -",
        "task": "GSM8K",
    }
    (tmp_path / "m.jsonl").write_text(json.dumps(value))
    _, (found,) = read_any(tmp_path / "m.jsonl")
    assert found.question == "Two + 3?" and found.steps == ("Step 1: 2 + 3 = 5", "Step 2: The answer is: 5")
    assert found.labels == (1.0, 0.0) and found.outcome == 0.0
    (tmp_path / "m.jsonl").write_text(json.dumps(value | {"label": "other + text"}))
    with pytest.raises(ValueError, match="row 1: the texts of input and label differ"):
        read_any(tmp_path / "m.jsonl")


def test_benchmarks_are_read(tmp_path: Path) -> None:
    bench = {"id": "gsm8k-7", "problem": "P", "steps": ["a", "b", "c"], "final_answer_correct": False, "label": 1}
    (tmp_path / "b.json").write_text(json.dumps([bench, bench | {"id": "gsm8k-8", "label": -1}]))
    name, (wrong, right) = read_any(tmp_path / "b.json")
    assert name == "processbench" and wrong.labels == (1.0, 0.0, None) and wrong.first_error == 1
    assert wrong.source == "gsm8k" and wrong.outcome == 0.0 and right.first_error == -1
    other = {"idx": "p1", "question": "Q", "modified_question": "M", "modified_process": ["a", "b"], "error_steps": [2],
             "classification": "circular"}  # fmt: skip
    (tmp_path / "c.jsonl").write_text(json.dumps(other))
    name, (found,) = read_any(tmp_path / "c.jsonl")
    assert name == "prmbench" and found.labels == (1.0, 0.0) and found.question == "M"
    (tmp_path / "c.jsonl").write_text(json.dumps(other | {"error_steps": [0]}))
    with pytest.raises(ValueError, match="counted from 1 to 2"):
        read_any(tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl").write_text('{"what": 1}')
    with pytest.raises(ValueError, match="of no known format"):
        read_any(tmp_path / "d.jsonl")


@pytest.mark.parametrize("name", ["processbench", "math_shepherd", "prm800k", "prmbench"])
def test_what_is_written_as_a_format_is_read_as_it(tmp_path: Path, name: str) -> None:
    labels = (1.0, 1.0, 0.0)
    steps = tuple(f"Step {i}: {i}" for i in (1, 2, 3))
    assert write_as(name, tmp_path / "x.jsonl", [row(labels=labels, steps=steps, outcome=0.0)]) == 1
    found, rows = read_any(tmp_path / "x.jsonl")
    assert found == name and rows[-1].steps == steps and rows[-1].first_error == 2
    assert write_as(name, tmp_path / "y.jsonl", [row(labels=(None, None, None))]) == (name == "prm800k")
