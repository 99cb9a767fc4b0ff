"""Verified attempts: what cold-start data is made of. Generation and judging arrive as callables.

An attempt counts as *good* when its outcome is correct, it ended by itself, its thinking was closed, and its answer
holds no thinking: no keyword of reflection and no second opening mark. Everything else is counted by its first fault.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from budgets.shaping.thinkdial import keyword_pattern
from rollout.schema import Finish, Group, Job, Outcome, Purpose, Sampling, Task, TokenBudget, Trajectory

Generate = Callable[[Job], Awaitable[Group]]
JudgeGroup = Callable[[Group], Awaitable[Sequence[Outcome]]]
COMPLETE = frozenset({Finish.STOP, Finish.THINKING_CUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How thinking is written, and what a coherent answer must not hold. `is_prefilled`: the prompt opens it."""

    thinking_open: str
    thinking_close: str
    is_prefilled: bool
    keywords: tuple[str, ...]
    correct_from: float = 1.0

    def begun(self, thinking: str) -> str:
        """A response up to its answer."""
        return f"{'' if self.is_prefilled else self.thinking_open}{thinking}{self.thinking_close}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One attempt. `fault` is None for a good one, else the first thing wrong with it."""

    trajectory: Trajectory
    fault: str | None

    @property
    def thinking(self) -> str:
        return self.trajectory.thinking_text

    @property
    def answer(self) -> str:
        return self.trajectory.answer_text

    @property
    def num_thinking_tokens(self) -> int:
        """Tokens inside the marks, put in or sampled."""
        if self.trajectory.thinking is None:
            return 0
        start, end = self.trajectory.tokens_of(self.trajectory.thinking)
        return end - start


class Sampler:
    """Asks for attempts and judges them."""

    def __init__(self, generate: Generate, judge: JudgeGroup, manner: Manner, *, temperature: float, seed: int) -> None:
        self.manner = manner
        self._generate = generate
        self._judge = judge
        self._temperature = temperature
        self._seed = seed
        self._leaks = keyword_pattern(manner.keywords) if manner.keywords else None

    async def attempts(self, task: Task, budget: TokenBudget, num: int) -> list[Attempt]:
        """`num` attempts at a task, in sibling order."""
        name = f"{self._seed}/{budget.effort}/{task.key}"
        seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest(), "big")
        job = Job(
            group_id=f"coldstart-{budget.effort}-{task.key}",
            task=task,
            num_siblings=num,
            budget=budget,
            sampling=Sampling(temperature=self._temperature, seed=seed),
            purpose=Purpose.LABEL,
        )
        group = await self._generate(job)
        outcomes = await self._judge(group)
        return [
            Attempt(trajectory=t, fault=self._fault(t, o)) for t, o in zip(group.trajectories, outcomes, strict=True)
        ]

    async def answers_to(self, task: Task, budget: TokenBudget, thinking: str, num: int) -> list[Attempt]:
        """`num` answers to a given thinking, which is put in and closed."""
        begun = replace(
            budget, prefix=self.manner.begun(thinking), opens_thinking=False, max_thinking_tokens=None, forced_close=""
        )
        return await self.attempts(task, begun, num)

    def _fault(self, trajectory: Trajectory, outcome: Outcome) -> str | None:
        if outcome.score is None:
            return "unjudged"
        if trajectory.finish not in COMPLETE or trajectory.answer is None:
            return "incomplete"
        if outcome.score < self.manner.correct_from:
            return "wrong"
        answer = trajectory.answer_text
        if self.manner.thinking_open in answer or (self._leaks is not None and self._leaks.search(answer)):
            return "leak"
        return None


def success_rate(attempts: Sequence[Attempt]) -> float | None:
    """Share of right answers, whatever else is wrong with them; None where nothing could be judged."""
    judged = [a for a in attempts if a.fault != "unjudged"]
    return sum(a.fault in (None, "leak") for a in judged) / len(judged) if judged else None
