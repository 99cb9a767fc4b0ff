"""`ponder prm label`: solutions of a task source, labelled step by step on engines and verifiers of our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from budgets.effort import token_budgets
from launch import cluster, plugins, recipe
from launch.config import PathModel, RunConfig
from launch.evaluation.policies import fingerprint
from launch.evaluation.progress import SampleProgress
from launch.model_dir import check_model
from launch.prm_ports import ChatCritic, PoolLabeller, VerifierJudge
from launch.rundir import RunDirectory
from launch.sessions import find_recipe
from launch.task_splits import load_task_splits
from prm.config import ExactPrmConfig
from prm.data import StepRow, json_line, write_rows
from prm.formats import read_any
from prm.label.ensemble import EnsembleSettings, kappa, label_by_ensemble
from prm.label.exact import label_by_exact
from prm.label.run import label_tasks
from prm.label.settings import LabelSettings
from prm.label.store import LabelStore
from rollout.schema import Sampling, Task, TokenBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelJob:
    """What `ponder prm label` was asked for."""

    source: str
    out: Path
    settings: LabelSettings
    model: Path | None
    num_tasks: int
    split: str
    effort: str | None
    overrides: Sequence[str]


def with_settings(known: dict[str, Any], values: Sequence[str]) -> dict[str, Any]:
    """A table with `KEY=VALUE` settings on top, read as a recipe's."""
    found: dict[str, Any] = recipe.apply({"job": known}, [f"job.{value}" for value in values])["job"]
    return found


def settings_of(method: str, values: Sequence[str], base: RunConfig | None = None) -> LabelSettings:
    """Settings from the command line; splitter, chain and the answer step as the recipe's step scorer has them.

    Raises ValueError naming the setting that is wrong.
    """
    known: dict[str, Any] = {"method": method}
    for name in ("splitter", "include_answer", "chain"):
        value = getattr(base.prm, name, None) if base is not None else None
        if value is not None:
            known[name] = value if not hasattr(value, "model_dump") else value.model_dump()
    try:
        return LabelSettings.model_validate(with_settings(known, values))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def open_source(source: str, model: Path | None, overrides: Sequence[str]) -> tuple[RunConfig, Path]:
    """Settings and model: of a run its newest, of a recipe its `model.path`, or `model`."""
    root = Path(source)
    is_run = root.is_dir()
    config = recipe.load(RunDirectory.open(root).config if is_run else find_recipe(source), overrides)
    if model is None and is_run:
        model = RunDirectory.open(root).newest_model()
    if model is None and isinstance(config.model, PathModel):
        model = Path(config.model.path)
    if model is None:
        raise ValueError(f"{source} builds its model from scratch; name a run, or give --model DIR")
    check_model(model, setting="--model")
    return config, model


def label(job: LabelJob, config: RunConfig, model: Path, console: Console) -> dict[str, Any]:
    """Label; returns the summary that is also written beside the file. Goes on where an earlier call was stopped."""
    budgets = token_budgets(config.budgets)
    effort = job.effort or next(iter(budgets))
    if effort not in budgets:
        raise ValueError(f"--effort is one of {', '.join(budgets)}, got {effort!r}")
    identity = {
        "settings": job.settings.model_dump(mode="json", exclude={"tasks_at_once"}),
        "model": fingerprint(model),
        "effort": effort,
        "split": job.split,
        "temperature": config.rollout.temperature,
    }
    logs = job.out.with_name(f"{job.out.stem}_logs")
    with LabelStore(job.out.with_name(f"{job.out.name}.parts"), identity) as store:
        with cluster.session(config.cluster, log_dir=logs):
            summary = asyncio.run(_work(job, config, model, budgets[effort], store, console, logs))
        rows = store.rows()
        write_rows(job.out, rows)
        if pairs := store.pairs():
            _pairs_file(job.out).write_text("".join(map(json_line, pairs)), encoding="utf-8")
        summary |= {"rows": len(rows), "pairs": len(pairs), **store.spent, "job": identity, **figures_of(rows)}
    job.out.with_name(f"{job.out.stem}_summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


async def _work(
    job: LabelJob,
    config: RunConfig,
    model: Path,
    budget: TokenBudget,
    store: LabelStore,
    console: Console,
    logs: Path,
) -> dict[str, Any]:
    from launch import build  # imports Ray, which must wait for a session
    from rewards.actor import start_judge
    from rollout.actor import start_engines

    splits = load_task_splits(config.tasks, seed=config.run.seed)
    tasks: tuple[Task, ...] = (splits.train if job.split == "train" else splits.held_out)[: job.num_tasks]
    console.print("starting engines and verifiers ...", markup=False, highlight=False)

    def engines() -> Any:
        return start_engines(config.rollout, config.format, str(model.resolve()), log_dir=str(logs), seed=0)

    async with asyncio.TaskGroup() as starts:
        pool_start = starts.create_task(build.in_thread(engines))
        verifiers = plugins.verifier_targets(config.rewards, tasks)
        judge_start = starts.create_task(build.in_thread(start_judge, config.rewards, verifiers, logs / "failures"))
    pool, judge = pool_start.result(), judge_start.result()
    rollout = config.rollout
    sampling = Sampling(temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k)
    labeller = PoolLabeller(pool, budget, sampling)
    try:
        with SampleProgress(console, len(tasks)) as progress:
            progress.advance(len({task.key for task in tasks} & store.done), was_kept=True)
            await label_tasks(
                tasks,
                job.settings,
                sampler=labeller,
                writer=labeller,
                judge=VerifierJudge(judge, budget),
                store=store,
                advance=lambda: progress.advance(1, was_kept=False),
            )
        stats = await pool.stats()
    finally:
        judge.close()
        pool.close()
    prompts, cached = (sum(getattr(s, name) for s in stats) for name in ("num_prompt_tokens", "num_cached_tokens"))
    return {"tasks": len(tasks), "prefix_cache_hit_rate": cached / prompts if prompts else None}


def _pairs_file(out: Path) -> Path:
    return out.with_name(f"{out.stem}_pairs.jsonl")


def figures_of(rows: Sequence[StepRow]) -> dict[str, Any]:
    """Label base rate by position, and how many solutions have a first error that is known."""
    by_position: list[list[float]] = []
    for row in rows:
        for index, value in enumerate(row.labels):
            if len(by_position) <= index:
                by_position.append([])
            if value is not None:
                by_position[index].append(value)
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    return {
        "mean_label_by_position": [sum(values) / len(values) if values else None for values in by_position[:20]],
        "labelled_steps": sum(map(len, by_position)),
        "right_answers": sum(outcomes) / len(outcomes) if outcomes else None,
        "with_first_error": sum(row.first_error not in (None, -1) for row in rows),
    }


# ------------------------------------------------------------------------------------------------ labels of a file


def label_file_exactly(data: Path, out: Path, *, chain: bool) -> dict[str, Any]:
    """Exact labels of the rows of a file."""
    _, rows = read_any(data)
    labelled = [label_by_exact(row, ExactPrmConfig(chain=chain)) for row in rows]
    write_rows(out, labelled)
    return {"rows": len(labelled), **figures_of(labelled)}


async def label_file_by_ensemble(
    data: Path, out: Path, critic: ChatCritic, settings: EnsembleSettings, console: Console
) -> dict[str, Any]:
    """Labels of the rows of a file by several readings; rows need a reference answer. Resumable like `label`."""
    _, rows = read_any(data)
    if missing := [row.id for row in rows if not row.answer]:
        raise ValueError(f"{len(missing)} rows have no reference answer, first {missing[0]!r}; the readers need one")
    identity = {"samples": settings.samples, "agreement": settings.agreement, "min_votes": settings.min_votes}
    reasons: dict[str, int] = {}
    votes: dict[str, list[int | None]] = {}
    places = asyncio.Semaphore(16)
    with LabelStore(out.with_name(f"{out.name}.parts"), identity) as store, SampleProgress(console, len(rows)) as bar:
        bar.advance(len(store.done), was_kept=True)

        async def one(row: StepRow) -> None:
            async with places:
                found = await label_by_ensemble(row, critic, settings)
            reasons[found.reason] = reasons.get(found.reason, 0) + 1
            for style, given in found.votes.items():
                votes.setdefault(style, []).extend(given)
            store.add(row.id, [] if found.row is None else [found.row], [], {})
            bar.advance(1, was_kept=False)

        async with asyncio.TaskGroup() as group:
            for row in rows:
                if row.id not in store.done:
                    group.create_task(one(row))
        labelled = store.rows()
    write_rows(out, labelled)
    names = sorted(votes)
    agreement = {f"{a} {b}": kappa(votes[a], votes[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    return {"rows": len(labelled), "of": len(rows), "reasons": reasons, "kappa": agreement, **figures_of(labelled)}
