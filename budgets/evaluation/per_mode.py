"""Everything that is reported about one mode by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from budgets.evaluation import intervals, majority, pass_at_k
from budgets.evaluation.adherence import adherence
from budgets.evaluation.attempt import Attempt, AttemptTable, FloatArray
from budgets.evaluation.calibration import calibration
from budgets.evaluation.decision import decisions
from budgets.evaluation.difficulty import BINS, difficulty_bins, success_elsewhere
from budgets.evaluation.intervals import number
from budgets.evaluation.leak import LeakDetector
from budgets.modes import Mode
from rollout.schema import Finish


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """The table with what is derived from all modes together."""

    table: AttemptTable
    bins: npt.NDArray[np.int64]  # [M, N, K]
    elsewhere: FloatArray  # [M, N, K]
    detector: LeakDetector
    seed: int

    @classmethod
    def of(cls, table: AttemptTable, detector: LeakDetector, *, seed: int) -> Measured:
        return cls(
            table=table,
            bins=difficulty_bins(table.correct),
            elsewhere=success_elsewhere(table.correct),
            detector=detector,
            seed=seed,
        )


def report_mode(measured: Measured, index: int, mode: Mode) -> dict[str, Any]:
    """The JSON entry of one mode."""
    table, seed = measured.table, measured.seed
    attempts = table.of_mode(index)
    seen = [a for a in attempts if a.has_response]
    unjudged = Counter(a.status for a in attempts if a.correct is None)
    correct = table.correct[index]
    ks = pass_at_k.ladder(correct.shape[-1])
    leaks = [leak for a in seen if (leak := measured.detector.leaks(a)) is not None]
    rates = [measured.elsewhere[index, n, a.sample] for n, row in enumerate(table.attempts[index]) for a in row if a]
    return {
        **mode.as_json(),
        "num_tasks": int((~np.isnan(correct)).any(axis=1).sum()),
        "num_attempts": len(attempts),
        "num_judged": len(attempts) - unjudged.total(),
        "unjudged": dict(sorted(unjudged.items())),
        "pass@1": intervals.mean(intervals.task_means(correct), seed=seed, is_share=True).as_json(),
        "pass@k": {str(k): intervals.shares(pass_at_k.per_task(correct, k), seed=seed) for k in ks},
        "majority@k": {
            str(k): intervals.shares(majority.per_task(table.attempts[index], k, seed=seed), seed=seed) for k in ks
        },
        "thinking_tokens": _tokens(table.thinking[index], seed),
        "answer_tokens": _tokens(table.answer[index], seed),
        "response_tokens": _tokens(table.response[index], seed),
        "tokens_are_estimated": any(a.is_estimated for a in seen),
        "truncated": _share([a.finish is Finish.LENGTH for a in seen]),
        "unclosed": _share([a.answer is None for a in seen]),
        "leak_rate": _share(leaks),
        "adherence": _adherence(attempts, mode),
        "calibration": calibration(attempts, rates),
        "decisions": decisions(attempts),
        "by_source": {name: _slice(measured, index, mask) for name, mask in _source_masks(table).items()},
        "by_difficulty": {
            name: _slice(measured, index, measured.bins[index] == place) for place, name in enumerate(BINS)
        },
    }


def _tokens(values: FloatArray, seed: int) -> dict[str, float | None]:
    """Mean over tasks with its interval, and the 95th percentile over attempts."""
    known = values[~np.isnan(values)]
    mean = intervals.mean(intervals.task_means(values), seed=seed)
    p95 = number(float(np.quantile(known, 0.95))) if len(known) else None
    return {"mean": number(mean.value), "low": number(mean.low), "high": number(mean.high), "p95": p95}


def _slice(measured: Measured, index: int, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Attempts of one source or bin, [N, K] or [N, 1] mask: means over attempts, resampled by task."""
    correct = np.where(mask, measured.table.correct[index], np.nan)
    thinking = np.where(mask, measured.table.thinking[index], np.nan)
    figures = {}
    for name, values in (("accuracy", correct), ("thinking_tokens", thinking)):
        counts = (~np.isnan(values)).sum(axis=1).astype(np.float64)
        figures[name] = intervals.pooled_mean(np.nansum(values, axis=1), counts, seed=measured.seed).as_json()
    judged = ~np.isnan(correct)
    return {"num_tasks": int(judged.any(axis=1).sum()), "num_judged": int(judged.sum()), **figures}


def _source_masks(table: AttemptTable) -> dict[str, npt.NDArray[np.bool_]]:
    return {name: np.asarray([s == name for s in table.sources])[:, None] for name in sorted(set(table.sources))}


def _adherence(attempts: Sequence[Attempt], mode: Mode) -> dict[str, float | None] | None:
    if not mode.promised:  # no cap at all, or no thinking at all: nothing the model could keep to
        return None
    return {name: None if v is None else number(v) for name, v in adherence(attempts, mode.promised).items()}


def _share(flags: Sequence[bool]) -> float | None:
    return number(sum(flags) / len(flags)) if flags else None
