"""What the training loop reports, on its way to the console: phases are remembered with their seconds as well."""

from __future__ import annotations

from collections.abc import Sequence

from launch.console import ConsoleReporter
from launch.rundir import PhaseLog
from rl.batch import StepResult, TrainingBatch
from rl.evaluate import EvalResult
from rl.record import Fate
from rollout.schema import Metric, ScoredGroup


class PhaseReporter:
    """Implements `rl.reporter.Reporter`. The loop's "train" holds its evaluations; here they are told apart."""

    def __init__(self, console: ConsoleReporter, log: PhaseLog, *, num_steps: int) -> None:
        self._console = console
        self._log = log
        self._num_steps = num_steps
        self._step = 0
        self._evaluation_s = 0.0

    def resumed(self, step: int) -> None:
        """The run goes on after `step`: an evaluation is told from the first one by it."""
        self._step = step
        self._console.resumed(step)

    def step(self, step: int, batch: TrainingBatch, result: StepResult | None, metrics: Sequence[Metric]) -> None:
        self._step = step
        self._console.step(step, batch, result, metrics)

    def group(self, scored: ScoredGroup, fate: Fate) -> None:
        self._console.group(scored, fate)

    def evaluation(self, result: EvalResult) -> None:
        self._step = result.step
        self._console.evaluation(result)

    def phase(self, name: str, seconds: float) -> None:
        try:
            self._remember(name, seconds)
        except OSError as error:  # a watcher never raises, least of all while the loop ends because the disk is full
            self._console.warning(f"the end of phase {name} could not be written down: {error}")
        self._console.phase(name, seconds)

    def _remember(self, name: str, seconds: float) -> None:
        if name == "evaluate":
            self._evaluation_s += seconds
            self._log.add(self._evaluation_name(), seconds, is_done=True)
        elif name == "train":
            is_done = self._step >= self._num_steps
            self._log.add("train", max(seconds - self._evaluation_s, 0.0), is_done=is_done)

    def warning(self, message: str) -> None:
        self._console.warning(message)

    def _evaluation_name(self) -> str:
        if self._step == 0:
            return "evaluate before"
        return "evaluate after" if self._step >= self._num_steps else "evaluate"
