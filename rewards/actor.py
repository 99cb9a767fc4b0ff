"""The verifier service as a Ray actor, and its client in the driver. The only file of this room that imports ray.

The client itself settles what bounded string work can settle (`Routing.quick_verdict`): a remote call costs a
millisecond of processor time, a hundred times the comparison of two short strings. All else goes to the actor, and
from there to the sandbox.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from rewards.batching import BatchedCalls, LatencyHistogram
from rewards.config import RewardsConfig
from rewards.failures import FailureFiles, label_of
from rewards.judge import Judge, Timings
from rewards.llm_judge.verify import close_all
from rewards.outcome import Sample, samples_of, unjudged
from rewards.quota import Breach, Failure, QuotaError
from rewards.routing import Routing
from rollout.schema import Group, Metric, Outcome, Status, Task

# Beyond the judge's own deadline: by then it has answered what it could, so a silence means that the actor hangs.
_GRACE_S = 5.0
_START_S = 120.0
_REFERENCE_CHECK_S = 1800.0
_MAX_CONCURRENT_CALLS = 1000
_LOG = logging.getLogger("ponder.rewards")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeReport:
    """What the service tells its client with every answer: counts since its start, the rest since the last report."""

    stats: Mapping[str, int]
    timings: Timings
    adapters: Mapping[str, str]
    failures: Sequence[Failure]
    num_failures: Mapping[str, int]
    breach: Breach | None


class _JudgeActor:
    """`Judge` on the far side of the wire. One process; what is slow or risky happens in its sandbox workers."""

    def __init__(self, config: RewardsConfig, verifiers: Mapping[str, str]) -> None:
        self._judge = Judge(config, verifiers)

    async def judge(
        self, groups: list[list[Sample]], weights: Mapping[str, float]
    ) -> tuple[list[list[Outcome]], JudgeReport]:
        """Verdicts of several groups, and what happened since the last report. The weights come with every call, so a
        service that was started again has the right ones."""
        outcomes = iter(await self._judge.judge([sample for group in groups for sample in group], weights))
        return [[next(outcomes) for _ in group] for group in groups], self._report()

    async def check_references(self, samples: list[Sample]) -> list[str | None] | ValueError:
        """The judge's answer; a mistake in the set-up comes back as a value, free of the remote traceback."""
        try:
            return await self._judge.check_references(samples)
        except ValueError as error:
            return ValueError(str(error))

    async def close(self) -> None:
        self._judge.close()
        await close_all()

    def _report(self) -> JudgeReport:
        failures = self._judge.failures
        return JudgeReport(
            stats=self._judge.stats(),
            timings=self._judge.take_timings(),
            adapters=self._judge.adapters(),
            failures=failures.take(),
            num_failures=failures.counts(),
            breach=failures.breach(),
        )


class JudgeClient:
    """Implements `rl.ports.Judge`. Belongs to one event loop."""

    def __init__(self, actor: Any, config: RewardsConfig, routing: Routing, failures: FailureFiles) -> None:
        self._actor = actor
        self._routing = routing
        self._files = failures
        self._breach: Breach | None = None
        self._calls: BatchedCalls[list[Sample], list[Outcome]] = BatchedCalls(
            self._send, max_pending=config.max_pending_groups, deadline_s=config.deadline_s + _GRACE_S
        )
        self._statuses: Counter[Status] = Counter()
        self._num_quick = 0
        self._stats: Mapping[str, int] = {}
        self._num_failures: Mapping[str, int] = {}
        self._adapters: Mapping[str, str] = {}
        self._timings = Timings(latency={}, waits=LatencyHistogram(), most_workers=0)

    async def judge(self, group: Group) -> tuple[Outcome, ...]:
        """Verdicts in sibling order. A failure of the service is an unjudged outcome, never an exception or a zero.

        Raises QuotaError, on purpose, once a verifier has failed more often than `rewards.quota` allows.
        """
        samples = samples_of(group)
        verdicts = [self._routing.quick_verdict(sample) for sample in samples]
        rest = [sample for sample, verdict in zip(samples, verdicts, strict=True) if verdict is None]
        self._num_quick += len(samples) - len(rest)
        slow = iter(await self._ask(rest) if rest else ())
        outcomes = tuple(next(slow) if verdict is None else verdict for verdict in verdicts)
        self._statuses.update(outcome.status for outcome in outcomes)
        if self._breach is not None:
            raise QuotaError(self._described(self._breach))
        return outcomes

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Use these weights of the components from now on. Raises ValueError for names that are not theirs."""
        self._routing.reweigh(weights)

    def check_references(self, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
        """Tasks that no verdict could be based on, each with the reason: the verifier must accept the reference itself.

        Blocks. Raises ValueError when a task names an unknown verifier, or one that cannot be imported.
        """
        samples = [Sample.of_reference(task) for task in tasks]
        reasons = ray.get(self._actor.check_references.remote(samples), timeout=_REFERENCE_CHECK_S)
        if isinstance(reasons, ValueError):
            raise reasons
        return [(task, reason) for task, reason in zip(tasks, reasons, strict=True) if reason is not None]

    def metrics(self) -> list[Metric]:
        """Shares of the statuses since the last call, latency, and counts of the service since its start."""
        total = self._statuses.total()
        metrics = [
            Metric(name=f"judge/status/{status}", value=self._statuses[status] / total, weight=total)
            for status in Status
            if total
        ]
        self._statuses.clear()
        counts = {"quick": self._num_quick, **self._stats}
        metrics += [Metric(name=f"judge/{name}", value=float(n), reduce="last") for name, n in counts.items()]
        looked_up = self._stats.get("cached", 0) + self._stats.get("cache_missed", 0)  # empty before the first call
        if looked_up:
            hit_rate = self._stats["cached"] / looked_up
            metrics.append(Metric(name="judge/cache_hit_rate", value=hit_rate, reduce="last"))
        metrics += [
            Metric(name=f"judge/failures/{label_of(name)}", value=float(n), reduce="last")
            for name, n in self._num_failures.items()
        ]
        return metrics + self._timing_metrics() + self._calls.metrics("judge")

    def close(self) -> None:
        """End the actor and its workers. Safe to call when they are gone already."""
        # Dead or not answering: the kill below, and the workers' own death signal, end what is left.
        with contextlib.suppress(RayError):
            ray.get(self._actor.close.remote(), timeout=_GRACE_S)
        ray.kill(self._actor)

    def _timing_metrics(self) -> list[Metric]:
        timings = self._timings
        self._timings = Timings(latency={}, waits=LatencyHistogram(), most_workers=0)
        values = {"queue_wait_p99_s": timings.waits.quantile(0.99), "workers": float(timings.most_workers)}
        for name, histogram in timings.latency.items():
            values[f"{label_of(name)}/latency_p50_s"] = histogram.quantile(0.5)
            values[f"{label_of(name)}/latency_p99_s"] = histogram.quantile(0.99)
        return [Metric(name=f"judge/{name}", value=value, reduce="max") for name, value in values.items()]

    def _described(self, breach: Breach) -> str:
        path = self._files.path_of(breach.verifier)
        return (
            f"{breach.text}. Samples it failed on are in {path}: try them with `ponder rewards check "
            f"{breach.verifier} --data {path}`, mend the function and resume the run, or raise the quota"
        )

    async def _ask(self, samples: list[Sample]) -> list[Outcome]:
        try:
            return await self._calls.ask(samples)
        except TimeoutError:
            return [unjudged(Status.TIMEOUT, "the verifier service did not answer")] * len(samples)
        except RayError as error:
            return [unjudged(Status.CRASH, f"the verifier service failed: {type(error).__name__}")] * len(samples)

    async def _send(self, groups: list[list[Sample]]) -> list[list[Outcome]]:
        outcomes: list[list[Outcome]]
        outcomes, report = await self._actor.judge.remote(groups, self._routing.weights)
        self._take(report)
        return outcomes

    def _take(self, report: JudgeReport) -> None:
        self._stats, self._num_failures = report.stats, report.num_failures
        self._timings.merge(report.timings)
        for name in report.adapters.keys() - self._adapters.keys():
            _LOG.warning("reward plugin %s: adapter %s", name, report.adapters[name])
        self._adapters = report.adapters
        self._files.write(report.failures)
        self._breach = self._breach or report.breach


def start_judge(config: RewardsConfig, verifiers: Mapping[str, str], failures_dir: Path) -> JudgeClient:
    """Start the service on a running Ray and wait until it answers. `verifiers` maps a name to 'module:attribute'.

    Samples that a verifier fails on are written below `failures_dir`.

    Raises ValueError when a component names a verifier that is not among them.
    """
    routing = Routing(config, verifiers)
    # No CPU is reserved: it idles between bursts, and a reservation would keep an engine or a learner from starting.
    # It restarts on its own when it is killed: groups in flight are unjudged, later ones are judged again.
    options = {"num_cpus": 0, "max_restarts": -1, "max_concurrency": _MAX_CONCURRENT_CALLS}
    actor = ray.remote(_JudgeActor).options(**options).remote(config, dict(verifiers))
    client = JudgeClient(actor, config, routing, FailureFiles(failures_dir))
    ray.get(actor.__ray_ready__.remote(), timeout=_START_S)
    return client
