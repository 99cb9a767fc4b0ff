"""The live console of a run: a screen that redraws itself on a terminal, one plain line per event anywhere else.

It implements `rl.reporter.Reporter` for the training loop; `launch` itself tells it the phases around it. Handlers
only add up numbers (well under a millisecond each); drawing happens in a thread of its own, twice a second.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from launch.screen import (
    EffortNow,
    Snapshot,
    duration,
    heartbeat_line,
    live_view,
    percent,
    plain_step,
    results,
    visible,
)
from rl.batch import StepResult, TrainingBatch
from rl.evaluate import EvalResult
from rl.metrics import reduce_metrics
from rl.record import Fate
from rl.report.curves import ranked_names
from rl.report.data import TIME_METRICS, Evaluation
from rl.step_metrics import ROLES
from rl.verdict import final_rewards, is_correct
from rollout.schema import Metric, ScoredGroup

MAX_REWARDS = 200  # steps that the small reward curve looks back
SPEED_STEPS = 20  # steps over which the time of a step is averaged


@dataclass(slots=True)
class _Tally:
    """Sums over the groups of one effort since the last step."""

    attempts: int = 0
    judged: int = 0
    correct: int = 0
    thinking_tokens: int = 0


@dataclass(slots=True)
class _Since:
    """Sums over all groups since the last step."""

    efforts: dict[str, _Tally] = field(default_factory=dict)
    rewards: list[float] = field(default_factory=list)
    sampled_tokens: int = 0


class ConsoleReporter:
    """Watcher of one run. Use it as a context manager, so that the terminal is given back whatever happens."""

    def __init__(
        self,
        console: Console,
        *,
        title: str,
        num_steps: int,
        heartbeat_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._clock = clock
        self._heartbeat_s = heartbeat_s
        self._now = Snapshot(title=title, num_steps=num_steps, phase_started=clock(), last_step_at=clock())
        self._since = _Since()
        self._idle_since = clock()  # end of the last phase: a phase that nobody announced began then
        self._durations: collections.deque[float] = collections.deque(maxlen=SPEED_STEPS)
        self._is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=2) if self._is_live else None
        self._stop = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="console-heartbeat", daemon=True)

    def __enter__(self) -> ConsoleReporter:
        if self._live is not None:
            self._live.start()
        else:
            self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back; the last picture stays. May be called twice."""
        self._stop.set()
        if self._live is not None:
            self._live.stop()
        elif self._heart.is_alive():
            self._heart.join()

    @property
    def snapshot(self) -> Snapshot:
        """What is on the screen now."""
        return self._now

    # ------------------------------------------------------------------------------------------ phases, told by launch

    @contextmanager
    def running(self, name: str, *, total: int | None = None) -> Iterator[None]:
        """A phase for as long as the block lasts, unless the loop reports its end, or another one begins, before."""
        self.begin(name, total=total)
        try:
            yield
        finally:
            if self._now.running == name:
                self._end(self._clock() - self._now.phase_started)

    def begin(self, name: str, *, total: int | None = None) -> None:
        """A phase begins; one that is still running ends. `total` counts what `progress` reports."""
        if self._now.running:
            self._end(self._clock() - self._now.phase_started)
        self._start(name, self._clock(), total)

    def _start(self, name: str, started: float, total: int | None) -> None:
        self._now = replace(
            self._now, running=name, phase_started=started, phase_done=0, phase_total=total, phase_note=""
        )
        if name == "train":
            self._now = replace(self._now, last_step_at=started)
        self._line(f"{name} ...")

    def progress(self, done: int, *, note: str = "") -> None:
        """`done` of the running phase's total are done."""
        self._now = replace(self._now, phase_done=done, phase_note=note)

    def _end(self, seconds: float) -> None:
        name, before = self._now.running, self._now.phases
        self._idle_since = self._clock()
        self._now = replace(
            self._now, running="", phases={**before, name: before.get(name, 0.0) + seconds}, phase_total=None
        )
        self._line(f"{name}: {duration(seconds)}")

    # ------------------------------------------------------------------------ rl.reporter.Reporter, told by the loop

    def group(self, scored: ScoredGroup, fate: Fate) -> None:
        """Count a training group whose fate is final; evaluations are shown when they are complete."""
        if fate.name == "evaluated":
            return
        self._ensure_training()
        tally = self._since.efforts.setdefault(scored.group.job.budget.effort, _Tally())
        for trajectory, outcome in zip(scored.group.trajectories, scored.outcomes, strict=True):
            verdict = is_correct(outcome)
            tally.attempts += 1
            tally.judged += verdict is not None
            tally.correct += verdict is True
            tally.thinking_tokens += trajectory.num_thinking_tokens
            self._since.sampled_tokens += int(np.count_nonzero(trajectory.sampled))
        self._since.rewards.extend(r for r in final_rewards(scored).tolist() if r == r)  # NaN where unjudged
        dropped = self._now.dropped
        if fate.name == "dropped":
            dropped = {**dropped, fate.reason: dropped.get(fate.reason, 0) + 1}
        self._now = replace(
            self._now,
            dropped=dropped,
            num_groups=self._now.num_groups + 1,
            groups_since_step=self._now.groups_since_step + 1,
        )

    def step(self, step: int, batch: TrainingBatch, result: StepResult | None, metrics: Sequence[Metric]) -> None:
        """Show a finished step; `result` is None when nothing of it could be trained on."""
        self._ensure_training()
        clock, since = self._clock(), self._since
        self._since = _Since()
        seconds = max(clock - self._now.last_step_at, 1e-6)
        self._durations.append(seconds)
        reward = float(np.mean(since.rewards)) if since.rewards else None
        values = reduce_metrics(metrics)
        self._now = replace(
            self._now,
            step=step,
            last_step_at=clock,
            seconds_per_step=sum(self._durations) / len(self._durations),
            reward=reward,
            rewards=(*self._now.rewards, *([] if reward is None else [reward]))[-MAX_REWARDS:],
            efforts={**self._now.efforts, **_efforts(since)},
            tokens_per_s=since.sampled_tokens / seconds,
            split={part: values[name] for part, name in TIME_METRICS.items() if name in values},
            idle={role: values[f"idle/{role}"] for role in ROLES if f"idle/{role}" in values},
            groups_since_step=0,
        )
        self._line(plain_step(self._now))

    def resumed(self, step: int) -> None:
        """The run goes on after `step`."""
        self._now = replace(self._now, step=step)

    def evaluation(self, result: EvalResult) -> None:
        """Say how an evaluation came out."""
        cells = "; ".join(
            f"{cell.effort} {cell.mode} {percent(cell.accuracy)} {cell.thinking_tokens:.1f} tok"
            for cell in result.cells
        )
        self._say(f"evaluation after step {result.step}: {cells}")

    def phase(self, name: str, seconds: float) -> None:
        """A phase of the loop ended; evaluations are told apart by when they were."""
        if name == "evaluate":
            name = self._evaluation_name()
        if self._now.running == name:
            self._end(seconds)
            return
        before, self._idle_since = self._now.phases, self._clock()
        # Evaluations and checkpoints between two steps are no part of the time of a step.
        pause = self._now.last_step_at + seconds if self._now.running == "train" else self._now.last_step_at
        self._now = replace(
            self._now, phases={**before, name: before.get(name, 0.0) + seconds}, last_step_at=min(pause, self._clock())
        )
        self._line(f"{name}: {duration(seconds)}")

    def warning(self, message: str) -> None:
        """Say it above the live screen, where it stays, and keep the newest one in view."""
        self._now = replace(self._now, warning=visible(message))
        self._say(f"warning: {message}", style="yellow")

    def _ensure_training(self) -> None:
        """The loop does not announce that training begins: its first event does."""
        if self._now.running != "train":
            if self._now.running:
                self._end(self._clock() - self._now.phase_started)
            self._start("train", self._idle_since, None)

    def _evaluation_name(self) -> str:
        if self._now.step == 0:
            return "evaluate before"
        return "evaluate after" if self._now.step >= self._now.num_steps else "evaluate"

    # ------------------------------------------------------------------------------------------------------ the end

    def finish(self, *, before: Evaluation | None, after: Evaluation | None, report: Path | str | None) -> None:
        """Close the live screen and print the table before/after and, as the last line, where the report is."""
        self.close()
        for line in results(before, after, phases=self._now.phases):
            self._console.print(line)
        if report is not None:
            self._say(f"report: {report}", style="bold")

    # ---------------------------------------------------------------------------------------------------- drawing

    def _draw(self) -> RenderableType:
        return live_view(
            self._now,
            clock=self._clock(),
            width=self._console.width,
            is_ascii=self._console.options.ascii_only,
            quiet_after_s=self._heartbeat_s,
        )

    def _beat(self) -> None:
        """Without a screen: one line whenever `heartbeat_s` pass in which nothing else was said about progress."""
        told_at = self._clock()
        while not self._stop.wait(min(self._heartbeat_s / 4, 1.0)):
            now, clock = self._now, self._clock()
            quiet_since = max(told_at, now.last_step_at, now.phase_started)
            if now.running and clock - quiet_since >= self._heartbeat_s:
                self._line(heartbeat_line(now, clock))
                told_at = clock

    def _line(self, line: str) -> None:
        """A line that the live screen makes unnecessary."""
        if not self._is_live:
            self._say(line)

    def _say(self, line: str, *, style: str = "") -> None:
        self._console.print(Text(visible(line), style=style), soft_wrap=True)


def _efforts(since: _Since) -> dict[str, EffortNow]:
    return {
        name: EffortNow(
            accuracy=tally.correct / tally.judged if tally.judged else None,
            thinking_tokens=tally.thinking_tokens / tally.attempts,
        )
        for name in ranked_names(list(since.efforts))
        for tally in [since.efforts[name]]
    }
