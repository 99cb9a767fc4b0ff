"""What a run spends and what its services say about themselves, on its way into metrics.jsonl and the ledger file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from budgets.config import CeilingsConfig
from budgets.ledger import Ledger
from launch.manifest import write_json
from rl.hack_alarms import HackAlarms
from rl.metrics import MetricsWriter
from rl.ports import Generator, Judge, StepScorer
from rollout.schema import Group, Job, Metric, Outcome, Purpose


class CeilingError(RuntimeError):
    """The run has spent what it may. Its work so far is saved."""


class MeteredScorer(StepScorer, Protocol):
    """A step scorer that also counts what it did."""

    def metrics(self) -> list[Metric]: ...


class Meter:
    """Generator and judge of a run, with every token and verdict booked. Stops a training job at a ceiling.

    The ledger has a file of its own and not a place in the checkpoints: what was spent on steps that a resumed run
    repeats was spent all the same.
    """

    def __init__(self, generator: Generator, judge: Judge, ceilings: CeilingsConfig, *, path: Path) -> None:
        self._generator = generator
        self._judge = judge
        self._ledger = Ledger(ceilings)
        self._path = path
        if path.is_file():
            self._ledger.load_state_dict(json.loads(path.read_text(encoding="utf-8")))

    async def generate(self, job: Job) -> Group:
        """Run one job. Raises CeilingError before a training job that the ceilings no longer allow."""
        if job.purpose is Purpose.TRAIN and (breach := self._ledger.breach()) is not None:
            raise CeilingError(breach)
        group = await self._generator.generate(job)
        self._ledger.charge_generated(group)
        return group

    async def judge(self, group: Group) -> tuple[Outcome, ...]:
        outcomes = await self._judge.judge(group)
        self._ledger.charge_judged(len(outcomes))
        return outcomes

    def metrics(self) -> list[Metric]:
        """The ledger's totals, which are written to its file at the same time."""
        write_json(self._path, self._ledger.state_dict())
        return self._ledger.metrics()


class ServiceMetricsWriter(MetricsWriter):
    """Adds to every line what the services counted since the line before."""

    def __init__(
        self,
        directory: Path,
        sources: Sequence[Callable[[], list[Metric]]],
        *,
        alarms: HackAlarms | None = None,
    ) -> None:
        super().__init__(directory, alarms=alarms)
        self._sources = tuple(sources)

    def write(self, step: int, metrics: Iterable[Metric]) -> dict[str, float]:
        return super().write(step, [*metrics, *(metric for source in self._sources for metric in source())])
