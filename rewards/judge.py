"""Samples in, verdicts out: asks the verifiers of each sample, in process or sandboxed, and composes what they say."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from rewards.batching import LatencyHistogram
from rewards.cache import VerdictCache
from rewards.config import RewardsConfig
from rewards.lanes import Lanes, pooled
from rewards.outcome import Sample, unjudged, unparseable
from rewards.plugins.runner import PluginLoadError, PluginRunner
from rewards.plugins.spec import PluginSpec
from rewards.quota import FailureWatch
from rewards.replies import outcome_of
from rewards.routing import Routing, answer_in_process, settings_key
from rewards.sandbox import Reply, ReplyStatus
from rewards.verifier import BUILT_IN_VERIFIERS, traits_of
from rollout.schema import Outcome, Status

_NAMES = {target: name for name, target in BUILT_IN_VERIFIERS.items()}
_DIED = (ReplyStatus.CRASH, ReplyStatus.MEMORY)


@dataclass(slots=True, kw_only=True)
class Timings:
    """Seconds of one sandboxed sample by verifier, its wait included; seconds of waiting for a worker; workers."""

    latency: dict[str, LatencyHistogram]
    waits: LatencyHistogram
    most_workers: int

    def merge(self, other: Timings) -> None:
        for name, histogram in other.latency.items():
            self.latency.setdefault(name, LatencyHistogram()).merge(histogram)
        self.waits.merge(other.waits)
        self.most_workers = max(self.most_workers, other.most_workers)


class Judge:
    """The verifier service without its wire. Holds the workers, one set for all built-in verifiers and one for each
    plugin; `close` ends them."""

    def __init__(self, config: RewardsConfig, verifiers: Mapping[str, str]) -> None:
        """`verifiers` maps a name to 'module:attribute'. Raises UnknownVerifierError for a component's unknown name."""
        self._routing = Routing(config, verifiers)
        self._limits = config.sandbox
        self._lanes = Lanes(config.sandbox)
        self._runners: dict[str, PluginRunner] = {}
        self._latency: dict[str, LatencyHistogram] = {}
        self.failures = FailureWatch(config.quota)
        self._cache = VerdictCache(config.cache_size)
        self._deadline_s = config.deadline_s
        self._counts: Counter[str] = Counter()

    async def judge(self, samples: Sequence[Sample], weights: Mapping[str, float] | None = None) -> list[Outcome]:
        """One verdict per sample, in order, within the configured deadline: the late are a TIMEOUT, the rest stand.

        `weights` of the components takes the place of the settings'.
        """
        expires = time.monotonic() + self._deadline_s
        asked: list[tuple[str, Sample]] = []  # what some component of some sample needs
        plans: list[dict[str, int | Outcome]] = []
        for sample in samples:
            plan: dict[str, int | Outcome] = {}
            for name, question in self._routing.questions(sample).items():
                if isinstance(question, Outcome):
                    plan[name] = question
                else:
                    plan[name] = len(asked)
                    asked.append(question)
            plans.append(plan)
        answers = await self._ask(asked, expires)
        return [
            self._routing.verdict({n: answers[p] if isinstance(p, int) else p for n, p in plan.items()}, weights)
            for plan in plans
        ]

    async def check_references(self, samples: Sequence[Sample]) -> list[str | None]:
        """For each sample made by `Sample.of_reference`: why its reference cannot be judged against, or None.

        Raises UnknownVerifierError, and SandboxLoadError or PluginLoadError for a verifier that cannot be used: those
        are mistakes in the set-up, not in the data.
        """
        names = sorted({name for sample in samples for name in self._routing.verifiers_of(sample)})
        targets = {name: self._routing.target(name) for name in names}
        for target in targets.values():
            if (runner := self._runner(target)) is not None:
                await runner.describe()
            elif traits_of(target).in_process is None or traits_of(target).reference_check is not None:
                await self._lanes.load(target)
        reasons: list[str | None] = [None] * len(samples)
        for name, target in targets.items():
            indices = [index for index, sample in enumerate(samples) if name in self._routing.verifiers_of(sample)]
            chosen = [self._routing.with_settings(name, samples[index]) for index in indices]
            check = traits_of(target).reference_check
            outcomes = await (
                self._sandboxed(check, chosen, math.inf)
                if check
                else self._ask([(target, s) for s in chosen], math.inf)
            )
            for index, outcome in zip(indices, outcomes, strict=True):
                # A further component may well ask for more than the bare reference, so only its refusal counts.
                must_be_right = self._must_accept(target) and (
                    name == samples[index].verifier or traits_of(target).reads_only_answer
                )
                if reasons[index] is None and (outcome.score is None or (must_be_right and outcome.score < 1.0)):
                    reasons[index] = _why_bad(name, outcome)
        return reasons

    def stats(self) -> dict[str, int]:
        """Counts since the start: cache and routes, and what happened to the workers."""
        pool = pooled([lanes.stats() for lanes in self._all_lanes()])
        return {
            "in_process": self._counts["in_process"],
            "cached": self._cache.hits,
            "cache_missed": self._cache.misses,
            "sandboxed": self._counts["sandboxed"],
            "in_loop": self._counts["in_loop"],
            "retried": self._counts["retried"],
            "workers_started": pool.started,
            "workers_killed": pool.killed,
            "worker_timeouts": pool.timeouts,
            "worker_crashes": pool.crashes,
        }

    def take_timings(self) -> Timings:
        """What was measured since the last call."""
        latency, self._latency = self._latency, {}
        taken = Timings(latency=latency, waits=LatencyHistogram(), most_workers=0)
        for lanes in self._all_lanes():
            waits, most = lanes.take_waits()
            taken.waits.merge(waits)
            taken.most_workers += most
        return taken

    def adapters(self) -> dict[str, str]:
        """Adapter of each plugin loaded so far, by the plugin's name."""
        runners = self._runners.values()
        return {r.spec.name: r.description.adapter for r in runners if r.description is not None}

    def worker_pids(self) -> list[int]:
        return [pid for lanes in self._all_lanes() for pid in lanes.worker_pids()]

    def close(self) -> None:
        for lanes in self._all_lanes():
            lanes.close()

    def _all_lanes(self) -> list[Lanes]:
        return [self._lanes, *(runner.lanes for runner in self._runners.values())]

    def _runner(self, target: str) -> PluginRunner | None:
        """The runner of a plugin's target, made when first asked for; None for a built-in verifier."""
        if target not in self._runners and (spec := PluginSpec.of_target(target)) is not None:
            self._runners[target] = PluginRunner(spec, self._limits)
        return self._runners.get(target)

    def _must_accept(self, target: str) -> bool:
        """Whether the bare reference has to be a right answer. Functions of other systems often want it in a format
        of theirs, so of them it is only asked that they can judge it."""
        runner = self._runners.get(target)
        return runner is None or (runner.description is not None and runner.description.adapter == "native")

    def _is_reusable(self, target: str) -> bool:
        runner = self._runners.get(target)
        if runner is None:
            return traits_of(target).reads_only_answer
        return runner.description is not None and runner.description.capabilities.reusable

    async def _ask(self, asked: Sequence[tuple[str, Sample]], expires: float) -> list[Outcome]:
        """Answer what can be answered here, and the rest in the sandbox, each distinct question once."""
        for target in {target for target, _ in asked}:
            if (runner := self._runner(target)) is not None:
                with contextlib.suppress(PluginLoadError):  # its samples are told below
                    await runner.describe()
        answers: list[Outcome | None] = [self._here(target, sample) for target, sample in asked]
        open_questions: dict[str, dict[Hashable, list[int]]] = {}
        for index, (target, sample) in enumerate(asked):
            if answers[index] is None:
                # Foreign verifiers may read anything of the sample: each sample is a question of its own.
                key: Hashable = _key(target, sample) if self._is_reusable(target) else index
                open_questions.setdefault(target, {}).setdefault(key, []).append(index)
        for target, questions in open_questions.items():
            chosen = [asked[indices[0]][1] for indices in questions.values()]
            outcomes = await self._sandboxed(target, chosen, expires)
            for (key, indices), outcome in zip(questions.items(), outcomes, strict=True):
                if self._is_reusable(target):
                    self._cache.put(key, outcome)
                for index in indices:
                    answers[index] = outcome
        complete = [answer for answer in answers if answer is not None]
        assert len(complete) == len(asked), "every question was either answered here or put to the sandbox"
        return complete

    def _here(self, target: str, sample: Sample) -> Outcome | None:
        outcome = answer_in_process(target, sample)
        if outcome is not None:
            self._counts["in_process"] += 1
        elif self._is_reusable(target):
            outcome = self._cache.get(_key(target, sample))
        return outcome

    # ------------------------------------------------------------------------------------------------ the sandbox

    async def _sandboxed(self, target: str, samples: Sequence[Sample], expires: float) -> list[Outcome]:
        """Verdicts of the workers or of a service, booked with the time they took."""
        self._counts["sandboxed" if traits_of(target).in_loop is None else "in_loop"] += len(samples)
        started = time.monotonic()
        runner = self._runner(target)
        if runner is None:
            name, outcomes = _NAMES.get(target, target), await self._built_in(target, samples, expires)
        else:
            name = runner.spec.name
            outcomes = await runner.score(samples, within_s=expires - time.monotonic())
        histogram = self._latency.setdefault(name, LatencyHistogram())
        for _ in samples:
            histogram.add(time.monotonic() - started)
        self.failures.observe(name, samples, outcomes)
        return outcomes

    async def _built_in(self, target: str, samples: Sequence[Sample], expires: float) -> list[Outcome]:
        """A worker that died gets one more try: the sample may not have been the cause."""
        serve = traits_of(target).in_loop
        if serve is not None:
            return list(await asyncio.gather(*(_in_time(serve, sample, expires) for sample in samples)))
        replies = await self._call(target, samples, expires)
        blames = traits_of(target).blames_answer
        again = [i for i, r in enumerate(replies) if r.status in _DIED or (blames and r.status is ReplyStatus.TIMEOUT)]
        self._counts["retried"] += len(again)
        for index, reply in zip(again, await self._call(target, [samples[i] for i in again], expires), strict=True):
            replies[index] = reply
        outcomes = [outcome_of(reply) for reply in replies]
        for index in again if blames else ():
            reply = replies[index]
            if reply.status is not ReplyStatus.OK and await self._is_reference_fine(target, samples[index], expires):
                outcomes[index] = unparseable(f"the answer exhausts the verifier ({reply.status}: {reply.detail})")
        return outcomes

    async def _call(self, target: str, samples: Sequence[Sample], expires: float) -> list[Reply]:
        longer = traits_of(target).max_seconds
        seconds = max((longer(sample.settings) for sample in samples), default=None) if longer else None
        return await self._lanes.call(target, samples, within_s=expires - time.monotonic(), max_seconds=seconds)

    async def _is_reference_fine(self, target: str, sample: Sample, expires: float) -> bool:
        """True when the verifier handles the reference by itself well: the same failure twice is then the answer's.

        Were that unjudged, a policy could dodge a wrong answer by writing one that explodes.
        """
        check = traits_of(target).reference_check or target
        (reply,) = await self._call(check, [sample.with_reference_as_answer()], expires)
        return outcome_of(reply).score == 1.0


async def _in_time(serve: Callable[[Sample], Awaitable[Outcome]], sample: Sample, expires: float) -> Outcome:
    within_s = None if math.isinf(expires) else expires - time.monotonic()
    try:
        return await asyncio.wait_for(serve(sample), within_s)
    except TimeoutError:
        return unjudged(Status.TIMEOUT, "no verdict within rewards.deadline_s")
    # The boundary around a service that others depend on: its failure belongs to this sample.
    except Exception as error:  # noqa: BLE001
        return unjudged(Status.CRASH, f"{type(error).__name__}: {error}")


def _why_bad(name: str, outcome: Outcome) -> str:
    if outcome.score is None:
        return f"verifier {name!r}: {outcome.status} ({outcome.reason})"
    return f"verifier {name!r} gives the reference itself {outcome.score:g}, not 1"


def _key(target: str, sample: Sample) -> Hashable:
    """All that a verdict of a reusable verifier may depend on: see `Sample.answer_only` for plugins."""
    question = traits_of(target).question
    if question is not None:
        return target, question(sample)
    key = (target, sample.task_key, sample.reference, sample.answer, settings_key(sample))
    return key if PluginSpec.of_target(target) is None else (*key, sample.closed, sample.finish, sample.effort)
