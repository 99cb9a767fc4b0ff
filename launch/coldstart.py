"""The work of `ponder coldstart`: engines and verifiers put to the methods of `budgets.coldstart`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from budgets.coldstart import solutions
from budgets.coldstart.attempts import Manner, Sampler
from budgets.coldstart.five_modes import Modes, plain_analysis, shares
from budgets.coldstart.five_modes import five_modes as five_modes_of
from budgets.coldstart.overlap import Overlap
from budgets.coldstart.solutions import Solutions
from budgets.coldstart.tags import Tagging, tagged
from budgets.coldstart.truncation import RATIOS, REMARKS, Truncation, truncated
from budgets.config import BudgetsConfig
from budgets.effort import token_budgets
from budgets.modes import parse_modes
from budgets.shaping.config import ThinkDialConfig
from launch import cluster, plugins
from launch.evaluation.policies import engines, find_model, fingerprint
from launch.evaluation.sampling import Policy
from launch.evaluation.settings import EvalSettings, load_settings
from launch.evaluation.tasks import find_tasks
from launch.manifest import write_json
from rewards.judge import Judge
from rewards.outcome import samples_of
from rollout.schema import Group, Job, Outcome, Task, TokenBudget

T = TypeVar("T")
Make = Callable[[Task, Sampler], Awaitable[Solutions]]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says, whatever the method."""

    policy: str
    out: Path
    recipe: str | None
    limit: int | None
    temperature: float | None
    against: tuple[str, ...]
    seed: int
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to make solutions: what it asks for each task, given the recipe's efforts, and how the set is mixed."""

    name: str
    maker: Callable[[BudgetsConfig], Make]
    most_samples: int
    mix: Callable[[Mapping[str, int]], dict[str, float]] = lambda counts: dict.fromkeys(counts, 1.0)


def thinkdial(ratios: Mapping[str, str] | None, remarks: Mapping[str, str] | None, samples: int) -> Method:
    try:
        shares_kept = {name: float(value) for name, value in (ratios or RATIOS).items()}
    except ValueError as error:
        raise ValueError(f"--ratio must be a number from 0 to 1, got {dict(ratios or {})}") from error
    how = Truncation(ratios=shares_kept, remarks=REMARKS if remarks is None else remarks, samples=samples)

    def maker(config: BudgetsConfig) -> Make:
        budgets = {name: _effort(config, name) for name in how.ratios}
        return lambda task, sampler: truncated(task, budgets, sampler, how)

    return Method(name="thinkdial", maker=maker, most_samples=samples)


def adactrl(thorough: str | None, brief: str | None, samples: int, easy_above: float) -> Method:
    how = Tagging(samples=samples, easy_above=easy_above)

    def maker(config: BudgetsConfig) -> Make:
        long = _effort(config, thorough or next(iter(config.efforts)))
        short = None if brief is None else _effort(config, brief)
        return lambda task, sampler: tagged(task, long, short, sampler, how)

    return Method(name="adactrl", maker=maker, most_samples=samples)


def five_modes(thorough: str | None, samples: int, easy_above: float) -> Method:
    how = Modes(samples=samples, easy_above=easy_above)

    def maker(config: BudgetsConfig) -> Make:
        thinking = _effort(config, thorough or next(iter(config.efforts)))
        direct = parse_modes("off", config)[0].budget
        return lambda task, sampler: five_modes_of(task, thinking, direct, sampler, how, plain_analysis)

    return Method(name="five-modes", maker=maker, most_samples=samples, mix=shares)


def run(method: Method, options: Options, console: Console) -> dict[str, Any]:
    """Make the solutions, write them and their report; return the report. Raises ValueError for what can be mended."""
    model = find_model(options.policy)
    settings = load_settings(options.recipe, model.run, options.overrides)
    make = method.maker(settings.budgets)
    tasks = find_tasks("train", settings, changes={}, limit=options.limit)
    shown = [find_tasks(name, settings, changes={}, limit=None) for name in ("held_out", *options.against)]
    overlap = Overlap(task for some in shown for task in some)
    clean = [task for task in tasks if not overlap.has(task)]
    if not clean:
        raise ValueError(f"all of the {len(tasks)} training tasks overlap with evaluation tasks; give others")
    judge = Judge(settings.rewards, plugins.verifier_targets(settings.rewards, tasks))
    logs = options.out.parent / f"{options.out.stem}-logs"
    identity = {"kind": "model", "fingerprint": fingerprint(model.path)}
    try:
        with cluster.session(settings.cluster, log_dir=logs):
            opened = engines(model, settings, identity, logs=logs)
            found = asyncio.run(_make_all(clean, make, method, opened, judge, settings, options, console))
    finally:
        judge.close()
    kept = solutions.balanced(found) if any(s.label for s in found) else [s for s in found if s.by_effort]
    if not kept:
        raise ValueError(f"no task gave solutions; why, by how often: {_reasons(found)}")
    report = solutions.report(found, kept, num_overlapping=len(tasks) - len(clean))
    counts = {effort: entry["num_solutions"] for effort, entry in report["efforts"].items()}
    report = {"method": method.name, "policy": {"name": options.policy, **identity}, "mix": method.mix(counts)} | report
    _write(options.out, kept, report)
    _tell(options.out, report, console)
    return report


async def _make_all(
    tasks: Sequence[Task],
    make: Make,
    method: Method,
    opened: Any,
    judge: Judge,
    settings: EvalSettings,
    options: Options,
    console: Console,
) -> list[Solutions]:
    format = settings.format
    manner = Manner(
        thinking_open=format.thinking_open,
        thinking_close=format.thinking_close,
        is_prefilled=format.has_thinking and format.prefill_thinking,
        keywords=ThinkDialConfig().keywords,
    )
    temperature = settings.rollout.temperature if options.temperature is None else options.temperature

    async def judged(group: Group) -> Sequence[Outcome]:
        return await judge.judge(samples_of(group))

    async with opened as policy:
        sampler = Sampler(_generator(policy), judged, manner, temperature=temperature, seed=options.seed)
        gate = asyncio.Semaphore(max(1, policy.num_places // method.most_samples))
        done = 0

        async def one(task: Task) -> Solutions:
            nonlocal done
            async with gate:
                result = await make(task, sampler)
            done += 1
            if done % max(1, len(tasks) // 10) == 0:
                console.print(f"{done} of {len(tasks)} tasks", markup=False, highlight=False)
            return result

        async with asyncio.TaskGroup() as workers:
            work = [workers.create_task(one(task)) for task in tasks]
    return [task.result() for task in work]


def _generator(policy: Policy) -> Callable[[Job], Awaitable[Group]]:
    async def generate(job: Job) -> Group:
        group, _ = await policy.sample(job)
        return group

    return generate


def _effort(config: BudgetsConfig, name: str) -> TokenBudget:
    budgets = token_budgets(config)
    if name not in budgets:
        raise ValueError(f"{name!r} is no effort of the recipe, which has {', '.join(budgets)}")
    return replace(budgets[name], prefix="")


def _reasons(found: Sequence[Solutions]) -> str:
    counts: dict[str, int] = {}
    for entry in found:
        counts[entry.reason] = counts.get(entry.reason, 0) + 1
    return ", ".join(f"{reason} ({count})" for reason, count in sorted(counts.items(), key=lambda c: -c[1]))


def _write(out: Path, kept: Sequence[Solutions], report: Mapping[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    aside.write_text("".join(json.dumps(s.as_row(), ensure_ascii=False) + "\n" for s in kept), encoding="utf-8")
    aside.replace(out)
    write_json(out.with_suffix(".report.json"), dict(report))


def _tell(out: Path, report: Mapping[str, Any], console: Console) -> None:
    def line(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    line(f"{report['num_kept']} of {report['num_tasks']} tasks; {report['num_overlapping']} overlap with evaluation")
    for reason, count in report["left_out"].items():
        line(f"  left out: {count} {reason}")
    for effort, entry in report["efforts"].items():
        tokens = entry["thinking_tokens"]
        line(
            f"  {effort}: {entry['num_solutions']} solutions, {tokens['mean']} thinking tokens, ratio {entry['ratio']}"
        )
    line(f"solutions: {out}")
    line('use them with: [tasks.train] type = "files", paths = ["..."], columns = { meta = ["demonstrations"],')
    line(f'split_key = "split_key" }}, and [sft] mix = {json.dumps(report["mix"])}')
