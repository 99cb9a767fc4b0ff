"""A policy that is a script: what it thinks and answers to a task under an effort, for the cold-start builders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from budgets.coldstart.attempts import Manner, Sampler
from rollout.schema import Group, Job, Message, Outcome, Status, Task, TokenBudget
from tests.fakes.budgets import attempt

MANNER = Manner(thinking_open="<", thinking_close=">", is_prefilled=False, keywords=("wait",))
Said = tuple[str, str | None]  # thinking and answer; no answer: the thinking was never closed
Script = Callable[[Job, int], Said]


def task_of(number: int, *, question: str = "") -> Task:
    prompt = (Message(role="user", content=question or f"{number}+0="),)
    return Task(key=str(number), prompt=prompt, answer=str(number), verifier="exact", source="fake")


def budget_of(effort: str) -> TokenBudget:
    return TokenBudget(effort=effort, max_prompt_tokens=8, max_thinking_tokens=90, max_answer_tokens=8)


def scripted(script: Script, *, unjudged: Sequence[int] = ()) -> tuple[Sampler, list[Job]]:
    """The sampler, and the jobs that it was given. Siblings numbered in `unjudged` get no verdict."""
    jobs: list[Job] = []

    async def generate(job: Job) -> Group:
        jobs.append(job)
        rows = [script(job, sibling) for sibling in range(job.num_siblings)]
        trajectories = [
            attempt(i, length=len(thinking) + len(answer or "") + 1, answer=answer, thinking=thinking)
            for i, (thinking, answer) in enumerate(rows)
        ]
        return Group(job=job, trajectories=tuple(trajectories))

    async def judge(group: Group) -> list[Outcome]:
        return [
            Outcome(status=Status.TIMEOUT, score=None)
            if t.sibling in unjudged
            else Outcome(status=Status.JUDGED, score=float(t.answer_text.split(" ")[-1] == group.job.task.answer))
            for t in group.trajectories
        ]

    return Sampler(generate, judge, MANNER, temperature=1.0, seed=0), jobs
