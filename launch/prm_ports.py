"""The engines, verifiers and chat models of other rooms, as labelling wants to be given them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prm.label.ports import Opening, Written
from prm.models.config import GenerativePrmConfig
from rewards.llm_judge.http import HttpChatModel
from rewards.llm_judge.port import ChatError, ChatRequest
from rewards.llm_judge.settings import ModelJudgeSettings
from rl.ports import Judge
from rollout.schema import Finish, Group, Job, Message, Purpose, Sampling, Task, TokenBudget, Trajectory

if TYPE_CHECKING:  # Ray must wait for a session
    from rollout.pool import EnginePool

_GENERATED = frozenset({Finish.STOP, Finish.LENGTH, Finish.THINKING_CUT})
_TRIES = 3
_PAUSE_S = 2.0


def label_job(task: Task, num: int, budget: TokenBudget, sampling: Sampling) -> Job:
    """A job that no training loop sees."""
    return Job(
        group_id=f"label-{task.key}",
        task=task,
        num_siblings=num,
        budget=budget,
        sampling=sampling,
        purpose=Purpose.LABEL,
    )


class PoolLabeller:
    """The engines as `prm.label.ports.Writer` and `prm.label.run.Sampler`, under one budget."""

    def __init__(self, pool: EnginePool, budget: TokenBudget, sampling: Sampling) -> None:
        self._pool = pool
        self._budget = budget
        self._sampling = sampling

    async def solve(self, task: Task, num: int, seed: int) -> list[Trajectory]:
        sampling = dataclasses.replace(self._sampling, seed=seed)
        group = await self._pool.generate(label_job(task, num, self._budget, sampling))
        return [t for t in group.trajectories if t.finish in _GENERATED]

    async def write(self, task: Task, openings: Sequence[Opening], *, stop: str = "") -> list[Written]:
        from rollout.continuation import Continuation

        continuation = Continuation(
            job=label_job(task, len(openings), self._budget, self._sampling),
            prefixes=tuple(opening.prefix for opening in openings),
            seeds=tuple(opening.seed for opening in openings),
            stop=stop,
        )
        found = await self._pool.write_on(continuation)
        return [
            Written(trajectory=item.trajectory, ended=item.ended, num_new_tokens=item.num_new_tokens) for item in found
        ]


class VerifierJudge:
    """The verifier service as `prm.label.ports.OutcomeJudge`."""

    def __init__(self, judge: Judge, budget: TokenBudget) -> None:
        self._judge = judge
        self._budget = budget

    async def judge(self, task: Task, responses: Sequence[Trajectory]) -> list[float | None]:
        if not responses:
            return []
        siblings = tuple(dataclasses.replace(t, sibling=index) for index, t in enumerate(responses))
        job = label_job(task, len(siblings), self._budget, Sampling())
        outcomes = await self._judge.judge(Group(job=job, trajectories=siblings))
        return [outcome.score for outcome in outcomes]


def critic_of(config: GenerativePrmConfig) -> ChatCritic:
    """The chat service of a generative step scorer. Raises ValueError when its key is not set."""
    return ChatCritic(
        config.base_url, config.model, key_variable=config.api_key_variable, max_tokens=config.max_reply_tokens
    )


class ChatCritic:
    """An OpenAI-compatible chat service as `prm.label.ports.Critic`."""

    def __init__(self, url: str, model: str, *, key_variable: str = "", max_tokens: int = 2048) -> None:
        settings = ModelJudgeSettings(base_url=url, model=model, api_key_variable=key_variable)
        try:
            self._chat = HttpChatModel(settings)
        except ChatError as error:
            raise ValueError(str(error)) from error
        self._within_s = settings.max_seconds
        self._max_tokens = max_tokens
        self._places = asyncio.Semaphore(settings.max_concurrent)

    async def ask(self, messages: Sequence[Message], *, temperature: float, seed: int) -> str | None:
        request = ChatRequest(messages=tuple(messages), temperature=temperature, max_tokens=self._max_tokens, seed=seed)
        async with self._places:
            for attempt in range(_TRIES):
                try:
                    return await self._chat.complete(request, within_s=self._within_s)
                except ChatError as error:
                    if not error.is_passing:
                        raise ValueError(f"the chat service refused: {error}") from error
                    await asyncio.sleep(error.retry_after_s or _PAUSE_S * (attempt + 1))
        return None

    async def close(self) -> None:
        await self._chat.close()
