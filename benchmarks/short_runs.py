"""Many short runs of one recipe, one after another, on engines that stay up.

A run of 16 steps takes half a minute, and starting Ray, vLLM and the services takes as long again. Here they are
started once; every run gets a learner of its own and publishes its first weights to the engines that are there, with
the same proof as in any run. What a run writes is what `ponder train` writes, except its report and memory peak.

    with ShortRuns(recipe, runs, model) as session:
        directory = session.run("name", ["loss.type=gspo"])

A finished run is kept and not run again, so a benchmark can be stopped and started at will.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console

from budgets.effort import token_budgets
from launch import cluster, manifest, plugins, preparation, recipe
from launch.config import RunConfig
from launch.console import ConsoleReporter
from launch.reporting import PhaseReporter
from launch.rundir import PhaseLog, RunDirectory
from launch.summary import summarize
from launch.task_splits import load_task_splits
from rl.report.data import load_run
from rollout.schema import Group, Job, PolicySpan, Trajectory

if TYPE_CHECKING:  # build imports Ray, which must wait for a cluster session
    from launch.build import Services
    from rollout.pool import EnginePool
    from rollout.tasks.splits import TaskSplits


class LaterVersions:
    """An engine pool in which version 0 of a run is version `base` of the engines, which count upwards only."""

    def __init__(self, pool: EnginePool, base: int) -> None:
        self._pool = pool
        self.base = base
        self.newest = base

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    async def generate(self, job: Job) -> Group:
        group = await self._pool.generate(job)
        return replace(group, trajectories=tuple(map(self._shifted, group.trajectories)))

    async def begin_update(self, version: int) -> None:
        self.newest = version + self.base
        await self._pool.begin_update(self.newest)

    async def finish_update(self, version: int) -> None:
        await self._pool.finish_update(version + self.base)

    async def versions(self) -> list[int]:
        return [version - self.base for version in await self._pool.versions()]

    def _shifted(self, trajectory: Trajectory) -> Trajectory:
        span, base = trajectory.policy, self.base
        switches = tuple((place, version - base) for place, version in span.switches)
        return replace(trajectory, policy=PolicySpan(start=span.start - base, end=span.end - base, switches=switches))


class ShortRuns:
    """One Ray, one set of engines and one judge for all runs of a recipe that start from `model`.

    Settings of the tasks, rewards and engines must be equal in all runs; a step scorer is started anew where `prm`
    changes.
    """

    def __init__(self, recipe_path: Path, runs: Path, model: Path, *, common: Sequence[str] = ()) -> None:
        self._recipe = recipe_path
        self._runs = runs
        self._model = model
        self._common = ["sft=none", "model.type=path", f"model.path={model}", *common]
        self._stack = ExitStack()
        self._runner: asyncio.Runner | None = None
        self._services: Services | None = None
        self._started: dict[str, Any] = {}  # section -> its settings, of the services that are up
        self._next_version = 0
        self._prepared: tuple[Path, Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()

    def run(self, name: str, settings: Sequence[str] = ()) -> Path:
        """The directory of this run, trained now or before. Raises what the run raised; the next one starts anew."""
        if (done := finished(name, self._runs)) is not None:
            return done
        overrides = [*self._common, f"run.dir={self._runs}", f"run.name={name}", *settings]
        config = recipe.load(self._recipe, overrides)
        directory = RunDirectory.create(config)
        if self._runner is None:
            self._start(config, directory)
        assert self._runner is not None
        try:
            self._runner.run(self._train(config, directory))  # one that is interrupted ends in order
        except BaseException:
            self._stop()
            raise
        print(f"{name}: done", file=sys.stderr, flush=True)
        return directory.root

    def _start(self, config: RunConfig, directory: RunDirectory) -> None:
        self._stack.enter_context(cluster.session(config.cluster, log_dir=directory.logs))
        self._runner = asyncio.Runner()

    def _stop(self) -> None:
        if self._runner is not None:
            self._runner.close()
        self._stack.close()
        self._runner, self._services, self._next_version = None, None, 0

    async def _train(self, config: RunConfig, directory: RunDirectory) -> None:
        from launch import build
        from rl import driver

        manifest.write(directory.manifest, seed=config.run.seed, command=manifest.command_line(), plugin_targets={})
        tasks = load_task_splits(config.tasks, seed=config.run.seed)
        probes, prompts = self._prepare(config, directory, tasks)
        services = await self._serve(config, directory, tasks)
        log = PhaseLog(directory.phases)
        with (directory.root / "console.txt").open("w") as text:
            console = ConsoleReporter(Console(file=text, width=120), title=directory.root.name, num_steps=1)
            reporter = PhaseReporter(console, log, num_steps=config.loop.num_steps)
            run = build.build_run(
                config, directory, services, tasks=tasks, probes=probes, geometry_prompts=prompts, reporter=reporter
            )
            try:
                await driver.train(run)
            finally:
                self._next_version = services.engines.newest + 1  # type: ignore[attr-defined]
                services.learner.close()
                if services.reference is not None:
                    services.reference.close()
        train = log.seconds("train")
        seconds = {"cold_start": 0.0, "train": train, "eval": 0.0, "total": train}
        manifest.write_json(directory.summary, summarize(load_run(directory.root), seconds=seconds, peak_gib=0.0))

    def _prepare(self, config: RunConfig, directory: RunDirectory, tasks: TaskSplits) -> tuple[Any, Any]:
        """Probes and prompts, made once; every run's directory gets its model."""
        if self._prepared is None:
            num_prompts = config.diagnostics.geometry_tasks if config.diagnostics.geometry_every else 0
            made = cluster.run_isolated(
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
            self._prepared = (directory.base_model, *made)
        model, probes, prompts = self._prepared
        shutil.copytree(model, directory.start_model)
        directory.probes.write_text(json.dumps(probes))
        directory.geometry_prompts.write_text(json.dumps(prompts))
        return probes, prompts

    async def _serve(self, config: RunConfig, directory: RunDirectory, tasks: TaskSplits) -> Services:
        """Services for one run: engines and judge that are up, a learner of its own."""
        from launch import build

        wanted = {name: getattr(config, name).model_dump() for name in ("rollout", "format", "rewards", "prm")}
        if self._services is None:
            verifiers = plugins.verifier_targets(config.rewards, (*tasks.train, *tasks.held_out))
            services = await build.start_services(
                config, directory, model_dir=directory.start_model, verifiers=verifiers
            )
            self._services, self._started = services, wanted
        else:
            fixed = [name for name in ("rollout", "format", "rewards") if wanted[name] != self._started[name]]
            if fixed:
                raise ValueError(f"all short runs of a session share {', '.join(fixed)}; use another ShortRuns for it")
            learner, reference = build.start_weights(
                config, directory, directory.start_model, seats=self._services.seats
            )
            await learner.ready()
            if reference is not None:
                await reference.ready()
            services = replace(self._services, learner=learner, reference=reference)
            if wanted["prm"] != self._started["prm"]:
                scorer = await build.in_thread(build.start_scorer, config, directory, directory.start_model)
                services = replace(services, scorer=scorer)
                self._services, self._started = services, wanted
        engines: Any = LaterVersions(self._services.engines, self._next_version)
        return replace(services, engines=engines)


def cold_model(recipe_path: Path, runs: Path, settings: Sequence[str] = ()) -> Path:
    """The model of the recipe's cold start, made on first use below `runs`."""
    model = runs / "cold-start" / "start_model"
    if not (model / "config.json").is_file():
        changes = [f"run.dir={runs}", "run.name=cold-start", *settings]
        command = [str(Path(sys.executable).with_name("ponder")), "sft", str(recipe_path)]
        subprocess.run([*command, *(part for c in changes for part in ("--set", c))], check=True, stdout=sys.stderr)
    return model.resolve()


def finished(name: str, runs: Path) -> Path | None:
    """The newest finished directory of this run: `name`, or `name-2` where a first attempt was interrupted."""
    whole = [p.parent for p in (*runs.glob(f"{name}/summary.json"), *runs.glob(f"{name}-[0-9]*/summary.json"))]
    return max(whole, key=lambda path: path.stat().st_mtime, default=None)
