"""How far an evaluation is and how long it will take: a bar on a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from launch.screen import duration


class SampleProgress:
    """Counts samples. Samples found on disk count as done, but not into the speed."""

    def __init__(
        self,
        console: Console,
        total: int,
        *,
        what: str = "samples",
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._total = total
        self._what = what
        self._every_s = every_s
        self._clock = clock
        self._done = 0
        self._kept = 0
        self._started = self._told_at = clock()
        self._bar: Progress | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._bar = Progress(
                TextColumn("sampling"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                console=console,
            )
            self._task = self._bar.add_task("sampling", total=total, left="")

    def __enter__(self) -> SampleProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def num_new(self) -> int:
        """Samples made by this process."""
        return self._done - self._kept

    @property
    def seconds(self) -> float:
        """Since sampling began."""
        return self._clock() - self._started

    @property
    def seconds_left(self) -> float | None:
        """At the speed so far; None before there is one."""
        seconds = self.seconds
        if not self.num_new or seconds <= 0:
            return None
        return (self._total - self._done) * seconds / self.num_new

    def advance(self, num_samples: int, *, was_kept: bool) -> None:
        """Count finished samples and show them."""
        self._done += num_samples
        self._kept += num_samples if was_kept else 0
        if was_kept:
            self._started = self._clock()  # the speed is that of sampling, which begins after the last one found
        now, left = self._clock(), self.seconds_left
        remaining = "" if left is None else f"{duration(left)} left"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, left=remaining)
        elif not was_kept and (now - self._told_at >= self._every_s or self._done == self._total):
            self._told_at = now
            share = f"{self._done:,} of {self._total:,} {self._what} ({100 * self._done / self._total:.0f} %)"
            kept = f", {self._kept:,} of them from before" if self._kept else ""
            line = f"sampling: {share}{kept}, {self.num_new / max(now - self._started, 1e-9):.1f}/s, {remaining}"
            self._console.print(line, markup=False, highlight=False)
