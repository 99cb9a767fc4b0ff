"""The ports of `prm.search` on a run's services: engines that write steps, a scorer that values them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from prm.search.aggregate import Aggregate, aggregate
from prm.search.ports import Branch
from rl.ports import StepScorer
from rollout.continuation import Continuation, Continued
from rollout.generate import seed_of
from rollout.schema import Finish, Group, Job, Message, PolicySpan, ScoreKind, StepScores, Task, Trajectory

REVISE = "Look at your last answer again, correct what is wrong, and answer anew."


class Engines(Protocol):
    """What a search asks of an engine pool."""

    async def write_on(self, continuation: Continuation) -> tuple[Continued, ...]: ...


def group_of(job: Job, branches: Sequence[Branch]) -> Group:
    """Branches as the siblings of one group, for those who read groups: scorer and verifier."""
    trajectories = tuple(replace(branch.trajectory, sibling=i) for i, branch in enumerate(branches))
    return Group(job=replace(job, num_siblings=len(branches)), trajectories=trajectories)


@dataclass(kw_only=True, eq=False)
class EngineExtender:
    """Implements `prm.search.ports.Extender` for one task. Seeds depend on the task, the tokens written so far and how
    often they were asked for, never on time, so a search that is repeated is the same."""

    engines: Engines
    job: Job
    separator: str
    seed: int
    max_step_tokens: int
    num_tokens: int = 0

    def __post_init__(self) -> None:
        self._asked: Counter[tuple[bytes, bool]] = Counter()

    def root(self) -> Branch:
        return Branch(trajectory=_nothing(self.job.group_id))

    async def extend(
        self, branches: Sequence[Branch], *, num_steps: int | None = 1, greedy: bool = False
    ) -> list[Branch]:
        """Raises RuntimeError when the engines refuse a request."""
        open_ones = [i for i, branch in enumerate(branches) if not branch.ended]
        grown = list(branches)
        if not open_ones:
            return grown
        sampling = replace(self.job.sampling, temperature=0.0) if greedy else self.job.sampling
        job = replace(self.job, num_siblings=len(open_ones), sampling=sampling)
        written = await self.engines.write_on(
            Continuation(
                job=job,
                prefixes=tuple(_prefix(branches[i]) for i in open_ones),
                seeds=tuple(self._seed(branches[i], greedy) for i in open_ones),
                stop="" if num_steps is None else self.separator,
                num_steps=num_steps or 1,
                max_step_tokens=self.max_step_tokens,
            )
        )
        for i, item in zip(open_ones, written, strict=True):
            if item.trajectory.finish in (Finish.ERROR, Finish.ABORTED):
                raise RuntimeError(
                    f"the engines could not go on with task {self.job.task.key}: {item.trajectory.error}"
                )
            self.num_tokens += item.num_new_tokens
            grown[i] = Branch(trajectory=item.trajectory, ended=item.ended)
        return grown

    def _seed(self, branch: Branch, greedy: bool) -> int:
        number = self._asked[branch.key, greedy]
        self._asked[branch.key, greedy] += 1
        return seed_of(f"{self.seed}/{self.job.task.key}/{branch.key.hex()}/{number}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepValuer:
    """Implements `prm.search.ports.Valuer`: step scores as one number. `is_signed` puts probabilities around 0."""

    scorer: StepScorer
    job: Job
    aggregate: Aggregate
    is_signed: bool = False

    async def value(self, branches: Sequence[Branch]) -> list[float]:
        if not branches:
            return []
        scores = await self.scorer.score(group_of(self.job, branches))
        return [self.number(item) for item in scores]

    def number(self, steps: StepScores | None) -> float:
        value = aggregate(steps, self.aggregate)
        is_probability = steps is not None and steps.kind is ScoreKind.PROB
        return 2 * value - 1 if self.is_signed and is_probability else value


@dataclass(kw_only=True, eq=False)
class EngineReviser:
    """Implements `prm.search.ports.Reviser`: earlier attempts stand in the conversation, each followed by `request`."""

    engines: Engines
    job: Job
    seed: int
    request: str = REVISE
    num_tokens: int = 0

    def __post_init__(self) -> None:
        self._asked: Counter[str] = Counter()

    async def attempt(self, earlier: Sequence[Branch]) -> Branch:
        """Raises RuntimeError when the engines refuse it, such as for a conversation that is too long."""
        shown = "/".join(branch.key.hex() for branch in earlier)
        self._asked[shown] += 1
        job = replace(self.job, task=self._task(earlier), num_siblings=1)
        seed = seed_of(f"{self.seed}/{self.job.task.key}/revision/{shown}/{self._asked[shown]}")
        (item,) = await self.engines.write_on(Continuation(job=job, prefixes=(None,), seeds=(seed,)))
        if item.trajectory.finish in (Finish.ERROR, Finish.ABORTED):
            raise RuntimeError(f"the engines could not revise task {self.job.task.key}: {item.trajectory.error}")
        self.num_tokens += item.num_new_tokens
        return Branch(trajectory=item.trajectory, ended=True)

    def _task(self, earlier: Sequence[Branch]) -> Task:
        messages = list(self.job.task.prompt)
        for branch in earlier:
            messages += [
                Message(role="assistant", content=_written(branch.trajectory)),
                Message(role="user", content=self.request),
            ]
        return replace(self.job.task, prompt=tuple(messages))


def _written(trajectory: Trajectory) -> str:
    """Thinking and answer without the end mark."""
    last = trajectory.answer or trajectory.thinking
    return trajectory.text[: None if last is None else last[1]]


def _prefix(branch: Branch) -> Trajectory | None:
    return branch.trajectory if branch.trajectory.prompt_len else None


def _nothing(group_id: str) -> Trajectory:
    """Before the prompt is rendered, which the engines do."""
    return Trajectory(
        group_id=group_id,
        sibling=0,
        token_ids=np.zeros(0, dtype=np.int32),
        sampled=np.zeros(0, dtype=np.bool_),
        sampler_logprobs=np.zeros(0, dtype=np.float32),
        char_ends=np.zeros(0, dtype=np.int32),
        prompt_len=0,
        text="",
        thinking=None,
        answer=None,
        finish=Finish.LENGTH,
        policy=PolicySpan(start=0, end=0),
    )
