"""The phases of a run, in order: model, cold start, services, evaluation, training, evaluation, report.

Each phase is shown with its time and remembered when it is finished, so a resumed run goes on with the first one that
is not; inside training it goes on from the newest checkpoint.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from budgets.effort import token_budgets
from launch import cluster, plugins, preparation, work
from launch.config import RunConfig
from launch.errors import SpentRunError
from launch.lifelines import watched
from launch.manifest import write_json
from launch.meter import CeilingReached
from launch.model_dir import replace_directory
from launch.rundir import PhaseLog, RunDirectory
from launch.summary import summarize
from launch.task_splits import left_out, load_task_splits, without_tasks
from launch.tasks_check import as_rows
from launch.work import Work
from rl.report.data import RunData, evaluation_of, load_run
from rl.report.page import write_report

if TYPE_CHECKING:  # build imports Ray, which must wait for a cluster session
    from collections.abc import Sequence

    from launch.build import Services
    from rl.evaluate import EvalResult
    from rl.record import Settled
    from rollout.tasks.splits import TaskSplits

MODEL, COLD_START, SERVICES, REPORT = "model", "cold start", "start services", "report"


def train(config: RunConfig, directory: RunDirectory, terminal: Console) -> None:
    """The whole job, or what is left of it. Raises SpentRunError, with all of it written, when a ceiling ended it."""
    stop = None
    with work.session(config, directory, terminal) as job:
        if not _is_trained(job):
            tasks = prepare(job)
            try:
                asyncio.run(_train(job, tasks))
            except CeilingReached as reached:
                stop = reached
            _keep_model(directory)
    if stop is None or (directory.root / "metrics.jsonl").is_file():  # it may come before there is anything to report
        _report(job)
    job.mirror.finish()
    if stop is not None:
        step = _newest_step(directory)
        raise SpentRunError(
            f"stopped: {stop}; {f'step {step} is saved' if step else 'no step was trained'}. Raise the ceiling to go "
            f"on: ponder train --resume {directory.root} --set budgets.ceilings.{stop.name}=..."
        )


def cold_start(config: RunConfig, directory: RunDirectory, terminal: Console) -> None:
    """Only the model and its cold start. Raises ValueError when the recipe has none."""
    if config.sft is None:
        raise ValueError("the recipe has no [sft] section, so there is no cold start to run; add one")
    with work.session(config, directory, terminal) as job:
        prepare(job)
    terminal.print(f"model: {directory.start_model}", markup=False, highlight=False)


def evaluate(config: RunConfig, directory: RunDirectory, model: Path, terminal: Console) -> None:
    """Held-out accuracy of one model, written to evaluation.json of a directory of its own."""
    with work.session(config, directory, terminal) as job:
        result = asyncio.run(_evaluate(job, model))
    write_json(directory.evaluation, result.as_json())
    job.console.finish(before=None, after=evaluation_of(result), report=None)


# ------------------------------------------------------------------------------------------------ before training


def prepare(job: Work) -> TaskSplits:
    """Tasks, the first model and its cold start."""
    config, directory = job.config, job.directory
    efforts = config.budgets.efforts
    with job.phase(MODEL):
        tasks = load_task_splits(config.tasks, seed=config.run.seed)
        if sentence := left_out(tasks):
            job.console.warning(sentence)
        if tasks.overlaps:
            write_json(directory.contamination, as_rows(tasks.overlaps))
            job.console.warning(
                f"{len(tasks.overlaps)} training tasks are left out because they repeat an evaluation task; all are in "
                f"{directory.contamination}"
            )
        made = (directory.probes.is_file(), directory.geometry_prompts.is_file())
        if not (directory.has_model(directory.base_model) and all(made)):
            num_prompts = config.diagnostics.geometry_tasks if config.diagnostics.geometry_every else 0
            probes, prompts = cluster.run_isolated(
                preparation.make_model,
                config.model,
                str(directory.base_model),
                num_threads=1,
                format=config.format,
                tasks=tasks.held_out[: max(preparation.NUM_PROBES, num_prompts)],
                instructions=[budget.instruction for budget in token_budgets(config.budgets).values()],
                num_prompts=num_prompts,
                max_prompt_tokens=config.budgets.max_prompt_tokens,
                seed=config.run.seed,
            )
            write_json(directory.geometry_prompts, prompts)
            write_json(directory.probes, probes)
    if directory.has_model(directory.start_model):
        return tasks
    if config.sft is None:
        _link_model(directory.base_model, directory.start_model)
        return tasks
    with job.phase(COLD_START, total=config.sft.num_steps):
        result = cluster.run_isolated(
            preparation.cold_start,
            config.sft,
            config.format,
            tasks.train,
            num_threads=config.sft.num_threads,
            on_progress=lambda report: job.console.progress(report[0], note=f"loss {report[1]:.3f}"),
            mix=config.sft.mix or {name: effort.weight for name, effort in efforts.items()},
            efforts=efforts,
            model_dir=str(directory.base_model),
            out_dir=str(directory.start_model),
            seed=config.run.seed,
        )
        write_json(directory.cold_start, result)
    return tasks


# ------------------------------------------------------------------------------------------------ training


async def _train(job: Work, tasks: TaskSplits) -> None:
    from launch import build, training

    config, directory = job.config, job.directory
    with job.phase(SERVICES):
        verifiers = plugins.verifier_targets(config.rewards, (*tasks.train, *tasks.held_out))
        services = await build.start_services(config, directory, model_dir=directory.start_model, verifiers=verifiers)
        tasks = await _without_quarantined(job, services, tasks)
    async with watched(cluster.lifelines()):
        await training.train(job, services, tasks)


async def _without_quarantined(job: Work, services: Services, tasks: TaskSplits) -> TaskSplits:
    """The tasks without those whose own reference no verifier accepts; which these are is decided once per run.

    Raises ValueError when they are too many, or nothing is left of a split.
    """
    from launch import build, quarantine

    path, everything = job.directory.quarantine, (*tasks.train, *tasks.held_out)
    max_share = job.config.rewards.max_bad_references
    bad = await build.in_thread(
        functools.partial(
            quarantine.quarantined, path, everything, services.judge.check_references, max_share=max_share
        )
    )
    if not bad:
        return tasks
    job.console.warning(
        f"{len(bad)} tasks are left out because no verifier can judge their reference, {quarantine.example(bad)}; "
        f"all of them are in {path}"
    )
    return without_tasks(tasks, bad.keys())


def _is_trained(job: Work) -> bool:
    """Whether training ended, and at the last step that is asked for now: a resumed run may be longer."""
    return job.log.is_done("train") and _newest_step(job.directory) >= job.config.loop.num_steps


def _newest_step(directory: RunDirectory) -> int:
    """Step of the newest checkpoint, 0 without one."""
    return max((int(path.name[len("step-") :]) for path in directory.checkpoints.glob("step-??????")), default=0)


def _keep_model(directory: RunDirectory) -> None:
    """The model after the last step, beside the checkpoints: hard links, so it costs no disk and outlives them."""
    newest = max(directory.checkpoints.glob("step-??????"), default=None)
    if newest is not None:  # a ceiling may be reached before the first
        _link_model(newest / "learner" / "model", directory.model)


def _link_model(source: Path, target: Path) -> None:
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(source, aside, copy_function=os.link)
    replace_directory(aside, target)


# ------------------------------------------------------------------------------------------------ evaluation alone


async def _evaluate(job: Work, model: Path) -> EvalResult:
    from launch import build
    from rewards.actor import start_judge
    from rl.waits import Waits

    config, directory = job.config, job.directory
    with job.phase(SERVICES):
        tasks = load_task_splits(config.tasks, seed=config.run.seed)
        verifiers = plugins.verifier_targets(config.rewards, tasks.held_out)
        engines = await build.in_thread(build.start_engine_pool, config, directory, model)
        judge = await build.in_thread(start_judge, config.rewards, verifiers, directory.reward_failures)
    evaluator = build.build_evaluator(
        config,
        held_out=tasks.held_out,
        generator=engines,
        judge=judge,
        waits=Waits(config.loop.wait_deadline_s),
    )
    with job.phase("evaluate"):
        result, answers = await evaluator.run(step=1, version=0)
    _tell_unjudged(job, answers)
    return result


def _tell_unjudged(job: Work, answers: Sequence[Settled]) -> None:
    """Warn of answers without a verdict. Raises ValueError when that is all of them: there is no accuracy to show."""
    from rl.evaluate import unjudged

    reasons = unjudged(answers)
    if not reasons:
        return
    count = sum(number for number, _ in reasons.values())
    listed = ", ".join(f"{number} {kind} (such as: {example})" for kind, (number, example) in reasons.items())
    remedy = "raise budgets.max_prompt_tokens where prompts are too long, and see the logs of the run for the rest"
    if count == len(answers):
        raise ValueError(f"none of the {count} answers could be judged: {listed}; {remedy}")
    job.console.warning(f"{count} of {len(answers)} answers could not be judged and are left out: {listed}; {remedy}")


# ------------------------------------------------------------------------------------------------ the end


def _report(job: Work) -> None:
    """Summary and report, after the session: its usage is complete then. Made again when they are there already."""
    directory, started = job.directory, time.monotonic()
    run = load_run(directory.root)
    write_json(directory.summary, _summary(directory, job.log, run))
    write_report(directory.root, directory.report)
    job.log.add(REPORT, time.monotonic() - started, is_done=True)
    job.console.finish(before=run.before, after=run.after, report=directory.report)


def _summary(directory: RunDirectory, log: PhaseLog, run: RunData) -> dict[str, Any]:
    spent = work.usage(directory)
    seconds = {
        "cold_start": log.seconds(COLD_START),
        "train": log.seconds("train"),
        "eval": sum(log.seconds(name) for name in log.names() if name.startswith("evaluate")),
        "total": spent["seconds"],
    }
    return summarize(run, seconds=seconds, peak_gib=spent["peak_gib"])
