"""How good step scores are: the protocols of ProcessBench and PRMBench, AUC by position, calibration, best of N.

    ProcessBench   prediction = first step with score < tau, else -1
                   a = share of solutions with an error where the index is exact, b = share of right ones where it is -1
                   F1 = 2 a b / (a + b), 0 if a + b = 0
    tau            the score that maximizes F1 on the tuning split (GSM8K's in ProcessBench), used on all others
    PRMBench       a step is predicted right when score >= 0.5 (0.15 for redundancy); F1 with right steps as positive,
                   negative F1 with wrong ones, PRM score = their mean
    AUC            P(a right step scores above a wrong one) + P(equal) / 2, at each position and over all

A solution whose scores are incomplete (the model could not reach a step, or the service failed) counts as wrong and is
reported. Sources: arXiv 2412.06559 and 2501.03124. That PRM score weighs its halves equally is from memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prm.calibration import curve, expected_calibration_error
from prm.data import StepRow

Scores = npt.NDArray[np.float32]
REDUNDANCY_THRESHOLD = 0.15
VALIDITY_THRESHOLD = 0.5
NO_ERROR = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Localization:
    """ProcessBench's figures of one split."""

    f1: float
    error_accuracy: float  # NaN without a solution of that sort
    correct_accuracy: float
    threshold: float
    num_errors: int
    num_correct: int
    num_incomplete: int


def predict(scores: Scores, threshold: float) -> int | None:
    """Index of the first step below the threshold, -1 if there is none, None when scores are missing before it."""
    for index, score in enumerate(scores.tolist()):
        if math.isnan(score):
            return None
        if score < threshold:
            return index
    return NO_ERROR


def localization(labels: Sequence[int], scores: Sequence[Scores], threshold: float) -> Localization:
    """Figures at one threshold. `labels` are indices of the first error, -1 for none."""
    predictions = [predict(found, threshold) for found in scores]
    errors = [p == label for p, label in zip(predictions, labels, strict=True) if label != NO_ERROR]
    correct = [p == label for p, label in zip(predictions, labels, strict=True) if label == NO_ERROR]
    a, b = (float(np.mean(hits)) if hits else math.nan for hits in (errors, correct))
    return Localization(
        f1=f1_of(a, b),
        error_accuracy=a,
        correct_accuracy=b,
        threshold=threshold,
        num_errors=len(errors),
        num_correct=len(correct),
        num_incomplete=sum(p is None for p in predictions),
    )


def f1_of(a: float, b: float) -> float:
    """Harmonic mean of two accuracies; 0 when both are 0, or one of them is unknown."""
    if math.isnan(a) or math.isnan(b) or a + b == 0:
        return 0.0
    return float(2 * a * b / (a + b))


def best_threshold(labels: Sequence[int], scores: Sequence[Scores], *, candidates: int = 1000) -> float:
    """The threshold with the largest F1, among all distinct scores or that many quantiles of them. Ties: the middle.

    A threshold lies halfway between two neighboring scores, so that it holds on other solutions, too.
    """
    known = np.unique(np.concatenate([np.asarray(s, np.float64)[~np.isnan(s)] for s in scores] or [np.zeros(0)]))
    if known.size == 0:
        raise ValueError("no step has a score, so there is no threshold to choose")
    if known.size > candidates:
        known = np.unique(np.quantile(known, np.linspace(0, 1, candidates)))
    cuts = [float(known[0]), *((known[1:] + known[:-1]) / 2).tolist(), float(np.nextafter(known[-1], np.inf))]
    found = [localization(labels, scores, cut).f1 for cut in cuts]
    best = [cut for cut, value in zip(cuts, found, strict=True) if value == max(found)]
    return float(best[len(best) // 2])


def processbench(
    rows: Sequence[StepRow], scores: Sequence[Scores], *, threshold: float | None, tuned_on: str | None = None
) -> dict[str, Localization]:
    """Figures of each source. Without a threshold it is tuned on the source `tuned_on`, or on all rows.

    Rows whose first error is unknown are left out. Raises ValueError when none is left, or `tuned_on` has none.
    """
    known = [(row, s, row.first_error) for row, s in zip(rows, scores, strict=True) if row.first_error is not None]
    if not known:
        raise ValueError("no row says where its first error is")
    if threshold is None:
        tuning = [(label, s) for row, s, label in known if tuned_on in (None, row.source)]
        if not tuning:
            raise ValueError(f"no row has the source {tuned_on!r} to tune the threshold on")
        threshold = best_threshold([label for label, _ in tuning], [s for _, s in tuning])
    sources = dict.fromkeys(row.source or "all" for row, _, _ in known)
    return {
        source: localization(
            [label for row, _, label in known if (row.source or "all") == source],
            [s for row, s, _ in known if (row.source or "all") == source],
            threshold,
        )
        for source in sources
    }


def prmbench(rows: Sequence[StepRow], scores: Sequence[Scores]) -> dict[str, dict[str, float]]:
    """Of each class and of `all`: F1 of right steps, negative F1 of wrong ones, their mean, accuracy of the first
    error. A figure that is not defined is NaN and is left out of the mean of the classes."""
    classes: dict[str, list[tuple[StepRow, Scores]]] = {}
    for row, found in zip(rows, scores, strict=True):
        classes.setdefault(row.source or "all", []).append((row, found))
    figures = {name: _prmbench_of(name, pairs) for name, pairs in classes.items()}
    names = ("f1", "negative_f1", "prm_score", "first_error_accuracy")
    figures["mean"] = {name: _nan_mean([f[name] for f in figures.values()]) for name in names}
    return figures


def _prmbench_of(name: str, pairs: Sequence[tuple[StepRow, Scores]]) -> dict[str, float]:
    threshold = REDUNDANCY_THRESHOLD if name.startswith("redund") else VALIDITY_THRESHOLD
    truth = np.concatenate([np.asarray(row.labels, np.float64) for row, _ in pairs])
    guess = np.concatenate([s >= threshold for _, s in pairs])  # NaN: not predicted right
    first = [predict(s, threshold) == row.first_error for row, s in pairs if row.first_error not in (None, NO_ERROR)]
    positive, negative = _step_f1(guess, truth == 1), _step_f1(~guess, truth == 0)
    return {
        "f1": positive,
        "negative_f1": negative,
        "prm_score": _nan_mean([positive, negative]),
        "first_error_accuracy": float(np.mean(first)) if first else math.nan,
    }


def _step_f1(guess: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """NaN without a step of that sort, 0 when none was found."""
    if not truth.any():
        return math.nan
    return float(2 * (guess & truth).sum() / (guess.sum() + truth.sum()))


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Area under the ROC curve for labels 1 and 0; NaN when one of them is missing."""
    s, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    positive, negative = s[y == 1], s[y == 0]
    if not positive.size or not negative.size:
        return math.nan
    order = np.sort(negative)
    below = np.searchsorted(order, positive, side="left") + np.searchsorted(order, positive, side="right")
    return float(below.sum() / (2 * positive.size * negative.size))


def step_figures(rows: Sequence[StepRow], scores: Sequence[Scores], *, positions: int = 10) -> dict[str, Any]:
    """AUC over all steps and at each position, and for scores in [0, 1] the calibration curve and its error (ECE).

    Steps without a score or a label, or with one that is neither right nor wrong, are left out.
    """
    s, y, at = [], [], []
    for row, found in zip(rows, scores, strict=True):
        for position, (score, label) in enumerate(zip(found.tolist(), row.labels, strict=True)):
            truth = _truth(row.kind, label)
            if truth is not None and not math.isnan(score):
                s.append(score)
                y.append(truth)
                at.append(position)
    places = np.asarray(at)
    values, truths = np.asarray(s), np.asarray(y)
    figures: dict[str, Any] = {
        "steps": len(s),
        "auc": auc(values, truths),
        "auc_by_position": [auc(values[places == p], truths[places == p]) for p in range(positions)],
        "worst_is_last": worst_is_last(scores),
    }
    if len(s) and values.min() >= 0 and values.max() <= 1:
        figures["ece"] = expected_calibration_error(values, truths)
        figures["calibration"] = curve(values, truths)
    return figures


def worst_is_last(scores: Sequence[Scores]) -> float:
    """Share of solutions whose lowest score is the last step's; NaN without a solution that could tell.

    Much above the share of wrong answers, the scorer judges answers, not steps (Lessons of Developing PRMs, arXiv
    2501.07301: 18 % for Qwen's own, over 40 % for others). Solutions of one scored step, or with several lowest
    scores, tell nothing.
    """
    known = [s[~np.isnan(s)] for s in scores]
    lowest = [np.flatnonzero(s == s.min()) for s in known if s.size > 1]
    sizes = [s.size for s in known if s.size > 1]
    return _nan_mean([float(at[0] == size - 1) for at, size in zip(lowest, sizes, strict=True) if at.size == 1])


def _truth(kind: str, label: float | None) -> float | None:
    if label is None:
        return None
    if kind == "three_way":
        return float(label >= 0)
    right, wrong = (1.0, -1.0) if kind == "value" else (1.0, 0.0)
    return 1.0 if label == right else 0.0 if label == wrong else None


def best_of_n(rows: Sequence[StepRow], numbers: Mapping[str, float], *, size: int) -> dict[str, float]:
    """Mean outcome when the best scored of the first `size` solutions of each question is taken.

    `numbers` is one number a row, by id. Questions with fewer judged solutions are left out. Beside it: what a random
    pick gives, what the best pick could give, and the gain over random.
    """
    questions: dict[str, list[StepRow]] = {}
    for row in rows:
        if row.outcome is not None and not math.isnan(numbers[row.id]):
            questions.setdefault(row.question, []).append(row)
    whole: list[list[StepRow]] = [found[:size] for found in questions.values() if len(found) >= size]
    if not whole:
        return {"questions": 0.0}
    outcomes = [[float(row.outcome or 0) for row in found] for found in whole]
    picked = [max(found, key=lambda row: numbers[row.id]).outcome or 0.0 for found in whole]
    chance, possible = float(np.mean(outcomes)), float(np.mean([max(o) for o in outcomes]))
    best = float(np.mean(picked))
    return {"questions": float(len(whole)), "best": best, "random": chance, "oracle": possible, "gain": best - chance}


def _nan_mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan
