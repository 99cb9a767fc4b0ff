"""Everything a report is made of, read from a finished, running or killed run's directory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.evaluate import EvalResult
from rl.hack_alarms import ALARMS
from rl.metrics import read_metrics
from rl.report.curves import Series, ranked_names, series_of

MODES = ("sampled", "greedy")
# Names of metrics that the loop writes and the report, the console and the summary read.
REWARD = "reward/mean"
ACCURACY = "train/*/accuracy"  # the star stands for an effort
THINKING = "train/*/thinking_tokens"
DROPPED = "dropped/*"  # the star stands for a reason; groups of one step
STALENESS = "buffer/max_staleness"  # optimizer steps between sampling and training, worst of a batch
TOKENS_PER_S = "generate/tokens_per_s"
TIME_METRICS = {  # part of a step -> metric with its seconds
    "generate": "time/generate_s",
    "judge": "time/judge_s",
    "learn": "time/learn_s",
    "publish": "time/publish_s",
}
_EVAL_NAMES = ("accuracy", "low", "high", "thinking_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPoint:
    """One effort in one decoding mode: accuracy as a fraction with its 95% interval, mean thinking tokens."""

    accuracy: float
    low: float
    high: float
    thinking_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All cells of the evaluation after training step `step`, by (effort, mode)."""

    step: int
    points: Mapping[tuple[str, str], EvalPoint]

    @property
    def efforts(self) -> list[str]:
        return ranked_names([effort for effort, _ in self.points])

    @property
    def modes(self) -> list[str]:
        present = {mode for _, mode in self.points}
        return [mode for mode in MODES if mode in present]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunData:
    """A run's directory without its trajectories."""

    directory: Path
    phases: Mapping[str, float]  # name -> seconds, in the order in which they began
    series: Mapping[str, Series]  # every metric, by name
    evaluations: tuple[Evaluation, ...]  # by step
    config: Mapping[str, Any]
    manifest: Mapping[str, Any]
    summary: Mapping[str, Any]  # empty while the run is not finished

    @property
    def alarms(self) -> list[tuple[str, str, tuple[int, ...]]]:
        """Alarms of reward hacking that rang: name, symptom, and the steps in which they did."""
        return [
            (name, symptom, self.series[f"alarm/{name}"].steps)
            for name, symptom in ALARMS.items()
            if f"alarm/{name}" in self.series
        ]

    @property
    def before(self) -> Evaluation | None:
        """The evaluation before the first training step."""
        return next((e for e in self.evaluations if e.step == 0), None)

    @property
    def after(self) -> Evaluation | None:
        """The newest evaluation after training."""
        return next((e for e in reversed(self.evaluations) if e.step > 0), None)

    @property
    def num_steps(self) -> int:
        """Last step with a metric."""
        return max((series.steps[-1] for series in self.series.values() if series.steps), default=0)


def load_run(directory: Path) -> RunData:
    """Read a run directory. Raises ValueError when it is none."""
    metrics_path = directory / "metrics.jsonl"
    if not metrics_path.is_file():
        raise ValueError(
            f"a report needs the metrics of a run, but {metrics_path} does not exist: name a run's directory"
        )
    rows = read_metrics(metrics_path)
    by_name: dict[str, list[tuple[int, float | None]]] = {}
    for row in rows:
        for name, value in row["metrics"].items():
            by_name.setdefault(name, []).append((row["step"], value))
    series = {name: series_of(name, points) for name, points in by_name.items()}
    return RunData(
        directory=directory,
        phases={name: float(entry["seconds"]) for name, entry in _json(directory / "phases.json").items()},
        series=series,
        evaluations=evaluations_of(series.values()),
        config=_json(directory / "config.json"),
        manifest=_json(directory / "manifest.json"),
        summary=_json(directory / "summary.json"),
    )


def evaluations_of(series: Iterable[Series]) -> tuple[Evaluation, ...]:
    """The evaluations among the metrics, named eval/<effort>/<mode>/<number>. A cell in which nothing could be
    judged has no accuracy and is left out."""
    found: dict[int, dict[tuple[str, str], dict[str, float]]] = {}
    for curve in series:
        match curve.name.split("/"):
            case ["eval", effort, mode, number] if number in _EVAL_NAMES:
                for step, value in zip(curve.steps, curve.values, strict=True):
                    found.setdefault(step, {}).setdefault((effort, mode), {})[number] = value
    evaluations = []
    for step, cells in sorted(found.items()):
        whole = {place: EvalPoint(**numbers) for place, numbers in cells.items() if len(numbers) == len(_EVAL_NAMES)}
        evaluations.append(Evaluation(step=step, points=whole))
    return tuple(evaluations)


def evaluation_of(result: EvalResult) -> Evaluation:
    """An evaluation as the report sees it."""
    numbers = [(metric.name, [(result.step, metric.value)]) for metric in result.metrics()]
    return evaluations_of(series_of(name, rows) for name, rows in numbers)[0]


def _json(path: Path) -> Mapping[str, Any]:
    """A JSON object, or {} where a run has not written it yet."""
    if not path.is_file():
        return {}
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(value).__name__}")
    return value
