"""Groups with chosen lengths, answers and verdicts, for the tests of the budgets room."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollout.schema import (
    Finish,
    Group,
    Job,
    Message,
    Outcome,
    PolicySpan,
    Sampling,
    Status,
    Task,
    TokenBudget,
    Trajectory,
)

PROMPT_LEN = 3


def attempt(sibling: int, *, length: int, answer: str | None, thinking: str = "so", version: int = 0) -> Trajectory:
    """A response of `length` one-character tokens; `answer` None means that the thinking was never closed."""
    text = thinking if answer is None else f"{thinking}|{answer}"
    if len(text) > length:
        raise ValueError(f"text {text!r} does not fit in {length} tokens")
    text = text.ljust(length)
    total = PROMPT_LEN + length
    opened = len(thinking)
    return Trajectory(
        group_id="g",
        sibling=sibling,
        token_ids=np.zeros(total, dtype=np.int32),
        sampled=np.arange(total) >= PROMPT_LEN,
        sampler_logprobs=np.zeros(total, dtype=np.float32),
        char_ends=np.concatenate([np.zeros(PROMPT_LEN), np.arange(1, length + 1)]).astype(np.int32),
        prompt_len=PROMPT_LEN,
        text=text,
        thinking=(0, opened),
        answer=None if answer is None else (opened + 1, opened + 1 + len(answer)),
        finish=Finish.LENGTH if answer is None else Finish.STOP,
        policy=PolicySpan(start=version, end=version),
    )


def group_of(trajectories: Sequence[Trajectory], *, effort: str, number: int | None = None) -> Group:
    task = Task(key="k", prompt=(Message(role="user", content="1+1="),), answer="2", verifier="exact", source="fake")
    budget = TokenBudget(
        effort=effort, max_prompt_tokens=8, max_thinking_tokens=None, max_answer_tokens=8, target_tokens=number
    )
    job = Job(group_id="g", task=task, num_siblings=len(trajectories), budget=budget, sampling=Sampling())
    return Group(job=job, trajectories=tuple(trajectories))


def verdicts(scores: Sequence[float | None]) -> tuple[Outcome, ...]:
    """One outcome per score; None is a verifier that timed out."""
    return tuple(Outcome(status=Status.TIMEOUT if s is None else Status.JUDGED, score=s) for s in scores)
