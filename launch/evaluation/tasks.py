"""The tasks that modes are compared on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from launch import recipe
from launch.evaluation.settings import EvalSettings, file_source, is_task_file
from launch.recipe import RecipeError
from launch.sessions import find_recipe
from launch.task_splits import load_task_splits
from rollout.config import TasksConfig
from rollout.schema import Message, Task
from rollout.tasks.files import load_files


def find_tasks(name: str, settings: EvalSettings, *, changes: Mapping[str, Any], limit: int | None) -> tuple[Task, ...]:
    """Distinct tasks in a fixed order, the first `limit` of them.

    `name` is a file (.jsonl, .json, .parquet, .csv), `held_out` or `train` of the settings, or a recipe, whose held-out
    tasks are taken. `changes` (columns, verifier, template) apply to files. Raises ValueError with what can be named.
    """
    if is_task_file(name):
        tasks: Iterable[Task] = load_files(file_source(name, settings, changes))
    elif name in ("held_out", "train"):
        if settings.tasks is None:
            raise ValueError(f"--tasks {name} needs a recipe that has tasks: give --recipe, or name a file")
        tasks = _splits(settings.tasks, name, seed=settings.seed)
    else:
        try:
            config = recipe.load(find_recipe(name))
        except RecipeError as error:
            raise ValueError(
                f"--tasks must be a file (.jsonl, .json, .parquet, .csv), held_out, train or a recipe: {error}"
            ) from error
        tasks = _splits(config.tasks, "held_out", seed=config.run.seed)
    distinct = tuple({task.key: task for task in tasks}.values())
    if not distinct:
        raise ValueError(f"{name} holds no task; modes are compared on at least one")
    return distinct[:limit]


def save_tasks(path: Path, tasks: Sequence[Task]) -> None:
    """One task a line, whole with its reference: what saved attempts are judged again with."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text("".join(json.dumps(asdict(task), default=str) + "\n" for task in tasks), encoding="utf-8")
    aside.replace(path)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """What `save_tasks` wrote."""
    return tuple(_task(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())


def _task(value: Mapping[str, Any]) -> Task:
    prompt = tuple(Message(**message) for message in value["prompt"])
    return Task(**{**value, "prompt": prompt, "skills": tuple(value["skills"])})


def _splits(config: TasksConfig, side: str, *, seed: int) -> tuple[Task, ...]:
    splits = load_task_splits(config, seed=seed)
    return splits.held_out if side == "held_out" else splits.train
