"""Responses written on from a given point, step by step or to their end: what labelling and search ask of an engine.

A continuation starts from the tokens of an earlier trajectory, its masks and probabilities kept, or from the prompt.
With a `stop` it ends where the thinking has come to the end of a step: sampling halts with the token that completes the
text, which stays part of the step. What the token holds beyond it belongs to the next step. Limits, caps and the forced
close are those of the job, counted over the whole response, so a response that was written in pieces is a sample of the
same distribution as one written at once. After the thinking is closed there are no steps: the answer comes whole.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from rollout.engine import Engine, RequestError
from rollout.generate import Attempt
from rollout.put_in import PutIn
from rollout.render import Renderer
from rollout.schema import Finish, Job, Trajectory


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """One per sibling of `job`: where it goes on from (None: the prompt), and its seed.

    `stop` is the text that ends a step, "" to go on to the end; `num_steps` is how many steps are written. A step
    longer than `max_step_tokens` ends there. Seeds take the place of the job's own, so that a caller who writes on
    several times from one point says what differs.
    """

    job: Job
    prefixes: tuple[Trajectory | None, ...]
    seeds: tuple[int, ...]
    stop: str = ""
    num_steps: int = 1
    max_step_tokens: int | None = None

    def __post_init__(self) -> None:
        if not len(self.prefixes) == len(self.seeds) == self.job.num_siblings:
            raise ValueError(
                f"a continuation needs a prefix and a seed for each of {self.job.num_siblings} siblings, got "
                f"{len(self.prefixes)} and {len(self.seeds)}"
            )
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {self.num_steps}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Continued:
    """A response so far. `ended`: it is finished as `trajectory.finish` says; else finish is LENGTH for now."""

    trajectory: Trajectory
    ended: bool
    num_new_tokens: int  # sampled by this continuation


async def continue_all(continuation: Continuation, engine: Engine, renderer: Renderer) -> tuple[Continued, ...]:
    """Every sibling, in order. One that the engine refuses ends with finish ERROR. A dead engine raises."""
    job = continuation.job
    prompt = renderer.prompt_ids(job.task.prompt, job.budget.instruction)
    put_in = PutIn.of(job, renderer)
    limit = min(job.budget.max_prompt_tokens, engine.max_model_len - 1)
    if len(prompt) > limit:
        raise ValueError(f"the prompt of task {job.task.key} has {len(prompt)} tokens, the limit is {limit}")
    return tuple(
        await asyncio.gather(
            *(_continue(continuation, sibling, prompt, put_in, engine, renderer) for sibling in range(job.num_siblings))
        )
    )


async def _continue(
    continuation: Continuation, sibling: int, prompt: list[int], put_in: PutIn, engine: Engine, renderer: Renderer
) -> Continued:
    attempt = Attempt(continuation.job, sibling, prompt, put_in, renderer, room=engine.max_model_len - len(prompt))
    prefix = continuation.prefixes[sibling]
    if prefix is not None:
        attempt.go_on_from(prefix)
    before = attempt.num_sampled
    attempt.seed = continuation.seeds[sibling]
    finish, reason = None, None
    try:
        if not continuation.stop:
            finish = await attempt.run(engine)
        for _ in range(continuation.num_steps if continuation.stop else 0):
            finish = await attempt.run_step(engine, continuation.stop, continuation.max_step_tokens)
            if finish is not None:
                break
    except RequestError as error:
        finish, reason = Finish.ERROR, str(error)
    trajectory = replace(attempt.trajectory(finish or Finish.LENGTH, engine.version), error=reason)
    return Continued(trajectory=trajectory, ended=finish is not None, num_new_tokens=attempt.num_sampled - before)
