"""Metrics of a run: combined by their own rule, written to metrics.jsonl and TensorBoard, flushed every step.

A line of metrics.jsonl is {"step": int, "time": Unix seconds, "metrics": {name: number or null}}. A step may have
several lines (training, evaluation). A resumed run first moves the lines beyond its checkpoint to
`metrics.set-aside-<n>.jsonl`. TensorBoard's own writer is used without torch or TensorFlow.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from rl.hack_alarms import HackAlarms
from rollout.schema import Metric


def reduce_metrics(metrics: Iterable[Metric]) -> dict[str, float]:
    """Combine metrics of one name by the rule they carry, in order of first appearance.

    mean: sum(weight * value) / sum(weight), left out when the weights sum to 0; sum, max, min; last: the latest value.
    Raises ValueError when metrics of one name carry different rules.
    """
    by_name: dict[str, list[Metric]] = {}
    for metric in metrics:
        by_name.setdefault(metric.name, []).append(metric)
    reduced = {name: _reduced(name, group) for name, group in by_name.items()}
    return {name: value for name, value in reduced.items() if value is not None}


def _reduced(name: str, metrics: list[Metric]) -> float | None:
    rules = {m.reduce for m in metrics}
    if len(rules) > 1:
        raise ValueError(
            f"metric {name!r} must have one reduction, got {sorted(rules)}: give the two quantities two names"
        )
    values = [m.value for m in metrics]
    match rules.pop():
        case "mean":
            weight = sum(m.weight for m in metrics)
            return sum(m.weight * m.value for m in metrics if m.weight) / weight if weight else None
        case "sum":
            return sum(values)
        case "max":
            return max(values)
        case "min":
            return min(values)
        case "last":
            return values[-1]


class MetricsWriter:
    """Writes below `directory`: metrics.jsonl, and TensorBoard events in tensorboard/."""

    def __init__(self, directory: Path, *, alarms: HackAlarms | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.alarms = alarms
        self._path = directory / "metrics.jsonl"
        self._lines: IO[str] | None = None
        self._newest: tuple[int, dict[str, float]] = (-1, {})  # step, and all its values
        self._events = EventFileWriter(str(directory / "tensorboard"))

    def write(self, step: int, metrics: Iterable[Metric]) -> dict[str, float]:
        """Reduce, write and flush the metrics of `step`; return them reduced."""
        values = reduce_metrics(metrics)
        if self.alarms is not None:
            values |= self.alarms.observe(step, values)
        of_step, known = self._newest
        self._newest = (step, known | values if step == of_step else values)
        line = {"step": step, "time": time.time(), "metrics": {n: _finite(v) for n, v in values.items()}}
        if self._lines is None:
            self._lines = self._path.open("a", encoding="utf-8")
        self._lines.write(json.dumps(line, allow_nan=False) + "\n")
        self._lines.flush()
        summary = [Summary.Value(tag=n, simple_value=v) for n, v in values.items() if math.isfinite(v)]
        self._events.add_event(Event(step=step, wall_time=line["time"], summary=Summary(value=summary)))
        self._events.flush()
        return values

    def value(self, step: int, name: str) -> float | None:
        """A metric of the newest step that was written; None where that step has none, or is another."""
        of_step, values = self._newest
        return values.get(name) if step == of_step else None

    def set_aside(self, after_step: int) -> None:
        """Move lines of later steps, and a half-written last one, to another file; tell TensorBoard to forget them."""
        if self._lines is not None:
            raise RuntimeError("metrics are set aside before the first line is written")
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step_of(line) <= after_step]
        late = [line for line in lines if _step_of(line) > after_step]
        if late:
            number = 1 + sum(1 for _ in self._path.parent.glob("metrics.set-aside-*.jsonl"))
            self._path.with_name(f"metrics.set-aside-{number}.jsonl").write_text(
                "\n".join(late) + "\n", encoding="utf-8"
            )
            partial = self._path.with_suffix(".jsonl.tmp")
            partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
            os.replace(partial, self._path)
        if self.alarms is not None:
            for line in kept:
                self.alarms.replay({n: v for n, v in json.loads(line)["metrics"].items() if v is not None})
        self._events.add_event(Event(step=after_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
        self._events.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics.jsonl, in order; a half-written last line of a killed run is left out."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if not math.isinf(_step_of(line))]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _step_of(line: str) -> float:
    """Step of a line; infinity for a line that a kill cut short."""
    try:
        return int(json.loads(line)["step"])
    except json.JSONDecodeError:
        return math.inf
