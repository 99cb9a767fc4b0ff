"""From the settings to the tasks of a run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from rollout.config import (
    MAX_GENERATED,
    FilesSource,
    HuggingFaceSource,
    MixtureSource,
    PlainTaskSource,
    ProceduralSource,
    ReasoningGymSource,
    TasksConfig,
    TaskSource,
)
from rollout.schema import Task
from rollout.tasks.files import load_files
from rollout.tasks.huggingface import load_huggingface
from rollout.tasks.reasoning_gym import load_reasoning_gym
from rollout.tasks.splits import TaskSplits, decontaminated, split_one, split_two

Generate = Callable[..., list[Task]]  # generate(*, num_tasks: int, seed: int, **params)
Role = Literal["train", "held_out"]
HALF_OF_SEEDS = 2**31


def load_tasks(config: TasksConfig, *, seed: int, procedural: Mapping[str, Generate]) -> TaskSplits:
    """Load or generate all tasks and split them; the same settings and seed give the same tasks in the same order.

    `procedural` maps the names that a procedural source may use to their generators. Raises ValueError, saying where,
    for a source that cannot be read, a row that is no task, and a split that cannot be made.
    """
    train = _load(config.train, role="train", seed=seed, procedural=procedural)
    num_held_out = config.held_out.num_tasks
    if config.held_out.source is None:
        splits = split_one(train, num_held_out=num_held_out, seed=seed)
    else:
        held_out = _load(config.held_out.source, role="held_out", seed=seed, procedural=procedural)
        splits = split_two(train, held_out, num_held_out=num_held_out, seed=seed)
    if (rule := config.decontaminate) is None:
        return splits
    more = [task for source in rule.against for task in load_files(source)]
    return decontaminated(splits, more, ngram=rule.ngram, share=rule.share)


def load_source(source: PlainTaskSource, *, seed: int, procedural: Mapping[str, Generate]) -> list[Task]:
    """Distinct tasks of a source that is only ever evaluated on, seeded as held-out sources are."""
    tasks = _load(source, role="held_out", seed=seed, procedural=procedural)
    return list({task.key: task for task in tasks}.values())


def far_seed(seed: int, role: Role) -> int:
    """The seed of one source, in [0, 2**32) because some generators take no larger one.

    Training sources draw from the lower half and held-out sources from the upper half, each `MAX_GENERATED` away from
    its end: sources that seed item i with seed + i cannot meet, whatever the seed of the run.
    """
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    offset = int.from_bytes(digest, "big") % (HALF_OF_SEEDS - MAX_GENERATED)
    return offset if role == "train" else HALF_OF_SEEDS + offset


def _load(source: TaskSource, *, role: Role, seed: int, procedural: Mapping[str, Generate]) -> list[Task]:
    place = f"tasks.{role}"
    if not isinstance(source, MixtureSource):
        return _load_plain(source, place=place, seed=far_seed(seed, role), procedural=procedural)
    found: list[Task] = []
    for name, plain in source.sources.items():
        where = f"{place}.sources.{name}"
        tasks = _load_plain(plain, place=where, seed=far_seed(seed, role), procedural=procedural)
        found.extend(replace(task, source=name) for task in tasks)
    return found


def _load_plain(source: PlainTaskSource, *, place: str, seed: int, procedural: Mapping[str, Generate]) -> list[Task]:
    match source:
        case FilesSource():
            tasks = load_files(source)
        case HuggingFaceSource():
            tasks = load_huggingface(source)
        case ReasoningGymSource():
            tasks = load_reasoning_gym(source, seed=seed)
        case ProceduralSource():
            tasks = _generate(source, procedural, seed=seed)
    if not tasks:
        raise ValueError(f"a task source must not be empty, {place} of type {source.type!r} is; give it tasks")
    return tasks


def _generate(source: ProceduralSource, procedural: Mapping[str, Generate], *, seed: int) -> list[Task]:
    generate = procedural.get(source.name)
    if generate is None:
        raise ValueError(f"no task generator is registered as {source.name!r}; registered: {sorted(procedural)}")
    try:
        tasks = generate(num_tasks=source.num_tasks, seed=seed, **source.params)
    except TypeError as error:
        raise ValueError(f"task generator {source.name!r} does not take params {source.params}: {error}") from error
    strangers = [type(task).__name__ for task in tasks if not isinstance(task, Task)]
    if strangers:
        raise ValueError(f"task generator {source.name!r} must return tasks, got {strangers[0]}; mend the generator")
    return tasks
