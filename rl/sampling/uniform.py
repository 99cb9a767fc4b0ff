"""Every task once per epoch, in a fresh seeded order each epoch.

Formula: epoch e visits the tasks in the order of a permutation drawn from Philox(key = hash of (seed, e)).
Assumption: all tasks are worth the same. What it is not: a curriculum; it ignores what the groups show.
State: (epoch, position) alone, because the order is a function of the seed, the epoch and the tasks' own keys; listing
the tasks in another order changes nothing.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np

from rl.ports import State
from rollout.schema import Metric, ScoredGroup, Task


class UniformSampler:
    """Implements `rl.ports.TaskSampler`."""

    def __init__(self, tasks: Sequence[Task], *, seed: int) -> None:
        """Raises ValueError without tasks, or when two tasks share a key."""
        self._tasks = sorted(tasks, key=lambda task: task.key)
        keys = [task.key for task in self._tasks]
        if not keys:
            raise ValueError(
                "sampling needs at least one training task, got none: check the tasks section and its filters"
            )
        if len(set(keys)) != len(keys):
            twins = sorted({a for a, b in itertools.pairwise(keys) if a == b})
            raise ValueError(
                f"training tasks must have distinct keys, got {twins[:5]} twice or more: remove the duplicates"
            )
        self._digest = hashlib.blake2b(" ".join(keys).encode(), digest_size=8).hexdigest()
        self._seed = seed
        self._epoch = self._position = 0
        self._order = self._permutation()

    def next(self) -> Task:
        if self._position == len(self._tasks):
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self._permutation()
        task = self._tasks[self._order[self._position]]
        self._position += 1
        return task

    def observe(self, scored: ScoredGroup) -> None:
        """Nothing to learn: every task is worth the same."""

    def state_dict(self) -> State:
        return {"seed": self._seed, "tasks": self._digest, "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError when the state belongs to other tasks or another seed, whose order would differ."""
        if (state["seed"], state["tasks"]) != (self._seed, self._digest):
            raise ValueError(
                f"a sampler resumes on the same tasks and seed: saved with tasks {state['tasks']} and seed "
                f"{state['seed']}, now {self._digest} and {self._seed}. Resume with the tasks and seed of the "
                "interrupted run"
            )
        self._epoch, self._position = state["epoch"], state["position"]
        self._order = self._permutation()

    def metrics(self) -> list[Metric]:
        progress = self._epoch + self._position / len(self._tasks)
        return [Metric(name="sampler/epoch", value=progress, reduce="last")]

    def _permutation(self) -> list[int]:
        key = hashlib.blake2b(f"{self._seed}/{self._epoch}".encode(), digest_size=16).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key)))
        return [int(i) for i in generator.permutation(len(self._tasks))]
