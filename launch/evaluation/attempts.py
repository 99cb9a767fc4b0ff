"""Attempts of a policy at what an evaluation asks: judged, kept on disk, and not made again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from budgets.evaluation.attempt import Attempt
from budgets.modes import Mode
from launch import cluster, plugins
from launch.errors import InterruptedRunError
from launch.evaluation.policies import LocalModel, api_key, engines, fingerprint, server
from launch.evaluation.progress import SampleProgress
from launch.evaluation.question import Question
from launch.evaluation.references import judgeable
from launch.evaluation.sampling import Plan, Policy, collect, finished
from launch.evaluation.store import AttemptStore
from launch.evaluation.tasks import save_tasks
from launch.manifest import write_json
from rewards.judge import Judge
from rollout.endpoint import Endpoint
from rollout.schema import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What a policy's part comes back with: attempts, the tasks they are of, why others are left out, who answered."""

    attempts: list[Attempt]
    tasks: tuple[Task, ...]
    left_out: Mapping[str, str]
    identity: Mapping[str, Any]
    usage: Mapping[str, float]


def attempts_of(question: Question, model: LocalModel | None, console: Console) -> Sampled:
    """All attempts, those of earlier sessions included; `model` is None where the policy is a server.

    Raises ValueError when a mode has no sample at all, InterruptedRunError on Ctrl-C.
    """
    judge = Judge(question.settings.rewards, plugins.verifier_targets(question.settings.rewards, question.tasks))
    try:
        sampled = _of_server(question, judge, console) if model is None else _of_model(question, model, judge, console)
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError(
            f"interrupted; finished samples are kept in {question.out}, the same command goes on with the rest"
        ) from interrupt
    finally:
        judge.close()
    _require_responses(sampled.attempts, question.modes)
    return sampled


def header_of(question: Question, sampled: Sampled) -> dict[str, Any]:
    """What a file of results begins with: who was asked, and how."""
    return {
        "policy": {"name": question.options.policy, **sampled.identity},
        "seed": question.options.seed,
        "num_tasks_left_out": len(sampled.left_out),
        "left_out": dict(sampled.left_out),
        "settings": question.context,
    }


def remember_usage(out: Path, session: Mapping[str, float]) -> None:
    """Add what this session took to usage.json."""
    path = out / "usage.json"
    sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.is_file() else []
    write_json(path, {"sessions": [*sessions, session]})


def _of_model(question: Question, model: LocalModel, judge: Judge, console: Console) -> Sampled:
    identity = {
        "kind": "model",
        "fingerprint": fingerprint(model.path),
        "dtype": question.settings.rollout.dtype,
    }
    with AttemptStore(question.out) as store:
        tasks, left_out = asyncio.run(judgeable(question.tasks, judge, console))
        plan = _plan(question, tasks, identity)
        attempts, usage = finished(plan, identity, store), {"sampling_s": 0.0, "samples": 0.0}
        if attempts is None:
            logs = question.out / "logs"
            console.print("starting engines ...", markup=False, highlight=False)
            with cluster.session(question.settings.cluster, log_dir=logs):
                opened = engines(model, question.settings, identity, logs=logs)
                attempts, usage = asyncio.run(_sample(plan, opened, judge, store, console))
    return Sampled(attempts=attempts, tasks=tasks, left_out=left_out, identity=identity, usage=usage)


def _of_server(question: Question, judge: Judge, console: Console) -> Sampled:
    options = question.options
    assert options.policy is not None
    endpoint = Endpoint(
        url=options.policy,
        model=options.server.model,
        api_key=api_key(options.server.api_key_env),
        fields=options.server.fields,
        timeout_s=question.settings.rollout.call_timeout_s,
    )

    async def work(store: AttemptStore) -> Sampled:
        tasks, left_out = await judgeable(question.tasks, judge, console)
        async with server(endpoint, question.settings, num_places=options.server.num_requests) as policy:
            plan = _plan(question, tasks, policy.identity)
            attempts, usage = await _sample(plan, _given(policy), judge, store, console)
        identity = dict(policy.identity)
        return Sampled(attempts=attempts, tasks=tasks, left_out=left_out, identity=identity, usage=usage)

    with AttemptStore(question.out) as store:
        return asyncio.run(work(store))


@contextlib.asynccontextmanager
async def _given(policy: Policy) -> AsyncIterator[Policy]:
    yield policy


def _plan(question: Question, tasks: tuple[Task, ...], identity: Mapping[str, Any]) -> Plan:
    """The plan, also written down: what a later look at the attempts has to know."""
    plan = Plan(
        tasks=tasks,
        modes=question.modes,
        num_samples=question.options.num_samples,
        sampling=question.sampling,
        seed=question.options.seed,
        context=question.context,
    )
    save_tasks(question.out / "tasks.jsonl", tasks)
    value = {
        "policy": {"name": question.options.policy, **identity},
        "modes": [mode.as_json() for mode in question.modes],
        "max_prompt_tokens": question.settings.budgets.max_prompt_tokens,
        "num_samples": plan.num_samples,
        "seed": plan.seed,
        "settings": plan.context,
    }
    write_json(question.out / "plan.json", value)
    return plan


async def _sample(
    plan: Plan, opened: AbstractAsyncContextManager[Policy], judge: Judge, store: AttemptStore, console: Console
) -> tuple[list[Attempt], dict[str, float]]:
    """All attempts, and what the new ones took: judging included, the start of the policy not."""
    async with opened as policy:
        with SampleProgress(console, plan.total) as progress:
            attempts = await collect(plan, policy, judge, store, progress)
            return attempts, {"sampling_s": round(progress.seconds, 3), "samples": float(progress.num_new)}


def _require_responses(attempts: Sequence[Attempt], modes: Sequence[Mode]) -> None:
    for mode in modes:
        own = [a for a in attempts if a.mode == mode.name]
        if own and not any(a.has_response for a in own):
            raise ValueError(f"no sample of mode {mode.name} could be made; the first failed with: {own[0].reason}")
