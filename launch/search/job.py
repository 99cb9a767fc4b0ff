"""`ponder eval search`: what step scores buy at inference, accuracy against generated tokens.

The directory holds, besides the results search.json, search.md and search.html: plan.json, what was asked;
searches.jsonl, every search with its solutions and step scores; logs. The results depend on the searches alone, so an
evaluation that was interrupted and run again ends with the same files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from budgets.modes import parse_modes
from launch import cluster, plugins
from launch.errors import InterruptedRunError
from launch.evaluation.policies import LocalModel, find_model, fingerprint, is_endpoint
from launch.evaluation.progress import SampleProgress
from launch.evaluation.references import judgeable
from launch.evaluation.settings import EvalSettings, load_settings
from launch.evaluation.tasks import find_tasks, save_tasks
from launch.manifest import write_json
from launch.plugin_section import PluginSection
from launch.search.collect import Parts, collect, kept
from launch.search.plan import SAMPLES, SearchPlan, Strategy, parse_strategies
from launch.search.report.page import render_markdown, render_page
from launch.search.results import evaluate_searches
from launch.search.store import Searched, SearchStore
from prm.config import NoPrmConfig
from prm.search.aggregate import AGGREGATES, Aggregate
from prm.steps import separator_of
from rewards.judge import Judge
from rollout.schema import Sampling, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What the command line says."""

    policy: str
    tasks: str = "held_out"
    searches: str = ""
    num_samples: int = 16
    effort: str | None = None
    aggregate: str = "min"
    out: Path | None = None
    limit: int | None = None
    recipe: str | None = None
    overrides: Sequence[str] = ()
    seed: int = 0
    temperature: float | None = None
    max_step_tokens: int = 512
    max_depth: int = 40
    num_bins: int = 5
    coreset: bool = False
    table: Mapping[str, Any] = field(default_factory=dict)


def run(options: SearchOptions, console: Console) -> dict[str, Any]:
    """The whole command; the results. Raises ValueError for what the user can mend."""
    if is_endpoint(options.policy):
        raise ValueError(
            "a search writes on from tokens, which a server does not take; name a run or a model directory"
        )
    model = find_model(options.policy)
    settings = load_settings(options.recipe, model.run, options.overrides)
    _check(options, settings)
    tasks = find_tasks(options.tasks, settings, changes=options.table, limit=options.limit)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", options.policy).strip("-.")
    out = options.out or Path("runs") / f"search-{name}"
    judge = Judge(settings.rewards, plugins.verifier_targets(settings.rewards, tasks))
    try:
        with SearchStore(out) as store:
            tasks, left_out = asyncio.run(judgeable(tasks, judge, console))
            plan = _plan(options, settings, model, tasks)
            save_tasks(out / "tasks.jsonl", tasks)
            found = kept(plan, store) or _search(plan, settings, model, judge, store, out, console)
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError(
            f"interrupted; finished searches are kept in {out}, the same command goes on with the rest"
        ) from interrupt
    finally:
        judge.close()
    header = {
        "policy": {"name": options.policy, "fingerprint": plan.context["policy"]},
        "effort": plan.budget.effort,
        "seed": options.seed,
        "num_tasks_left_out": len(left_out),
        "settings": dict(plan.context),
    }
    results = header | evaluate_searches(
        found, tasks=[task.key for task in tasks], name=plan.aggregate, num_bins=options.num_bins, seed=options.seed
    )
    _write(out, results, console)
    return results


def _check(options: SearchOptions, settings: EvalSettings) -> None:
    """Refuse what could not give a result, before anything is started."""
    if isinstance(settings.prm, NoPrmConfig):
        raise ValueError(
            "a search needs step scores, and prm.type is 'none'; choose a scorer with --set prm.type=... or a recipe"
        )
    if options.aggregate not in AGGREGATES:
        raise ValueError(f"--aggregate must be one of {', '.join(AGGREGATES)}, got {options.aggregate!r}")
    if options.temperature == 0:
        raise ValueError("--temperature 0 makes all samples equal, so there is nothing to choose from")


def _plan(options: SearchOptions, settings: EvalSettings, model: LocalModel, tasks: tuple[Task, ...]) -> SearchPlan:
    effort = options.effort or next(iter(settings.budgets.efforts))
    (mode,) = parse_modes(effort, settings.budgets)
    rollout = settings.rollout
    temperature = rollout.temperature if options.temperature is None else options.temperature
    samples = Strategy(name=SAMPLES, kind="samples", numbers=(options.num_samples,))
    splitter = getattr(settings.prm, "splitter", None)
    if isinstance(settings.prm, PluginSection) or splitter is None:
        raise ValueError(
            f"a search cuts steps where its scorer does, and prm.type = {settings.prm.type!r} has no splitter"
        )
    aggregate: Aggregate = next(name for name in AGGREGATES if name == options.aggregate)
    context = {
        "policy": fingerprint(model.path),
        "dtype": rollout.dtype,
        "num_samples": options.num_samples,
        "format": settings.format.model_dump(mode="json"),
        "rewards": settings.rewards.model_dump(mode="json", include={"components", "task_settings", "plugins"}),
        "prm": settings.prm.model_dump(mode="json"),
        "sampling": {"temperature": temperature, "top_p": rollout.top_p, "top_k": rollout.top_k},
        "max_model_len": rollout.max_model_len,
    }
    return SearchPlan(
        tasks=tasks,
        strategies=(samples, *parse_strategies(options.searches)),
        budget=mode.budget,
        sampling=Sampling(temperature=temperature, top_p=rollout.top_p, top_k=rollout.top_k),
        aggregate=aggregate,
        separator=separator_of(splitter),
        max_step_tokens=options.max_step_tokens,
        max_depth=options.max_depth,
        seed=options.seed,
        coreset=options.coreset,
        context=context,
    )


def _search(
    plan: SearchPlan,
    settings: EvalSettings,
    model: LocalModel,
    judge: Judge,
    store: SearchStore,
    out: Path,
    console: Console,
) -> list[Searched]:
    """Start engines and scorer, search what is missing, end them."""
    write_json(out / "plan.json", {**plan.context, "searches": [s.name for s in plan.strategies], "seed": plan.seed})
    console.print("starting engines and step scorer ...", markup=False, highlight=False)
    with cluster.session(settings.cluster, log_dir=out / "logs"):
        return asyncio.run(_in_session(plan, settings, model, judge, store, out, console))


async def _in_session(
    plan: SearchPlan,
    settings: EvalSettings,
    model: LocalModel,
    judge: Judge,
    store: SearchStore,
    out: Path,
    console: Console,
) -> list[Searched]:
    from launch.build import in_thread, start_scorer_of  # import Ray, which must wait for a session
    from rl.exploration.config import ExplorationConfig
    from rl.learner.config import LearnerConfig
    from rl.learner.representation_actor import start_representation
    from rollout.actor import start_engines

    rollout, path = settings.rollout, model.path.resolve()

    def start_pool() -> Any:
        return start_engines(rollout, settings.format, str(path), log_dir=str(out / "logs"), seed=settings.seed)

    def start_scorer() -> Any:
        return start_scorer_of(settings.prm, model_dir=path, state_dir=out / "logs" / "prm")

    represented = None
    if plan.coreset:
        represented = start_representation(
            ExplorationConfig(),
            LearnerConfig(device=rollout.device, threads_per_rank=rollout.threads_per_engine),
            str(path),
            log_dir=str(out / "logs"),
        )
    async with asyncio.TaskGroup() as starts:
        pool = starts.create_task(in_thread(start_pool))
        scorer = starts.create_task(in_thread(start_scorer))
    num_places = 2 * rollout.max_num_seqs * rollout.num_engines
    parts = Parts(
        engines=pool.result(),
        scorer=scorer.result(),
        judge=judge,
        num_places=num_places,
        representer=represented,
    )
    try:
        with SampleProgress(console, len(plan.tasks) * len(plan.strategies), what="searches") as progress:
            return await collect(plan, parts, store, progress)
    finally:
        if represented is not None:
            represented.close()
        scorer.result().close()
        pool.result().close()


def _write(out: Path, results: Mapping[str, Any], console: Console) -> None:
    write_json(out / "search.json", results)
    for name, text in (("search.md", render_markdown(results)), ("search.html", render_page(results))):
        aside = out / f".{name}.part"
        aside.write_text(text, encoding="utf-8")
        aside.replace(out / name)
    console.print(render_markdown(results), markup=False, highlight=False)
    for name in ("search.json", "search.md", "search.html"):
        console.print(f"{name.partition('.')[2]}: {out / name}", markup=False, highlight=False, soft_wrap=True)
