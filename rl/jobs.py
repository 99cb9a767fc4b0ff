"""Where the next job comes from, and the account of those that are out.

A job is *out* from its issue until its group's fate is final. The jobs that are out travel in every checkpoint with
their tasks, budgets and seeds, and a resumed run issues them again before it asks the sampler for anything new. So
every task that the sampler ever gave is settled exactly once, however often the run is killed. Each job's seed is a
hash of the run's seed and its number, so there is no generator whose state could be lost.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rl.ports import Allotter, EffortMix, State, TaskSampler
from rl.sampling.domains import DomainWatch
from rl.verdict import tally
from rollout.schema import Job, Metric, Sampling, ScoredGroup, Task, TokenBudget


class JobSource:
    """Makes jobs out of tasks, budgets and sampling settings."""

    def __init__(
        self,
        sampler: TaskSampler,
        efforts: EffortMix,
        *,
        tasks: Sequence[Task],
        num_siblings: int,
        sampling: Sampling,
        seed: int,
        allotters: Sequence[Allotter] = (),
    ) -> None:
        """`allotters` change every fresh job, in order."""
        self.sampler = sampler
        self.efforts = efforts
        self._pool = tasks
        self._tasks = {task.key: task for task in tasks}
        self._num_siblings = num_siblings
        self._sampling = sampling
        self._seed = seed
        self._allotters = allotters
        self._num_issued = 0
        self._domains = DomainWatch()
        self._again: deque[Job] = deque()
        self._out: dict[str, Job] = {}

    @property
    def num_out(self) -> int:
        return len(self._out) + len(self._again)

    def adopt(self, *, num_siblings: int, sampling: Sampling) -> None:
        """Make jobs like this from now on; jobs that are out stay as they are."""
        self._num_siblings, self._sampling = num_siblings, sampling

    def replace_sampler(self, make: Callable[[Sequence[Task]], TaskSampler]) -> None:
        """Draw with another sampler of the same kind, which goes on with all that this one knows."""
        sampler = make(self._pool)
        sampler.load_state_dict(self.sampler.state_dict())
        self.sampler = sampler

    def next(self, step: int) -> Job:
        """The next job for a slot of `step`; jobs of an interrupted run come first."""
        job = self._again.popleft() if self._again else self._fresh(step)
        self._out[job.group_id] = job
        return job

    def retire(self, scored: ScoredGroup, *, lag: int) -> str | None:
        """The fate of this group is final: the sampler learns how it went. `lag` as in `rl.verdict.Tally`.

        Returns a warning if the task's source has just been found to give no signal.
        """
        job = self._out.pop(scored.group.job.group_id)
        told = tally(scored, lag=lag)
        self.sampler.observe(job.task, told)
        for allotter in self._allotters:
            allotter.observe(job.task, told)
        return self._domains.observe(job.task.source, told)

    def metrics(self) -> list[Metric]:
        """Of the sampler and the allotters."""
        return [*self.sampler.metrics(), *(metric for allotter in self._allotters for metric in allotter.metrics())]

    def state_dict(self) -> State:
        """Everything a resumed run needs, JSON-able. Taken between two awaits, so it is a single moment."""
        return {
            "num_issued": self._num_issued,
            "sampler": self.sampler.state_dict(),
            "domains": self._domains.state_dict(),
            "efforts": self.efforts.state_dict(),
            "allotters": [allotter.state_dict() for allotter in self._allotters],
            "pending": [_job_state(job) for job in (*self._out.values(), *self._again)],
        }

    def load_state_dict(self, state: State) -> None:
        """Raises ValueError when a pending task is not among the tasks of this run."""
        self.sampler.load_state_dict(state["sampler"])
        self._domains.load_state_dict(state["domains"])
        self.efforts.load_state_dict(state["efforts"])
        for allotter, entry in zip(self._allotters, state.get("allotters", ()), strict=False):
            allotter.load_state_dict(entry)
        self._num_issued = state["num_issued"]
        self._out.clear()
        self._again = deque(self._pending_job(entry) for entry in state["pending"])

    def _fresh(self, step: int) -> Job:
        number = self._num_issued
        self._num_issued += 1
        seed = int.from_bytes(hashlib.blake2b(f"{self._seed}/{number}".encode(), digest_size=4).digest()) >> 1
        job = Job(
            group_id=f"g{number:08d}",
            task=self.sampler.next(),
            num_siblings=self._num_siblings,
            budget=self.efforts.next(step),
            sampling=replace(self._sampling, seed=seed),
        )
        for allotter in self._allotters:
            job = allotter.allot(job, step)
        return job

    def _pending_job(self, entry: Mapping[str, Any]) -> Job:
        task = self._tasks.get(entry["task_key"])
        if task is None:
            raise ValueError(
                f"every task of the checkpoint must be among the training tasks, but {entry['task_key']!r} of pending "
                f"group {entry['group_id']} is not: resume with the task files and task seed of the interrupted run"
            )
        return Job(
            group_id=entry["group_id"],
            task=task,
            num_siblings=entry["num_siblings"],
            budget=TokenBudget(**entry["budget"]),
            sampling=Sampling(**entry["sampling"]),
        )


def _job_state(job: Job) -> dict[str, Any]:
    return {
        "group_id": job.group_id,
        "task_key": job.task.key,
        "num_siblings": job.num_siblings,
        "budget": asdict(job.budget),
        "sampling": asdict(job.sampling),
    }
