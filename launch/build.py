"""The composition root: settings in, services and a wired training run out. The only place that knows every room.

Imported inside a cluster session only: the actors' modules import Ray, which reads its environment at that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from launch import plugins
from launch.config import PluginSection, RunConfig
from launch.rundir import RunDirectory
from prm.config import ExactPrmConfig
from rewards.actor import JudgeClient, start_judge
from rewards.config import TASK_VERIFIER, SandboxConfig
from rewards.sandbox import WorkerPool
from rl.learner.actor import LearnerClient, start_learner
from rl.ports import StepScorer
from rl.sync import PublishAndProve
from rollout.actor import EnginePool, start_engines
from rollout.config import ProceduralSource
from rollout.schema import Float32Array, Task
from rollout.tasks.load import load_tasks
from rollout.tasks.splits import TaskSplits


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What runs in Ray for a training run. The session that started them ends them."""

    engines: EnginePool
    learner: LearnerClient
    judge: JudgeClient
    scorer: StepScorer


class _EngineSink:
    """The engines as `rl.sync.WeightSink`: an engine reports 0 for a first token, which has no prefix; sync leaves it
    out.
    """

    def __init__(self, engines: EnginePool) -> None:
        self.begin_update = engines.begin_update
        self.receive = engines.receive
        self.finish_update = engines.finish_update
        self.versions = engines.versions
        self._engines = engines

    async def probe(self, token_ids: list[list[int]]) -> list[list[Float32Array]]:
        return [[logprobs[1:] for logprobs in engine] for engine in await self._engines.probe(token_ids)]


def load_task_splits(config: RunConfig) -> TaskSplits:
    """Training and held-out tasks. Raises ValueError naming the source that cannot give them."""
    generators = plugins.load_all("ponder.tasks")
    for source in (config.tasks.train, config.tasks.held_out.source):
        if isinstance(source, ProceduralSource) and source.name not in generators:
            generators[source.name] = plugins.load("ponder.tasks", source.name)
    return load_tasks(config.tasks, seed=config.run.seed, procedural=generators)


def verifier_targets(config: RunConfig, tasks: Sequence[Task]) -> dict[str, str]:
    """Every registered verifier, and those that the tasks or the reward name by a path."""
    targets = plugins.registered("ponder.verifiers")
    named = {task.verifier for task in tasks} | {c.verifier for c in config.rewards.components.values()}
    for name in sorted(named - targets.keys() - {TASK_VERIFIER}):
        targets[name] = plugins.target("ponder.verifiers", name)
    return targets


async def start_services(
    config: RunConfig, directory: RunDirectory, *, model_dir: Path, version: int, verifiers: Mapping[str, str]
) -> Services:
    """Start engines, learner, judge and step scorer at the same time; return when all of them answer."""
    learner = start_learner(
        config.learner,
        config.loss,
        str(model_dir),
        temperature=config.rollout.temperature,
        log_dir=str(directory.logs),
        seed=config.run.seed,
        total_steps=config.loop.num_steps,
    )
    async with asyncio.TaskGroup() as starts:
        starts.create_task(learner.ready())
        engines = starts.create_task(
            asyncio.to_thread(start_engine_pool, config, directory, model_dir, version=version)
        )
        judge = starts.create_task(asyncio.to_thread(start_judge, config.rewards, verifiers))
        scorer = starts.create_task(asyncio.to_thread(start_scorer, config))
    return Services(engines=engines.result(), learner=learner, judge=judge.result(), scorer=scorer.result())


def start_engine_pool(config: RunConfig, directory: RunDirectory, model_dir: Path, *, version: int) -> EnginePool:
    return start_engines(
        config.rollout,
        config.format,
        str(model_dir),
        log_dir=str(directory.logs),
        seed=config.run.seed,
        version=version,
    )


def start_scorer(config: RunConfig) -> StepScorer:
    """The step scorer that the prm section names, by the registry: built-in or plugin."""
    section = config.prm
    name, settings = _choice(section)
    scorer: StepScorer = plugins.load("ponder.steps", name)(settings, _scorer_pool(section))
    return scorer


def _scorer_pool(section: Any) -> Any:
    """A picklable maker of the killable processes in which step claims are checked, within the section's limits."""
    limits: ExactPrmConfig | SandboxConfig = section if isinstance(section, ExactPrmConfig) else SandboxConfig()
    return partial(
        WorkerPool,
        num_workers=limits.num_workers,
        max_seconds=limits.max_seconds,
        max_memory_mib=limits.max_memory_mib,
    )


def _choice(section: Any) -> tuple[str, Any]:
    """The registered name of a section's part and what it is built from."""
    return (section.name, section.params) if isinstance(section, PluginSection) else (section.type, section)
