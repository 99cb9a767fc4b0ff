"""`ponder eval modes`: measure thinking modes of a policy, or of saved attempts, and write what came out.

The directory holds, besides the results modes.json, modes.md and modes.html: plan.json and tasks.jsonl, what was asked;
attempts.jsonl, every attempt; usage.json, how long each session took; logs. The results depend on the attempts alone,
so an evaluation that was interrupted and run again ends with the same files.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from budgets.evaluation.attempt import Attempt
from budgets.evaluation.leak import LeakDetector
from budgets.evaluation.results import Evaluation, Reference, evaluate_modes, point_of
from budgets.modes import Mode, base_of
from budgets.shaping.config import ThinkDialConfig
from launch import plugins
from launch.evaluation.attempts import attempts_of, header_of, remember_usage
from launch.evaluation.modes_report.markdown import render_markdown
from launch.evaluation.modes_report.page import render_page
from launch.evaluation.policies import find_model, is_endpoint
from launch.evaluation.question import EvalOptions, Question, ask, check_room, directory_of
from launch.evaluation.saved import Saved, judge_again, read_saved
from launch.evaluation.settings import load_settings, run_of
from launch.evaluation.tasks import find_tasks
from launch.manifest import write_json
from rewards.judge import Judge
from rollout.schema import Task


def run(options: EvalOptions, console: Console) -> Evaluation:
    """The whole command. Raises ValueError for what the user can mend."""
    if options.saved is not None:
        return _measure_saved(options, options.saved, console)
    if options.policy is None:
        raise ValueError("name a --policy, or attempts to measure again with --from-trajectories")
    model = None if is_endpoint(options.policy) else find_model(options.policy)
    settings = load_settings(options.recipe, None if model is None else model.run, options.overrides)
    question = ask(options, settings)
    if model is not None:
        check_room(question)
    started = time.monotonic()
    sampled = attempts_of(question, model, console)
    evaluation = _evaluate(question, sampled.attempts, sampled.tasks, question.modes)
    _write(question.out, header_of(question, sampled), evaluation, sampled.tasks)
    remember_usage(question.out, {"seconds": round(time.monotonic() - started, 3), **sampled.usage})
    _tell(evaluation, question.out, console)
    return evaluation


# ------------------------------------------------------------------------------------------------ saved attempts


def _measure_saved(options: EvalOptions, directory: Path, console: Console) -> Evaluation:
    settings = load_settings(options.recipe, run_of(directory), options.overrides)
    known = () if settings.tasks is None else find_tasks("held_out", settings, changes={}, limit=None)
    saved = read_saved(directory, settings.budgets, known=known)
    modes = _chosen(saved, options.modes)
    base_of(modes, options.base)
    tasks = saved.tasks[: options.limit]
    question = Question(
        options=options, settings=settings, tasks=tasks, modes=modes, out=directory_of(options, "modes")
    )
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
    question: Question, attempts: Sequence[Attempt], tasks: Sequence[Task], modes: Sequence[Mode]
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


def _tell(evaluation: Evaluation, out: Path, console: Console) -> None:
    from launch.evaluation.modes_report.terminal import summary_table

    console.print(summary_table(evaluation.results))
    for name in ("modes.json", "modes.md", "modes.html"):
        console.print(f"{name.partition('.')[2]}: {out / name}", markup=False, highlight=False, soft_wrap=True)
