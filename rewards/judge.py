"""Samples in, verdicts out: asks the verifiers of each sample, in process or sandboxed, and composes what they say."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from rewards.cache import VerdictCache
from rewards.config import RewardsConfig
from rewards.outcome import Sample, unjudged, unparseable
from rewards.routing import Routing, answer_in_process, settings_key
from rewards.sandbox import Reply, ReplyStatus, WorkerPool
from rewards.verifier import traits_of
from rollout.schema import Outcome, Status

_MAX_PARTS = 64
_DIED = (ReplyStatus.CRASH, ReplyStatus.MEMORY)


class Judge:
    """The verifier service without its wire. Holds the worker pool; `close` ends it."""

    def __init__(self, config: RewardsConfig, verifiers: Mapping[str, str]) -> None:
        """`verifiers` maps a name to 'module:attribute'. Raises UnknownVerifierError for a component's unknown name."""
        self._routing = Routing(config, verifiers)
        limits = config.sandbox
        self._pool = WorkerPool(
            num_workers=limits.num_workers,
            max_seconds=limits.max_seconds,
            max_memory_mib=limits.max_memory_mib,
            max_start_seconds=limits.max_start_seconds,
        )
        self._cache = VerdictCache(config.cache_size)
        self._deadline_s = config.deadline_s
        self._counts: Counter[str] = Counter()

    async def judge(self, samples: Sequence[Sample]) -> list[Outcome]:
        """One verdict per sample, in order, within the configured deadline: the late are a TIMEOUT, the rest stand."""
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
            self._routing.verdict({n: answers[p] if isinstance(p, int) else p for n, p in plan.items()})
            for plan in plans
        ]

    async def check_references(self, samples: Sequence[Sample]) -> list[str | None]:
        """For each sample made by `Sample.of_reference`: why its reference cannot be judged against, or None.

        Raises UnknownVerifierError, or SandboxLoadError for a verifier that cannot be imported: those are mistakes in
        the set-up, not in the data.
        """
        names = sorted({name for sample in samples for name in self._routing.verifiers_of(sample)})
        targets = {name: self._routing.target(name) for name in names}
        for target in targets.values():
            if traits_of(target).in_process is None or traits_of(target).reference_check is not None:
                await asyncio.to_thread(self._pool.load, target)
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
                must_be_right = name == samples[index].verifier or traits_of(target).reads_only_answer
                if reasons[index] is None and (outcome.score is None or (must_be_right and outcome.score < 1.0)):
                    reasons[index] = _why_bad(name, outcome)
        return reasons

    def stats(self) -> dict[str, int]:
        """Counts since the start: cache and routes, and what happened to the workers."""
        pool = self._pool.stats()
        return {
            "in_process": self._counts["in_process"],
            "cached": self._cache.hits,
            "cache_missed": self._cache.misses,
            "sandboxed": self._counts["sandboxed"],
            "retried": self._counts["retried"],
            "workers_started": pool.started,
            "workers_killed": pool.killed,
            "worker_timeouts": pool.timeouts,
            "worker_crashes": pool.crashes,
        }

    def worker_pids(self) -> list[int]:
        return self._pool.worker_pids()

    def close(self) -> None:
        self._pool.close()

    async def _ask(self, asked: Sequence[tuple[str, Sample]], expires: float) -> list[Outcome]:
        """Answer what can be answered here, and the rest in the sandbox, each distinct question once."""
        answers: list[Outcome | None] = [self._here(target, sample) for target, sample in asked]
        open_questions: dict[str, dict[Hashable, list[int]]] = {}
        for index, (target, sample) in enumerate(asked):
            if answers[index] is None:
                # Foreign verifiers may read anything of the sample: each sample is a question of its own.
                key: Hashable = _key(target, sample) if traits_of(target).reads_only_answer else index
                open_questions.setdefault(target, {}).setdefault(key, []).append(index)
        for target, questions in open_questions.items():
            chosen = [asked[indices[0]][1] for indices in questions.values()]
            outcomes = await self._sandboxed(target, chosen, expires)
            for (key, indices), outcome in zip(questions.items(), outcomes, strict=True):
                if traits_of(target).reads_only_answer:
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
        elif traits_of(target).reads_only_answer:
            outcome = self._cache.get(_key(target, sample))
        return outcome

    # ------------------------------------------------------------------------------------------------ the sandbox

    async def _sandboxed(self, target: str, samples: Sequence[Sample], expires: float) -> list[Outcome]:
        """Verdicts of the workers. A worker that died gets one more try: the sample may not have been the cause."""
        self._counts["sandboxed"] += len(samples)
        replies = await self._call(target, samples, expires)
        blames = traits_of(target).blames_answer
        again = [i for i, r in enumerate(replies) if r.status in _DIED or (blames and r.status is ReplyStatus.TIMEOUT)]
        self._counts["retried"] += len(again)
        for index, reply in zip(again, await self._call(target, [samples[i] for i in again], expires), strict=True):
            replies[index] = reply
        outcomes = [_outcome_of(reply) for reply in replies]
        for index in again if blames else ():
            reply = replies[index]
            if reply.status is not ReplyStatus.OK and await self._is_reference_fine(target, samples[index], expires):
                outcomes[index] = unparseable(f"the answer exhausts the verifier ({reply.status}: {reply.detail})")
        return outcomes

    async def _call(self, target: str, samples: Sequence[Sample], expires: float) -> list[Reply]:
        longer = traits_of(target).max_seconds
        seconds = max((longer(sample.settings) for sample in samples), default=None) if longer else None
        return await self._pool.acall(target, samples, within_s=expires - time.monotonic(), max_seconds=seconds)

    async def _is_reference_fine(self, target: str, sample: Sample, expires: float) -> bool:
        """True when the verifier handles the reference by itself well: the same failure twice is then the answer's.

        Were that unjudged, a policy could dodge a wrong answer by writing one that explodes.
        """
        check = traits_of(target).reference_check or target
        (reply,) = await self._call(check, [sample.with_reference_as_answer()], expires)
        return _outcome_of(reply).score == 1.0


def _key(target: str, sample: Sample) -> Hashable:
    question = traits_of(target).question
    if question is not None:
        return target, question(sample)
    return target, sample.task_key, sample.reference, sample.answer, settings_key(sample)


def _why_bad(name: str, outcome: Outcome) -> str:
    if outcome.score is None:
        return f"verifier {name!r}: {outcome.status} ({outcome.reason})"
    return f"verifier {name!r} gives the reference itself {outcome.score:g}, not 1"


def _outcome_of(reply: Reply) -> Outcome:
    """A worker's reply as an outcome. It is data to be checked; anything unexpected is a crash, never a score."""
    if reply.status is ReplyStatus.TIMEOUT:
        return unjudged(Status.TIMEOUT, f"the verifier took {reply.detail}")
    if reply.status is not ReplyStatus.OK:
        return unjudged(Status.CRASH, f"{reply.status}: {reply.detail}")
    try:
        return _checked_outcome(reply.value)
    except (TypeError, ValueError, KeyError) as error:
        return unjudged(Status.CRASH, f"the verifier did not return an Outcome: {str(error)[:200]}")


def _checked_outcome(value: Any) -> Outcome:
    if not isinstance(value, dict):
        raise TypeError(f"got a {type(value).__name__}")
    score, parts = value["score"], value["parts"]
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise TypeError(f"score is a {type(score).__name__}")
    if not isinstance(parts, dict) or len(parts) > _MAX_PARTS:
        raise TypeError(f"parts must be at most {_MAX_PARTS} named numbers")
    numbers = {_clean(str(name)): float(part) for name, part in parts.items()}
    if not all(math.isfinite(part) for part in numbers.values()):
        raise ValueError("parts must be finite")
    status = Status(value["status"])
    return Outcome(
        status=status, score=None if score is None else float(score), parts=numbers, reason=_clean(str(value["reason"]))
    )


def _clean(text: str) -> str:
    """Short, and encodable: half a surrogate pair would break whoever writes it to a file."""
    return text[:500].encode(errors="replace").decode()
