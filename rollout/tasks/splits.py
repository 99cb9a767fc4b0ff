"""Train and held-out tasks that share nothing.

Two tasks with the same content are duplicates: one is kept. Two tasks with the same split key (`meta["split_key"]` if
the task has one, its content otherwise) are equivalent, such as two orders of one sum: they never stand on both sides.
The order is that of a hash of seed and content, so it depends neither on the order of the files nor on the machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rollout.schema import Task
from rollout.tasks.overlap import Overlap, find_overlaps


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSplits:
    """The tasks of a run. `num_withheld` training tasks were left out because a held-out task is equivalent to them."""

    train: tuple[Task, ...]
    held_out: tuple[Task, ...]
    num_duplicates: int = 0
    num_withheld: int = 0
    overlaps: tuple[Overlap, ...] = ()
    """Training tasks that were left out because they repeat an evaluation task."""


def split_key(task: Task) -> str:
    """What must not stand on both sides of a split."""
    return str(task.meta.get("split_key", task.key))


def split_one(tasks: Sequence[Task], *, num_held_out: int, seed: int) -> TaskSplits:
    """Take `num_held_out` tasks with distinct split keys out of one set; the rest is for training.

    Raises ValueError when fewer than that many keys are there, or nothing would be left to train on.
    """
    ordered, num_duplicates = _ordered(tasks, seed=seed)
    first_of_key = {split_key(task): task for task in reversed(ordered)}  # the earliest in order wins
    if num_held_out >= len(first_of_key):
        raise ValueError(
            f"held_out.num_tasks must be smaller than the number of distinct tasks, got {num_held_out} of "
            f"{len(first_of_key)} (tasks with one split key count once); lower it or give more tasks"
        )
    firsts = [task for task in ordered if first_of_key[split_key(task)] is task]
    held_out = firsts[:num_held_out]
    return _without(ordered, held_out, num_duplicates=num_duplicates)


def split_two(tasks: Sequence[Task], held_out: Sequence[Task], *, num_held_out: int, seed: int) -> TaskSplits:
    """Hold out `num_held_out` tasks of their own source and leave out every training task equivalent to one of them.

    Raises ValueError when the held-out source is too small or nothing is left to train on.
    """
    ordered, num_duplicates = _ordered(tasks, seed=seed)
    candidates, num_more = _ordered(held_out, seed=seed)
    if num_held_out > len(candidates):
        raise ValueError(
            f"held_out.num_tasks must be at most the number of distinct tasks of its source, got {num_held_out} of "
            f"{len(candidates)}; lower it or give more tasks"
        )
    return _without(ordered, candidates[:num_held_out], num_duplicates=num_duplicates + num_more)


def decontaminated(splits: TaskSplits, more: Sequence[Task], *, ngram: int, share: float) -> TaskSplits:
    """Without the training tasks that repeat a held-out task or one of `more`.

    Raises ValueError when nothing is left to train on.
    """
    overlaps = find_overlaps(splits.train, (*splits.held_out, *more), ngram=ngram, share=share)
    bad = {overlap.task.key for overlap in overlaps}
    train = tuple(task for task in splits.train if task.key not in bad)
    if not train:
        raise ValueError(
            f"no task is left to train on: each of {len(splits.train)} repeats an evaluation task "
            f"(tasks.decontaminate: ngram {ngram}, share {share:g}); raise the two, or train on other tasks"
        )
    return replace(splits, train=train, overlaps=tuple(overlaps))


def _without(ordered: Sequence[Task], held_out: Sequence[Task], *, num_duplicates: int) -> TaskSplits:
    held_keys = {split_key(task) for task in held_out}
    train = tuple(task for task in ordered if split_key(task) not in held_keys)
    if not train:
        raise ValueError(
            f"no task is left to train on: each of {len(ordered)} is equivalent to one of {len(held_out)} held-out "
            "tasks; give more training tasks"
        )
    held = {task.key for task in held_out}
    return TaskSplits(
        train=train,
        held_out=tuple(held_out),
        num_duplicates=num_duplicates,
        num_withheld=sum(task.key not in held for task in ordered) - len(train),
    )


def _ordered(tasks: Iterable[Task], *, seed: int) -> tuple[list[Task], int]:
    """Distinct tasks in the seeded order, and how many copies were dropped."""
    everything = list(tasks)
    distinct = {task.key: task for task in reversed(everything)}  # of copies, the first stays

    def place(task: Task) -> bytes:
        return hashlib.blake2b(f"{seed}/{task.key}".encode(), digest_size=16).digest()

    return sorted(distinct.values(), key=place), len(everything) - len(distinct)
