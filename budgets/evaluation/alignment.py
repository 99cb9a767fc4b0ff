"""How well a model fits a set of tasks before any reinforcement learning: pass@k by source, level and difficulty.

Axes: N tasks, K samples. Difficulty is measured on one half of a task's samples and pass@k on the other half, both ways
round, so that no sample sorts itself; there k ends at K / 2. A level is what the tasks themselves say of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from budgets.evaluation import informative, intervals, majority, pass_at_k
from budgets.evaluation.attempt import Attempt, AttemptTable, FloatArray
from budgets.evaluation.difficulty import BINS, difficulty_bins
from budgets.evaluation.intervals import number
from budgets.evaluation.tricks import REFERENCE_K, STRONG_AT, Figures, advise, pair_of
from rollout.schema import Finish

FORMAT = 1


def measure_alignment(
    attempts: Sequence[Attempt],
    *,
    mode: str,
    tasks: Mapping[str, str],
    levels: Mapping[str, str],
    group_size: int,
    seed: int,
) -> dict[str, Any]:
    """All figures and the advice, as JSON. `tasks` maps keys to sources in order, `levels` some keys to levels.

    Raises ValueError when nothing could be judged.
    """
    table = AttemptTable.of(attempts, [mode], tasks)
    correct = table.correct[0]
    if np.isnan(correct).all():
        raise ValueError(f"none of the {len(attempts)} attempts could be judged, so there is nothing to advise on")
    ks = pass_at_k.ladder(correct.shape[-1])
    group = min(group_size, ks[-1])
    report = {
        "format": FORMAT,
        "mode": mode,
        "num_tasks": len(table.tasks),
        "num_samples": correct.shape[-1],
        **_ladder(correct, ks, seed),
        "majority@k": {
            str(k): intervals.shares(majority.per_task(table.attempts[0], k, seed=seed), seed=seed) for k in ks
        },
        "informative": {"group_size": group, **intervals.shares(informative.per_task(correct, group), seed=seed)},
        "tasks_by_rate": _by_rate(correct),
        **_ends(table.of_mode(0)),
        "by_source": _slices(correct, table.sources, ks, seed),
        "by_level": _slices(correct, [levels.get(key, "") for key in table.tasks], ks, seed),
        "by_difficulty": _by_difficulty(correct, seed),
    }
    figures = _figures(report, ks[-1])
    verdict = {"pair": pair_of(figures), "strong_at": STRONG_AT, "reference_k": REFERENCE_K}
    return {**report, "verdict": verdict, "advice": [asdict(advice) for advice in advise(figures)]}


def _figures(report: Mapping[str, Any], most: int) -> Figures:
    """The largest k that tasks have enough judged samples for."""
    k = max(k for k in map(int, report["pass@k"]) if k <= most and report["pass@k"][str(k)]["value"] is not None)
    group = report["informative"]
    return Figures(
        k=k,
        pass_low=report["pass@k"][str(k)]["low"],
        pass_high=report["pass@k"][str(k)]["high"],
        pass_at_1=report["pass@1"]["value"],
        majority=report["majority@k"][str(k)]["value"],
        informative=0.0 if group["value"] is None else group["value"],
        group_size=group["group_size"],
    )


def _ladder(correct: FloatArray, ks: Sequence[int], seed: int) -> dict[str, Any]:
    """pass@1 as the mean over judged samples, and pass@k over tasks with k of them."""
    return {
        "pass@1": intervals.shares(intervals.task_means(correct), seed=seed),
        "pass@k": {str(k): intervals.shares(pass_at_k.per_task(correct, k), seed=seed) for k in ks},
    }


def _slices(correct: FloatArray, names: Sequence[str], ks: Sequence[int], seed: int) -> dict[str, Any]:
    """The tasks of each name apart; tasks whose name is empty belong to none."""
    labels = np.asarray(names)
    return {name: _ladder(correct[labels == name], ks, seed) for name in sorted({n for n in names if n}, key=_in_order)}


def _in_order(name: str) -> tuple[float, str]:
    """Levels that are numbers stand by size."""
    try:
        return float(name), name
    except ValueError:
        return np.inf, name


def _by_difficulty(correct: FloatArray, seed: int) -> dict[str, Any]:
    """By bin: [2N] half-tasks, each placed by its other half."""
    halves = [correct[:, half::2] for half in (0, 1)]
    size = min(half.shape[1] for half in halves)
    if size == 0:
        return {}
    bins: npt.NDArray[np.int64] = difficulty_bins(correct[None])[0]
    places = np.concatenate([bins[:, 0], bins[:, 1]])
    stacked = np.concatenate([half[:, :size] for half in halves])
    ks = pass_at_k.ladder(size)
    return {
        name: {**_ladder(stacked[places == place], ks, seed), "share_of_tasks": number(float((places == place).mean()))}
        for place, name in enumerate(BINS)
    }


def _by_rate(correct: FloatArray) -> dict[str, int]:
    """Tasks that no sample solved, that some did, that all did."""
    means = intervals.task_means(correct)
    return {
        "never": int((means == 0).sum()),
        "sometimes": int(((means > 0) & (means < 1)).sum()),
        "always": int((means == 1).sum()),
    }


def _ends(attempts: Sequence[Attempt]) -> dict[str, Any]:
    """How attempts ended: limits that cut them show as wrong answers that no training is needed against."""
    seen = [a for a in attempts if a.has_response]
    truncated = [a.finish is Finish.LENGTH for a in seen]
    return {
        "num_attempts": len(attempts),
        "num_judged": sum(a.correct is not None for a in attempts),
        "truncated": number(sum(truncated) / len(truncated)) if truncated else None,
        "unclosed": number(sum(a.answer is None for a in seen) / len(seen)) if seen else None,
    }
