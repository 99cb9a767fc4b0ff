"""Between a sampling rule, which knows numbers, and the loop, which asks for one task after another.

The rule is asked for `batch_size` tasks at a time, as the methods define it; they wait in a queue that is handed out
one by one. A task is *out* from then until its group is observed, and a rule does not pick it again meanwhile. In a
pool with fewer tasks than are out at a time that cannot be kept: then tasks are out twice, rather than the run
standing still.
"""

from __future__ import annotations

import hashlib
import itertools
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Sequence

import numpy as np

from rl.ports import State
from rl.sampling.picker import NO_TASKS, Picker
from rl.verdict import Tally
from rollout.schema import Metric, Task

MakePicker = Callable[[Sequence[Task]], Picker]


class PoolSampler:
    """Implements `rl.ports.TaskSampler` with any picker. Tasks are numbered in the order of their keys."""

    def __init__(self, tasks: Sequence[Task], make_picker: MakePicker, *, batch_size: int, seed: int) -> None:
        """Raises ValueError without tasks, or when two tasks share a key."""
        self._tasks = sorted(tasks, key=_key)
        if not self._tasks:
            raise ValueError(
                "sampling needs at least one training task, got none: check the tasks section and its filters"
            )
        if twins := sorted({a.key for a, b in itertools.pairwise(self._tasks) if a.key == b.key}):
            raise ValueError(
                f"training tasks must have distinct keys, got {twins[:5]} twice or more: remove the duplicates"
            )
        self._digest = _digest(self._tasks)
        self._seed = seed
        self._batch_size = batch_size
        self._picker = make_picker(self._tasks)
        self._queue: deque[int] = deque()
        self._out: Counter[int] = Counter()
        self._num_informative = self._num_observed = 0

    def next(self) -> Task:
        if not self._queue:
            self._queue.extend(self._pick())
        number = self._queue.popleft()
        self._out[number] += 1
        return self._tasks[number]

    def observe(self, task: Task, tally: Tally) -> None:
        """Raises ValueError for a task that is not out: a group that is counted twice would go unnoticed."""
        number = bisect_left(self._tasks, task.key, key=_key)
        if not self._out[number]:
            raise ValueError(f"a sampler hears of each group that it asked for once, task {task.key} is not out")
        self._out[number] -= 1
        if not self._out[number]:
            del self._out[number]
        self._num_observed += 1
        self._num_informative += tally.is_informative
        self._picker.update(number, tally)

    def state_dict(self) -> State:
        return {
            "seed": self._seed,
            "tasks": self._digest,
            "queue": list(self._queue),
            "out": sorted(self._out.elements()),
            "observed": [self._num_informative, self._num_observed],
            "picker": self._picker.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError when the state belongs to other tasks or another seed, whose order would differ."""
        if (state["seed"], state["tasks"]) != (self._seed, self._digest):
            raise ValueError(
                f"a sampler resumes on the same tasks and seed: saved with tasks {state['tasks']} and seed "
                f"{state['seed']}, now {self._digest} and {self._seed}. Resume with the tasks and seed of the "
                "interrupted run"
            )
        self._queue, self._out = deque(state["queue"]), Counter(state["out"])
        self._num_informative, self._num_observed = state["observed"]
        self._picker.load_state_dict(state["picker"])

    def metrics(self) -> list[Metric]:
        share = self._num_informative / max(1, self._num_observed)
        so_far = Metric(name="sampler/informative_so_far", value=share, reduce="last")
        return [so_far, *self._picker.metrics()]

    def _pick(self) -> list[int]:
        num_free = len(self._tasks) - len(self._out)
        busy = np.fromiter(self._out, dtype=np.int64, count=len(self._out)) if num_free else NO_TASKS
        picked: list[int] = self._picker.pick(min(self._batch_size, num_free or len(self._tasks)), busy).tolist()
        return picked


def _key(task: Task) -> str:
    return task.key


def _digest(tasks: Sequence[Task]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for task in tasks:
        digest.update(f"{task.key} ".encode())
    return digest.hexdigest()
