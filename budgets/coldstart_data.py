"""Worked solutions for the cold start, drawn from tasks that carry demonstrations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rollout.schema import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One worked solution: what to think and answer on `task` under `effort`, and what to write before that, such as a
    difficulty tag."""

    task: Task
    effort: str
    thinking: str
    answer: str
    preface: str = ""


def draw_demonstrations(
    tasks: Sequence[Task], *, mix: Mapping[str, float], num_draws: int, seed: int
) -> Iterator[Demonstration]:
    """Yield `num_draws` solutions: tasks in a seeded order, each used once before any is used again, efforts by `mix`.

    Where some tasks lack solutions for some efforts of the mix, as in a mixture of streams, each effort goes through
    the tasks that have one for it in this way.

    A task offers its solutions as `meta["demonstrations"] = {effort: {"thinking", "answer"[, "preface"]}}`. Raises
    ValueError for an effort without any solution, and when there is nothing to draw from.
    """
    if not tasks:
        raise ValueError("the cold start needs tasks with worked solutions, got no task at all")
    total = sum(mix.values())
    if total <= 0:
        raise ValueError(f"the mix must give at least one effort a positive share, got {dict(mix)}")
    efforts = list(mix)
    rng = np.random.default_rng([0, seed])
    drawn = rng.choice(len(efforts), size=num_draws, p=np.array([mix[e] for e in efforts]) / total)
    having = {effort: [t for t in tasks if effort in _shown(t)] for effort in efforts if mix[effort] > 0}
    for effort, theirs in having.items():
        if not theirs:
            _demonstration(tasks[0], effort)  # says what is missing
    if all(len(theirs) == len(tasks) for theirs in having.values()):
        for start in range(0, num_draws, len(tasks)):
            order = rng.permutation(len(tasks))
            for offset, index in enumerate(order[: num_draws - start]):
                yield _demonstration(tasks[index], efforts[drawn[start + offset]])
        return
    rounds = {effort: _rounds(theirs, rng.spawn(1)[0]) for effort, theirs in having.items()}
    for index in drawn:
        yield _demonstration(next(rounds[efforts[index]]), efforts[index])


def _rounds(tasks: Sequence[Task], rng: np.random.Generator) -> Iterator[Task]:
    """The tasks in a random order, again and again in another one."""
    while True:
        yield from (tasks[index] for index in rng.permutation(len(tasks)))


def _shown(task: Task) -> Mapping[str, Mapping[str, str]]:
    found: Mapping[str, Mapping[str, str]] = task.meta.get("demonstrations") or {}
    return found


def _demonstration(task: Task, effort: str) -> Demonstration:
    shown = _shown(task).get(effort)
    if shown is None:
        raise ValueError(
            f"task {task.key} (source {task.source!r}) has no worked solution for effort {effort!r}: give it one in "
            'meta["demonstrations"], leave the effort out of sft.mix, or drop the [sft] section'
        )
    return Demonstration(
        task=task,
        effort=effort,
        thinking=shown["thinking"],
        answer=shown["answer"],
        preface=shown.get("preface", ""),
    )
