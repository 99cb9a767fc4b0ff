"""Every sample of every task in every mode, once: jobs to a policy, its answers to the judge, verdicts to the store.

A job is up to `BLOCK` samples of a task in a mode. Its seed and its key in the store are functions of what it is, not
of when it runs, so an evaluation that was killed and started again gives what one without interruption gives.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from budgets.evaluation.attempt import Attempt
from budgets.modes import Mode
from launch.evaluation.store import AttemptStore, digest
from rewards.outcome import Sample, samples_of
from rl.verdict import is_correct
from rollout.schema import Group, Job, Outcome, Purpose, Sampling, Task
from rollout.token_counts import TokenCounts

BLOCK = 8
SLOW_VERDICTS = 4  # jobs whose answers wait for the verifier at a time; a longer queue would only meet its deadline


class Policy(Protocol):
    """What is evaluated. `identity` is what its answers depend on, `num_places` how many samples it takes at a time."""

    identity: Mapping[str, Any]
    num_places: int

    async def sample(self, job: Job) -> tuple[Group, tuple[TokenCounts, ...]]:
        """The group of a job and the token counts of its siblings."""
        ...


class SampleJudge(Protocol):
    """The verifier service: `rewards.judge.Judge`."""

    async def judge(self, samples: Sequence[Sample]) -> list[Outcome]: ...


class Progress(Protocol):
    """Told how many samples are finished, and how many of them were found on disk."""

    def advance(self, num_samples: int, *, was_kept: bool) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be sampled. `context` is all that verdicts and texts depend on besides task, mode and policy."""

    tasks: tuple[Task, ...]
    modes: tuple[Mode, ...]
    num_samples: int
    sampling: Sampling
    seed: int
    context: Mapping[str, Any]

    @property
    def total(self) -> int:
        return len(self.tasks) * len(self.modes) * self.num_samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One job of the plan, and the number of its first sample."""

    key: str
    mode: Mode
    start: int
    job: Job


def blocks(plan: Plan, policy: Mapping[str, Any]) -> Iterator[Block]:
    """All jobs, those that may think longest first: the end of the evaluation is then made of short ones."""
    common = digest({"policy": dict(policy), "context": dict(plan.context), "seed": plan.seed})
    for mode in sorted(plan.modes, key=_longest, reverse=True):
        shared = digest({"common": common, "mode": mode.as_json(), "prompt": mode.budget.max_prompt_tokens})
        for task in plan.tasks:
            for start in range(0, plan.num_samples, BLOCK):
                size = min(BLOCK, plan.num_samples - start)
                yield _block(plan, shared, mode, task, start, size)


def finished(plan: Plan, policy: Mapping[str, Any], store: AttemptStore) -> list[Attempt] | None:
    """The attempts of the whole plan, in its order, or None while some are missing."""
    found = [store.get(block.key) for block in blocks(plan, policy)]
    return None if None in found else [attempt for attempts in found for attempt in attempts or ()]


async def collect(
    plan: Plan, policy: Policy, judge: SampleJudge, store: AttemptStore, progress: Progress
) -> list[Attempt]:
    """Sample what the store does not have; return the attempts of the whole plan, in its order."""
    missing = []
    for block in blocks(plan, policy.identity):
        if store.get(block.key) is None:
            missing.append(block)
        else:
            progress.advance(block.job.num_siblings, was_kept=True)
    waiting = iter(missing)
    verdicts = asyncio.Semaphore(SLOW_VERDICTS)

    async def work() -> None:
        for block in waiting:  # shared by all workers: each takes the next
            group, counts = await policy.sample(block.job)
            async with verdicts:
                outcomes = await judge.judge(samples_of(group))
            store.add(block.key, attempts_of(group, counts, outcomes, mode=block.mode.name, start=block.start))
            progress.advance(block.job.num_siblings, was_kept=False)

    size = max((block.job.num_siblings for block in missing), default=1)
    async with asyncio.TaskGroup() as workers:
        for _ in range(min(len(missing), max(1, policy.num_places // size))):
            workers.create_task(work())
    attempts = finished(plan, policy.identity, store)
    assert attempts is not None, "every missing job was added"
    return attempts


def attempts_of(
    group: Group, counts: Sequence[TokenCounts], outcomes: Sequence[Outcome], *, mode: str, start: int = 0
) -> list[Attempt]:
    """The record of a judged group."""
    task = group.job.task
    return [
        Attempt(
            task=task.key,
            source=task.source,
            mode=mode,
            sample=start + trajectory.sibling,
            text=trajectory.text.encode(errors="replace").decode(),  # half a surrogate pair could not be written
            thinking=trajectory.thinking,
            answer=trajectory.answer,
            thinking_tokens=count.thinking,
            answer_tokens=count.answer,
            response_tokens=count.response,
            finish=trajectory.finish,
            status=str(outcome.status),
            score=outcome.score,
            correct=is_correct(outcome),
            reason=trajectory.error or outcome.reason,
            is_estimated=count.is_estimated,
        )
        for trajectory, count, outcome in zip(group.trajectories, counts, outcomes, strict=True)
    ]


def _block(plan: Plan, shared: str, mode: Mode, task: Task, start: int, size: int) -> Block:
    what = {"task": task.key, "verifier": task.verifier, "start": start, "size": size}
    name = f"{plan.seed}/{mode.name}/{task.key}/{start}"
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big")
    sampling = Sampling(
        temperature=plan.sampling.temperature, top_p=plan.sampling.top_p, top_k=plan.sampling.top_k, seed=seed
    )
    job = Job(
        group_id=f"modes-{mode.name}-{task.key}-{start}",
        task=task,
        num_siblings=size,
        budget=mode.budget,
        sampling=sampling,
        purpose=Purpose.EVAL,
    )
    return Block(key=digest({"shared": shared, **what}), mode=mode, start=start, job=job)


def _longest(mode: Mode) -> int:
    return (mode.budget.max_thinking_tokens or 0) + mode.budget.max_answer_tokens
