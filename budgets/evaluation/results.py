"""From attempts to the results of an evaluation: one JSON value, the same for the same attempts in any order."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from budgets.evaluation import intervals
from budgets.evaluation.act import act_scores
from budgets.evaluation.attempt import Attempt, AttemptTable
from budgets.evaluation.difficulty import BINS, EDGES
from budgets.evaluation.frontier import area_under, pareto
from budgets.evaluation.intervals import number
from budgets.evaluation.leak import LeakDetector
from budgets.evaluation.per_mode import Measured, report_mode
from budgets.modes import Mode

FORMAT = 1
Point = tuple[float, float]  # mean thinking tokens, accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where another evaluation stands: what the ACT score is measured against in place of the base mode."""

    name: str
    point: Point


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """What was measured: the results for people and programs, and the table they come from."""

    results: dict[str, Any]
    measured: Measured


def evaluate_modes(
    attempts: Sequence[Attempt],
    *,
    modes: Sequence[Mode],
    tasks: Mapping[str, str],
    base: str,
    detector: LeakDetector,
    seed: int,
    reference: Reference | None = None,
) -> Evaluation:
    """All statistics. `tasks` maps keys to sources in order; `base` is the mode that the others are compared with."""
    table = AttemptTable.of(attempts, [mode.name for mode in modes], tasks)
    measured = Measured.of(table, detector, seed=seed)
    reports = {mode.name: report_mode(measured, i, mode) for i, mode in enumerate(modes)}
    points = {name: point for name, report in reports.items() if (point := point_of(report)) is not None}
    efforts = [mode.name for mode in modes if mode.kind == "effort" and mode.name in points]
    results = {
        "format": FORMAT,
        "num_tasks": len(table.tasks),
        "num_samples": table.correct.shape[-1],
        "sources": sorted(set(table.sources)),
        "difficulty_bins": {"names": list(BINS), "edges": [number(edge) for edge in EDGES]},
        "base": base,
        "modes": reports,
        "against_base": {m.name: _against(measured, m.name, base) for m in modes if m.name != base},
        "frontier": {"modes": pareto(points), "area": number(area_under(points))},
        "act": _act(points, efforts, base, reference),
    }
    return Evaluation(results=results, measured=measured)


def point_of(report: Mapping[str, Any]) -> Point | None:
    """Where a mode stands in the plot; None if nothing of it was judged."""
    x, y = report["thinking_tokens"]["mean"], report["pass@1"]["value"]
    return None if x is None or y is None else (x, y)


def _against(measured: Measured, mode: str, base: str) -> dict[str, Any]:
    """Differences and ratios to the base, over the tasks that both modes have."""
    table, seed = measured.table, measured.seed
    i, j = table.modes.index(mode), table.modes.index(base)
    columns = {"accuracy": table.correct, "thinking_tokens": table.thinking, "response_tokens": table.response}
    found: dict[str, Any] = {}
    for name, values in columns.items():
        means = (intervals.task_means(values[i]), intervals.task_means(values[j]))
        difference, ratio = intervals.paired(*means, seed=seed)
        found |= {f"{name}_difference": difference.as_json(), f"{name}_ratio": ratio.as_json()}
    return found


def _act(
    points: Mapping[str, Point], efforts: Sequence[str], base: str, reference: Reference | None
) -> dict[str, Any] | None:
    """ACT scores of the named efforts; None without an effort or a base to measure against."""
    point = points.get(base) if reference is None else reference.point
    if not efforts or point is None or min(point) <= 0:
        return None
    scores = act_scores(points, efforts, point)
    mean = math.fsum(scores.values()) / len(scores)
    return {
        "base": base if reference is None else reference.name,
        "modes": {name: number(value) for name, value in scores.items()},
        "mean": number(mean),
    }
