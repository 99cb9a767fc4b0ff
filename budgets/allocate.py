"""Effort and group size of a job from how its task went before.

    right, judged   of a task: multiplied by `memory` with each of its groups, then the group's counts are added
    p               (right + 1) / (judged + 2): the mean of a Beta posterior over its share of right answers
    group size      smallest G in [min, max] with 1 - p^G - (1 - p)^G >= `informative`, else max: a group of both kinds
    effort          the efforts in their order, most thorough first, at place floor(p K): hard tasks are thought about
                    longest; a task without a history keeps the effort that was drawn

Source: this project's own; the probability of a group with a signal is what dynamic sampling pays for (DAPO,
arXiv 2503.14476), the memory is VADE's for tasks that were trained on (arXiv 2511.18902).

Assumption: attempts at one task are alike under all efforts, so one history serves all of them. With `explore` the
drawn effort is kept, so that a task which was once hard is tried with little thinking now and then.

What it is not: a sampler. Which task comes next is decided elsewhere; groups of one batch may differ in size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from budgets.config import AllocationConfig, BudgetsConfig
from budgets.effort import budget_at
from rollout.schema import Job, Metric, Task

EXPLORE_DRAWS = 11  # tells these draws from others of the same seed


class Counts(Protocol):
    """Right and judged answers of a group."""

    @property
    def num_right(self) -> int: ...

    @property
    def num_judged(self) -> int: ...


def group_size(p: float, config: AllocationConfig) -> int:
    """Siblings that a task with this share of right answers gets."""
    for size in range(config.min_siblings, config.max_siblings):
        if 1.0 - p**size - (1.0 - p) ** size >= config.informative:
            return size
    return config.max_siblings


def effort_place(p: float, num_efforts: int) -> int:
    """Index into the efforts, most thorough first."""
    return min(num_efforts - 1, int(p * num_efforts))


class HistoryAllocator:
    """Implements `rl.ports.Allotter`. Remembers tasks that were seen, and no others."""

    def __init__(self, config: AllocationConfig, budgets: BudgetsConfig) -> None:
        self._config = config
        self._budgets = budgets
        self._counts: dict[str, tuple[float, float]] = {}  # right, judged
        self._sizes: Counter[int] = Counter()
        self._efforts: Counter[str] = Counter()

    def allot(self, job: Job, step: int) -> Job:
        known = self._counts.get(job.task.key)
        if known is not None:
            p = (known[0] + 1.0) / (known[1] + 2.0)
            if self._config.group_size:
                job = replace(job, num_siblings=group_size(p, self._config))
            if self._config.effort and not self._explores(job):
                name = list(self._budgets.efforts)[effort_place(p, len(self._budgets.efforts))]
                job = replace(job, budget=budget_at(self._budgets, name, step=step))
        self._sizes[job.num_siblings] += 1
        self._efforts[job.budget.effort] += 1
        return job

    def observe(self, task: Task, tally: Counts) -> None:
        right, judged = self._counts.get(task.key, (0.0, 0.0))
        memory = self._config.memory
        self._counts[task.key] = (memory * right + tally.num_right, memory * judged + tally.num_judged)

    def metrics(self) -> list[Metric]:
        """Mean group size and shares of efforts over the run, and how many tasks have a history."""
        total = max(1, self._sizes.total())
        mean = sum(size * count for size, count in self._sizes.items()) / total
        values = {"allocation/siblings": mean, "allocation/known_tasks": float(len(self._counts))}
        values |= {f"allocation/{name}": count / total for name, count in sorted(self._efforts.items())}
        return [Metric(name=name, value=value, reduce="last") for name, value in values.items()]

    def state_dict(self) -> Mapping[str, Any]:
        return {
            "counts": {key: list(counts) for key, counts in self._counts.items()},
            "sizes": sorted(self._sizes.items()),
            "efforts": dict(self._efforts),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._counts = {key: (right, judged) for key, (right, judged) in state["counts"].items()}
        self._sizes = Counter(dict(state["sizes"]))
        self._efforts = Counter(state["efforts"])

    def _explores(self, job: Job) -> bool:
        point = np.random.default_rng([EXPLORE_DRAWS, job.sampling.seed or 0]).random()
        return bool(point < self._config.explore)
