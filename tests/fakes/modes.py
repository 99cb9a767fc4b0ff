"""Stand-ins for the policy and the judge of an evaluation of modes, the same answers whenever they are asked."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from budgets.config import BudgetsConfig, EffortConfig
from budgets.evaluation.attempt import Attempt
from rewards.outcome import Sample
from rollout.schema import Finish, Group, Job, Message, Outcome, PolicySpan, Status, Task, Trajectory, task_key
from rollout.token_counts import TokenCounts, counts_of

BUDGETS = BudgetsConfig(
    max_prompt_tokens=64,
    efforts={
        "high": EffortConfig(instruction="hard", max_thinking_tokens=60, max_answer_tokens=8),
        "low": EffortConfig(instruction="easy", max_thinking_tokens=6, max_answer_tokens=8),
    },
)
HOSTILE = '</script><img src=x onerror="document.title=1"><!-- {{ 1 }} ${1} \u2028 \ud800'


def make_tasks(count: int, *, extra: str = "") -> tuple[Task, ...]:
    """Sums of two sources, `extra` in every prompt."""
    made = []
    for number in range(count):
        prompt = (Message(role="user", content=f"{number} + 1 = {extra}"),)
        key = task_key(prompt, str(number + 1))
        source = "even" if number % 2 == 0 else "odd"
        made.append(Task(key=key, prompt=prompt, answer=str(number + 1), verifier="exact", source=source))
    return tuple(made)


class FakePolicy:
    """Answers by the job's seed alone: longer budgets are right more often. Waits `delay_s` first, if any."""

    def __init__(self, *, delay_s: float = 0.0, extra: str = "", num_places: int = 64) -> None:
        self.identity: Mapping[str, Any] = {"kind": "fake", "extra": extra}
        self.num_places = num_places
        self.num_jobs = 0
        self._delay_s = delay_s
        self._extra = extra

    async def sample(self, job: Job) -> tuple[Group, tuple[TokenCounts, ...]]:
        self.num_jobs += 1
        await asyncio.sleep(self._delay_s * random.random())  # the order of answers is another one every time
        group = Group(job=job, trajectories=tuple(self._trajectory(job, s) for s in range(job.num_siblings)))
        return group, tuple(map(counts_of, group.trajectories))

    def _trajectory(self, job: Job, sibling: int) -> Trajectory:
        name = f"{job.sampling.seed}/{job.task.key}/{sibling}"
        luck = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
        cap = job.budget.max_thinking_tokens
        length = 30 if cap is None else min(cap, 40)
        length = int(length * (0.4 + 0.6 * luck))
        is_right = luck < 0.35 + 0.012 * length
        answer = f"{job.task.answer if is_right else 'no'}{self._extra}"
        text = f"<think>{'t' * length}</think>{answer}"
        start = len("<think>")
        finish = Finish.THINKING_CUT if cap is not None and length >= 0.95 * min(cap, 40) else Finish.STOP
        return Trajectory(
            group_id=job.group_id,
            sibling=sibling,
            token_ids=np.arange(len(text), dtype=np.int32),
            sampled=np.ones(len(text), dtype=np.bool_),
            sampler_logprobs=np.zeros(len(text), dtype=np.float32),
            char_ends=np.arange(1, len(text) + 1, dtype=np.int32),
            prompt_len=0,
            text=text,
            thinking=(start, start + length),
            answer=(len(text) - len(answer), len(text)),
            finish=finish,
            policy=PolicySpan(start=0, end=0),
        )


class FakeJudge:
    """Right if the answer begins with the reference; every `unjudged`-th sample has no verdict."""

    def __init__(self, *, unjudged: int = 0) -> None:
        self._unjudged = unjudged
        self.num_samples = 0

    async def judge(self, samples: Sequence[Sample]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._verdict(sample) for sample in samples]

    def _verdict(self, sample: Sample) -> Outcome:
        self.num_samples += 1
        if self._unjudged and int(sample.task_key, 16) % self._unjudged == sample.sibling:
            return Outcome(status=Status.TIMEOUT, score=None, reason="slow")
        return Outcome(status=Status.JUDGED, score=float(sample.answer.startswith(sample.reference)))


class CountingProgress:
    """What a progress display is told."""

    def __init__(self) -> None:
        self.kept = 0
        self.made = 0

    def advance(self, num_samples: int, *, was_kept: bool) -> None:
        self.kept += num_samples if was_kept else 0
        self.made += 0 if was_kept else num_samples


def attempts_by_key(attempts: Sequence[Attempt]) -> dict[tuple[str, str, int], Attempt]:
    return {(a.mode, a.task, a.sample): a for a in attempts}
