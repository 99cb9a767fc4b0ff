"""What happened when, in chosen steps: spans of every role, as a file that chrome://tracing and Perfetto open.

A span belongs to a role (an engine, the judge, the learner, the driver ...) and has a name. Spans of a role that
overlap get rows of their own, since both viewers take what overlaps in one row for nested. A step's trace reaches from
the moment when its slots are free to the moment when the next one's are; what began before or ends after is cut there
and marked. Remembering a span costs a microsecond or two, so all of them are, and those of a step that nobody asked for
are dropped.

The format is Chrome's trace event format: complete events ("ph": "X") with `ts` and `dur` in microseconds, `pid` for
the role and `tid` for the row, named by metadata events ("ph": "M").
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = {
    "generate": "groups",
    "judge": "judge",
    "score_steps": "step scorer",
    "train_prm": "step scorer",
    "explore": "exploration model",
    "reference": "reference model",
    "learn": "learner",
    "publish": "weights",
}
"""Which role a phase of the loop shows up at; the others are the driver's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """`start` and `end` in seconds of the trace's clock."""

    role: str
    name: str
    start: float
    end: float
    subject: str = ""
    is_cut: bool = False  # began before the step or goes on after it


_Noted = tuple[str, str, float, float, str]  # a span's first five fields: most spans are never asked for


class Trace:
    """Spans of the run. One step's are written when the next begins, if they are wanted."""

    def __init__(
        self,
        directory: Path,
        *,
        steps: Collection[int] = (),
        warn: Callable[[str], None],
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Files go below `directory`, which is made when the first is written."""
        self._directory = directory
        self._steps = set(steps)
        self._warn = warn
        self._now = now
        self._began = now()
        self._done: list[_Noted] = []
        self._open: dict[int, tuple[str, str, float, str]] = {}
        self._numbers = itertools.count()

    def path(self, step: int) -> Path:
        return self._directory / f"step-{step:06d}.json"

    def want(self, step: int) -> None:
        """Write this step's trace, too."""
        self._steps.add(step)

    @contextmanager
    def span(self, role: str, name: str, subject: str = "") -> Iterator[None]:
        """What happens inside belongs to `role`; may be entered many times at once."""
        number, start = next(self._numbers), self._now()
        self._open[number] = (role, name, start, subject)
        try:
            yield
        finally:
            del self._open[number]
            self._done.append((role, name, start, self._now(), subject))

    def add(self, role: str, spans: Iterable[tuple[str, float, float]], *, end: float | None = None) -> None:
        """Spans that another process measured: name, start and end in seconds on a clock of its own, which counts from
        anywhere. The last of them is taken to have ended at `end`, by default now."""
        measured = list(spans)
        if not measured:
            return
        shift = (self._now() if end is None else end) - max(stop for _, _, stop in measured)
        for name, start, stop in measured:
            self._done.append((role, name, start + shift, stop + shift, ""))

    def turn(self, step: int) -> None:
        """The slots of `step` are about to be free: write its trace if it is wanted, and begin the next."""
        now = self._now()
        if step in self._steps:
            still = [
                Span(role=role, name=name, start=start, end=now, subject=subject, is_cut=True)
                for role, name, start, subject in self._open.values()
            ]
            done = [
                Span(role=role, name=name, start=start, end=end, subject=subject)
                for role, name, start, end, subject in self._done
            ]
            self._write(step, [*done, *still], now)
        self._done.clear()
        self._began = now

    def _write(self, step: int, spans: Sequence[Span], end: float) -> None:
        content = {
            "displayTimeUnit": "ms",
            "otherData": {"step": step, "seconds": round(end - self._began, 6)},
            "traceEvents": events(spans, self._began),
        }
        path = self.path(step)
        aside = path.with_suffix(".part")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(content), encoding="utf-8")
            os.replace(aside, path)
        except OSError as error:
            self._warn(f"the trace of step {step} could not be written to {path}: {error}; the run goes on")


def events(spans: Sequence[Span], began: float) -> list[dict[str, Any]]:
    """Spans as trace events; time counts from `began`, before which nothing is shown."""
    found: list[dict[str, Any]] = []
    for number, role in enumerate(sorted({span.role for span in spans}), start=1):
        found.append({"ph": "M", "name": "process_name", "pid": number, "tid": 0, "args": {"name": role}})
        mine = sorted((span for span in spans if span.role == role), key=lambda span: (span.start, -span.end))
        for row, span in _rows(mine):
            start = max(span.start, began)
            event = {
                "ph": "X",
                "name": span.name,
                "cat": role,
                "pid": number,
                "tid": row,
                "ts": round((start - began) * 1e6),
                "dur": max(round((span.end - start) * 1e6), 0),
            }
            details = {"of": span.subject} if span.subject else {}
            if span.is_cut or span.start < began:
                details["is_cut"] = "the span reaches beyond this step"
            found.append(event | ({"args": details} if details else {}))
    return found


def _rows(spans: Iterable[Span]) -> Iterator[tuple[int, Span]]:
    """Each span with the first row in which nothing is under way at its start. `spans` by start."""
    busy: list[tuple[float, int]] = []  # a heap of (end, row)
    free: list[int] = []  # a heap of rows
    count = 0
    for span in spans:
        while busy and busy[0][0] <= span.start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            count += 1
        row = heapq.heappop(free) if free else count
        heapq.heappush(busy, (span.end, row))
        yield row, span
