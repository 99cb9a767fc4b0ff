"""From a recipe's tasks section to the tasks of a run, with every generator that it names, built-in or plugin."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from launch import plugins
from rollout.config import PlainTaskSource, ProceduralSource, TasksConfig
from rollout.schema import Task
from rollout.tasks.load import load_source, load_tasks
from rollout.tasks.splits import TaskSplits


def load_task_splits(config: TasksConfig, *, seed: int) -> TaskSplits:
    """Training and held-out tasks of a run of this seed. Raises ValueError naming the source that cannot give them."""
    return load_tasks(config, seed=config.seed_in(seed), procedural=_generators(config.plain_sources()))


def load_evaluated(source: PlainTaskSource, *, seed: int) -> tuple[Task, ...]:
    """Distinct tasks of a source that is only ever evaluated on."""
    return tuple(load_source(source, seed=seed, procedural=_generators([source])))


def _generators(sources: Iterable[PlainTaskSource]) -> dict[str, Any]:
    generators = plugins.load_all("ponder.tasks")
    for source in sources:
        if isinstance(source, ProceduralSource) and source.name not in generators:
            generators[source.name] = plugins.load("ponder.tasks", source.name)
    return generators


def left_out(tasks: TaskSplits) -> str:
    """A sentence about copies among the tasks; nothing where there are none."""
    if not tasks.num_duplicates:
        return ""
    return (
        f"{tasks.num_duplicates} tasks are left out because another one has the same question and answer; "
        "`ponder tasks check` looks closer at what the tasks repeat"
    )


def without_tasks(tasks: TaskSplits, keys: Collection[str]) -> TaskSplits:
    """The splits without the tasks of these keys. Raises ValueError when nothing is left of one."""
    train, held_out = (tuple(task for task in split if task.key not in keys) for split in (tasks.train, tasks.held_out))
    if not train or not held_out:
        name = "held-out" if train else "training"
        raise ValueError(
            f"no verifier can judge the reference of any {name} task ({len(keys)} of "
            f"{len(tasks.train) + len(tasks.held_out)} tasks in all): check the answer column and the verifier's name"
        )
    return replace(tasks, train=train, held_out=held_out)
