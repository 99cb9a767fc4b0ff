"""Step scores order answers within right and within wrong, never across (reward shaping of Qwen2.5-Math).

Formula: reward = sigmoid(alpha * m) + (ok - 1), m the answer's score. A right answer is in (0, 1), a wrong one in
(-1, 0), so every right one is above every wrong one, whatever the scores are.
    kind prob       m = log(p / (1 - p)) of the aggregated p, which is first held within [0.02, 0.98]
    kind logratio   m = the aggregate, by default their sum; kind q: the aggregate, usually the last
Source: arXiv 2409.12122, where m comes from a model that scores whole answers; step scores in its place are ours.
Assumption: m differs within a group by more than noise. Division by the group's deviation makes noise large where all
verdicts agree, so groups that are all right or all wrong are left as they are.
What it is not: a step-wise signal; all tokens of an answer share it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rl.credit.steps.rows import FloatArray, Row
from rollout.schema import ScoreKind

PROB_BOUNDS = (0.02, 0.98)


def shaped_rewards(scores: FloatArray, correct: FloatArray, *, alpha: float) -> FloatArray:
    """[G] rewards of answers of scores [G] (unbounded; NaN counts as the group's mean) and verdicts [G] of 0 and 1."""
    bonus = 1.0 / (1.0 + np.exp(-alpha * scores))
    known = bonus[~np.isnan(bonus)]
    return np.where(np.isnan(bonus), known.mean() if known.size else 0.5, bonus) + (correct - 1.0)


def answer_scores(rows: Sequence[Row], kind: ScoreKind | None, aggregate: str) -> FloatArray:
    """[G] one score an answer, NaN where there is none. Raises ValueError for a sum of probabilities."""
    if kind is ScoreKind.PROB and aggregate == "sum":
        raise ValueError("credit.process.aggregate = 'sum' pays probabilities by the step; use 'min', 'mean' or 'last'")
    found = np.asarray([np.nan if row is None else _aggregated(row.scores, aggregate) for row in rows])
    if kind is ScoreKind.PROB:
        held = np.clip(found, *PROB_BOUNDS)
        found = np.log(held / (1.0 - held))
    return found


def _aggregated(scores: FloatArray, aggregate: str) -> float:
    match aggregate:
        case "min":
            return float(scores.min())
        case "mean":
            return float(scores.mean())
        case "last":
            return float(scores[-1])
    return float(scores.sum())
