"""Tasks from any reasoning-gym family, judged by the family's own scorer.

The family seeds item i with seed + i, so two sets whose seeds are closer than their sizes share items: seeds must be
far apart (see `far_seed` in `rollout/tasks/load.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rollout.config import ReasoningGymSource
from rollout.schema import Message, Task, task_key
from rollout.tasks.worked_solution import demonstrations, metadata_solution

VERIFIER = "reasoning_gym"


def load_reasoning_gym(source: ReasoningGymSource, *, seed: int) -> list[Task]:
    """Generate `source.num_tasks` items. Raises ValueError for an unknown family or a setting it does not take.

    `meta` keeps what the scorer needs: the family and the item's own metadata.
    """
    from reasoning_gym import create_dataset
    from reasoning_gym.factory import DATASETS

    if source.family not in DATASETS:
        raise ValueError(f"no reasoning-gym family {source.family!r}; families: {', '.join(sorted(DATASETS))}")
    if {"seed", "size"} & set(source.params):
        raise ValueError("seed and size of a family are set by the run's seed and num_tasks; remove them from params")
    try:
        items = create_dataset(source.family, seed=seed, size=source.num_tasks, **source.params)
    except (TypeError, ValueError, AssertionError) as error:
        raise ValueError(f"reasoning-gym family {source.family!r} refuses params {source.params}: {error}") from error
    tasks = [_task(items[index], source) for index in range(source.num_tasks)]
    return [task for task in tasks if source.solutions is None or task.meta["demonstrations"] is not None]


def _task(item: dict[str, Any], source: ReasoningGymSource) -> Task:
    question = Message(role="user", content=str(item["question"]))
    prompt = (Message(role="system", content=source.system), question) if source.system else (question,)
    # Some families accept many answers and name none; their scorers read the metadata alone.
    answer = "" if item["answer"] is None else str(item["answer"])
    meta = {"family": source.family, "metadata": _plain(item["metadata"])}
    if source.solutions is not None:
        solution = metadata_solution(source.solutions, meta["metadata"], source.family)
        meta["demonstrations"] = demonstrations(source.solutions, solution, answer)
    return Task(
        key=task_key(prompt, answer),
        prompt=prompt,
        answer=answer,
        verifier=VERIFIER,
        source=f"reasoning_gym:{source.family}",
        skills=(source.family,),
        meta=meta,
    )


def _plain(value: Any) -> Any:
    """The same value with numpy's scalars as Python's own, which every serializer knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple, set):
        return type(value)(map(_plain, value))
    return value
