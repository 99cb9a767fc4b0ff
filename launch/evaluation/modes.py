"""`ponder eval modes`: measure thinking modes of a policy, or of saved attempts, and write what came out.

The directory holds, besides the results modes.json, modes.md and modes.html: plan.json and tasks.jsonl, what was asked;
attempts.jsonl, every attempt; usage.json, how long each session took; logs. The results depend on the attempts alone,
so an evaluation that was interrupted and run again ends with the same files.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from budgets.evaluation.attempt import Attempt
from budgets.evaluation.leak import LeakDetector
from budgets.evaluation.results import Evaluation, Reference, evaluate_modes, point_of
from budgets.modes import Mode, base_of, parse_modes
from budgets.shaping.config import ThinkDialConfig
from launch import cluster, plugins
from launch.errors import InterruptedRunError
from launch.evaluation.modes_report.markdown import render_markdown
from launch.evaluation.modes_report.page import render_page
from launch.evaluation.policies import LocalModel, api_key, engines, find_model, fingerprint, is_endpoint, server
from launch.evaluation.progress import SampleProgress
from launch.evaluation.references import judgeable
from launch.evaluation.sampling import Plan, Policy, collect, finished
from launch.evaluation.saved import Saved, judge_again, read_saved
from launch.evaluation.settings import EvalSettings, load_settings, run_of
from launch.evaluation.store import AttemptStore
from launch.evaluation.tasks import find_tasks, save_tasks
from launch.manifest import write_json
from rewards.judge import Judge
from rollout.endpoint import Endpoint
from rollout.schema import Sampling, Task


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What the command line says about a server: model, variable of its key, fields by mode, requests at a time."""

    model: str | None = None
    api_key_env: str | None = None
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    num_requests: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalOptions:
    """What the command line says."""

    policy: str | None = None
    tasks: str = "held_out"
    modes: str | None = None
    num_samples: int = 4
    out: Path | None = None
    limit: int | None = None
    recipe: str | None = None
    overrides: Sequence[str] = ()
    base: str | None = None
    against: Path | None = None
    seed: int = 0
    temperature: float | None = None
    numeric_instruction: str | None = None
    is_enforced: bool = True
    saved: Path | None = None
    keeps_verdicts: bool = False
    table: Mapping[str, Any] = field(default_factory=dict)  # how rows of a task file are read
    server: ServerOptions = ServerOptions()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is to be measured, whatever the policy."""

    options: EvalOptions
    settings: EvalSettings
    tasks: tuple[Task, ...]
    modes: tuple[Mode, ...]
    out: Path

    @property
    def context(self) -> dict[str, Any]:
        """What texts and verdicts depend on besides policy, modes and tasks."""
        return {
            "format": self.settings.format.model_dump(mode="json"),
            "rewards": self.settings.rewards.model_dump(
                mode="json", include={"components", "task_settings", "plugins"}
            ),
            "sampling": {
                "temperature": self.sampling.temperature,
                "top_p": self.sampling.top_p,
                "top_k": self.sampling.top_k,
            },
            "max_model_len": self.settings.rollout.max_model_len,
        }

    @property
    def sampling(self) -> Sampling:
        rollout, asked = self.settings.rollout, self.options.temperature
        temperature = rollout.temperature if asked is None else asked
        return Sampling(temperature=temperature, top_p=rollout.top_p, top_k=rollout.top_k)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sampled:
    """What a policy's part comes back with: attempts, the tasks they are of, why others are left out, who answered."""

    attempts: list[Attempt]
    tasks: tuple[Task, ...]
    left_out: Mapping[str, str]
    identity: Mapping[str, Any]
    usage: Mapping[str, float]


def run(options: EvalOptions, console: Console) -> Evaluation:
    """The whole command. Raises ValueError for what the user can mend."""
    if options.saved is not None:
        return _measure_saved(options, options.saved, console)
    if options.policy is None:
        raise ValueError("name a --policy, or attempts to measure again with --from-trajectories")
    if is_endpoint(options.policy):
        question = _question(options, load_settings(options.recipe, None, options.overrides))
        return _measure(question, lambda judge: _of_server(question, judge, console), console)
    model = find_model(options.policy)
    question = _question(options, load_settings(options.recipe, model.run, options.overrides))
    _check_room(question)
    return _measure(question, lambda judge: _of_model(question, model, judge, console), console)


# ------------------------------------------------------------------------------------------------ sampling


def _question(options: EvalOptions, settings: EvalSettings) -> _Question:
    modes = parse_modes(
        options.modes or ",".join([*settings.budgets.efforts, "auto"]),
        settings.budgets,
        numeric_instruction=options.numeric_instruction,
        is_enforced=options.is_enforced,
        can_begin=options.policy is None or not is_endpoint(options.policy),
    )
    base_of(modes, options.base)
    tasks = find_tasks(options.tasks, settings, changes=options.table, limit=options.limit)
    return _Question(options=options, settings=settings, tasks=tasks, modes=tuple(modes), out=_out(options))


def _out(options: EvalOptions) -> Path:
    name = options.policy or f"again-{options.saved}"
    return options.out or Path("runs") / f"modes-{re.sub(r'[^A-Za-z0-9._-]+', '-', name).strip('-.')}"


def _check_room(question: _Question) -> None:
    """Refuse a mode that the engines have no positions for, before anything is started."""
    longest = question.settings.rollout.max_model_len
    for mode in question.modes:
        budget = mode.budget
        needed = budget.max_prompt_tokens + (budget.max_thinking_tokens or 0) + budget.max_answer_tokens
        if mode.kind == "number" and longest is not None and needed > longest:
            raise ValueError(
                f"mode {mode.name} may need {needed} tokens (prompt {budget.max_prompt_tokens}, answer "
                f"{budget.max_answer_tokens}) and rollout.max_model_len is {longest}; take a smaller number, or raise "
                "it with --set rollout.max_model_len=... as far as the model allows"
            )


def _measure(question: _Question, sample: Callable[[Judge], _Sampled], console: Console) -> Evaluation:
    """Judge references, sample, evaluate, write; the policy's part is `sample`."""
    started = time.monotonic()
    judge = Judge(question.settings.rewards, plugins.verifier_targets(question.settings.rewards, question.tasks))
    try:
        sampled = sample(judge)
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError(
            f"interrupted; finished samples are kept in {question.out}, the same command goes on with the rest"
        ) from interrupt
    finally:
        judge.close()
    _require_responses(sampled.attempts, question.modes)
    header = {
        "policy": {"name": question.options.policy, **sampled.identity},
        "seed": question.options.seed,
        "num_tasks_left_out": len(sampled.left_out),
        "left_out": dict(sampled.left_out),
        "settings": question.context,
    }
    evaluation = _evaluate(question, sampled.attempts, sampled.tasks, question.modes)
    _write(question.out, header, evaluation, sampled.tasks)
    _remember_usage(question.out, {"seconds": round(time.monotonic() - started, 3), **sampled.usage})
    _tell(evaluation, question.out, console)
    return evaluation


def _of_model(question: _Question, model: LocalModel, judge: Judge, console: Console) -> _Sampled:
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
    return _Sampled(attempts=attempts, tasks=tasks, left_out=left_out, identity=identity, usage=usage)


def _of_server(question: _Question, judge: Judge, console: Console) -> _Sampled:
    options = question.options
    assert options.policy is not None
    endpoint = Endpoint(
        url=options.policy,
        model=options.server.model,
        api_key=api_key(options.server.api_key_env),
        fields=options.server.fields,
        timeout_s=question.settings.rollout.call_timeout_s,
    )

    async def work(store: AttemptStore) -> _Sampled:
        tasks, left_out = await judgeable(question.tasks, judge, console)
        async with server(endpoint, question.settings, num_places=options.server.num_requests) as policy:
            plan = _plan(question, tasks, policy.identity)
            attempts, usage = await _sample(plan, _given(policy), judge, store, console)
        identity = dict(policy.identity)
        return _Sampled(attempts=attempts, tasks=tasks, left_out=left_out, identity=identity, usage=usage)

    with AttemptStore(question.out) as store:
        return asyncio.run(work(store))


@contextlib.asynccontextmanager
async def _given(policy: Policy) -> AsyncIterator[Policy]:
    yield policy


def _plan(question: _Question, tasks: tuple[Task, ...], identity: Mapping[str, Any]) -> Plan:
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


# ------------------------------------------------------------------------------------------------ saved attempts


def _measure_saved(options: EvalOptions, directory: Path, console: Console) -> Evaluation:
    settings = load_settings(options.recipe, run_of(directory), options.overrides)
    known = () if settings.tasks is None else find_tasks("held_out", settings, changes={}, limit=None)
    saved = read_saved(directory, settings.budgets, known=known)
    modes = _chosen(saved, options.modes)
    base_of(modes, options.base)
    tasks = saved.tasks[: options.limit]
    question = _Question(options=options, settings=settings, tasks=tasks, modes=modes, out=_out(options))
    attempts: Sequence[Attempt] = saved.attempts
    if not options.keeps_verdicts:
        judge = Judge(settings.rewards, plugins.verifier_targets(settings.rewards, saved.tasks))
        try:
            attempts = asyncio.run(judge_again(saved, judge))
        finally:
            judge.close()
    evaluation = _evaluate(question, attempts, tasks, modes)
    header = {"policy": dict(saved.origin), "verdicts": "kept" if options.keeps_verdicts else "new"}
    question.out.mkdir(parents=True, exist_ok=True)
    _write(question.out, header, evaluation, tasks)
    _tell(evaluation, question.out, console)
    return evaluation


def _chosen(saved: Saved, names: str | None) -> tuple[Mode, ...]:
    if names is None:
        return saved.modes
    by_name = {mode.name: mode for mode in saved.modes}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in wanted if name not in by_name]:
        raise ValueError(f"no attempt of mode {', '.join(unknown)} is saved, only of {', '.join(by_name)}")
    return tuple(by_name[name] for name in wanted)


# ------------------------------------------------------------------------------------------------ what comes out


def _evaluate(
    question: _Question, attempts: Sequence[Attempt], tasks: Sequence[Task], modes: Sequence[Mode]
) -> Evaluation:
    settings, options = question.settings, question.options
    shaping = settings.budgets.shaping
    keywords = shaping.keywords if isinstance(shaping, ThinkDialConfig) else ThinkDialConfig().keywords
    opening = settings.format.thinking_open if settings.format.has_thinking else None
    return evaluate_modes(
        attempts,
        modes=modes,
        tasks={task.key: task.source for task in tasks},
        base=base_of(modes, options.base),
        detector=LeakDetector(keywords, opening=opening),
        seed=options.seed,
        reference=None if options.against is None else _reference(options.against),
    )


def _reference(path: Path) -> Reference:
    """The base mode of another evaluation."""
    try:
        other = json.loads(path.read_text(encoding="utf-8"))
        point = point_of(other["modes"][other["base"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--against must be a modes.json, {path} is none: {type(error).__name__} {error}") from error
    if point is None or min(point) <= 0:
        raise ValueError(f"--against needs a base mode with tokens and accuracy above 0, {path} has {point}")
    return Reference(name=f"{other['base']} of {path}", point=point)


def _write(out: Path, header: Mapping[str, Any], evaluation: Evaluation, tasks: Sequence[Task]) -> None:
    results = {**header, **evaluation.results}
    write_json(out / "modes.json", results)
    for name, text in (
        ("modes.md", render_markdown(results)),
        ("modes.html", render_page(results, evaluation.measured, tasks)),
    ):
        aside = out / f".{name}.part"
        aside.write_text(text, encoding="utf-8")
        aside.replace(out / name)


def _remember_usage(out: Path, session: Mapping[str, float]) -> None:
    path = out / "usage.json"
    sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.is_file() else []
    write_json(path, {"sessions": [*sessions, session]})


def _tell(evaluation: Evaluation, out: Path, console: Console) -> None:
    from launch.evaluation.modes_report.terminal import summary_table

    console.print(summary_table(evaluation.results))
    for name in ("modes.json", "modes.md", "modes.html"):
        console.print(f"{name.partition('.')[2]}: {out / name}", markup=False, highlight=False, soft_wrap=True)
