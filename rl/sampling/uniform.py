"""Every task once per epoch, in a fresh seeded order each epoch.

Formula: epoch e visits the tasks in the order of a permutation drawn from Philox(key = hash of (seed, e)).
Assumption: all tasks are worth the same. What it is not: a curriculum; it ignores what the groups show, and it gives a
task that is still under way again when its turn comes.
State: (epoch, position) alone, because the order is a function of the seed and the epoch.
"""

from __future__ import annotations

import numpy as np

from rl.ports import State
from rl.sampling.picker import Numbers, generator
from rl.verdict import Tally
from rollout.schema import Metric


class Uniform:
    """Implements `rl.sampling.picker.Picker`, except that it does not look at what is busy."""

    def __init__(self, num_tasks: int, *, seed: int) -> None:
        self._num_tasks = num_tasks
        self._seed = seed
        self._epoch = self._position = 0
        self._order = self._permutation()

    def pick(self, count: int, busy: Numbers) -> Numbers:
        if self._position == self._num_tasks:
            self._epoch, self._position = self._epoch + 1, 0
            self._order = self._permutation()
        picked = self._order[self._position : self._position + count].astype(np.int64)
        self._position += picked.size
        return picked

    def update(self, number: int, tally: Tally) -> None:
        """Nothing to learn: every task is worth the same."""

    def state_dict(self) -> State:
        return {"epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: State) -> None:
        self._epoch, self._position = state["epoch"], state["position"]
        self._order = self._permutation()

    def metrics(self) -> list[Metric]:
        progress = self._epoch + self._position / self._num_tasks
        return [Metric(name="sampler/epoch", value=progress, reduce="last")]

    def _permutation(self) -> Numbers:
        order = np.arange(self._num_tasks, dtype=np.int32)  # half the memory of the default
        generator(self._seed, "uniform", self._epoch).shuffle(order)
        return order  # type: ignore[return-value]
