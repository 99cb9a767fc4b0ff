"""What a run spends and what its services say about themselves, on its way into metrics.jsonl and the ledger file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from budgets.config import CeilingsConfig
from budgets.ledger import Breach, Ledger
from launch.manifest import write_json
from rl.hack_alarms import HackAlarms
from rl.metrics import MetricsWriter
from rl.ports import Generator, Judge, StepScorer
from rl.run import PlannedStop
from rollout.schema import Group, Job, Metric, Outcome, Purpose


class CeilingReached(PlannedStop):
    """The run has spent what it may."""

    def __init__(self, breach: Breach) -> None:
        super().__init__(f"budgets.ceilings.{breach.name} = {breach.ceiling:g} is reached ({breach.spent:g} spent)")
        self.name = breach.name


class MeteredScorer(StepScorer, Protocol):
    """A step scorer that also counts what it did."""

    def metrics(self) -> list[Metric]: ...


class Meter:
    """Generator and judge of a run, with every token and verdict booked. Stops a training job at a ceiling.

    The ledger has a file of its own and not a place in the checkpoints: what was spent on steps that a resumed run
    repeats was spent all the same.
    """

    def __init__(
        self,
        generator: Generator,
        judge: Judge,
        ceilings: CeilingsConfig,
        *,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._generator = generator
        self._judge = judge
        self._ledger = Ledger(ceilings, clock=clock)
        self._path = path
        if path.is_file():
            self._ledger.load_state_dict(json.loads(path.read_text(encoding="utf-8")))

    async def generate(self, job: Job) -> Group:
        """Run one job. Raises CeilingReached before a training job that the ceilings no longer allow."""
        if job.purpose is Purpose.TRAIN and (breach := self._ledger.breach()) is not None:
            raise CeilingReached(breach)
        group = await self._generator.generate(job)
        self._ledger.charge_generated(group)
        return group

    async def judge(self, group: Group) -> tuple[Outcome, ...]:
        outcomes = await self._judge.judge(group)
        self._ledger.charge_judged(len(outcomes))
        return outcomes

    async def close(self) -> None:
        """Write down what was spent since the last line of the metrics, however the run ends."""
        write_json(self._path, self._ledger.state_dict())

    def reweigh(self, weights: Mapping[str, float]) -> None:
        self._judge.reweigh(weights)

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
