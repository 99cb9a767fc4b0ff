"""Solutions that begin with a difficulty tag, sized to it (AdaCtrl).

For each task `samples` attempts at the thorough effort measure its success rate p. Where p > easy_above it is easy:
its solution is `[Easy]` and the shortest good attempt, brief ones included; else it is hard: `[Hard]` and the longest
good attempt. That is the solution of effort `auto`. Efforts `easy` and `hard`, where the user says the tag, get the
shortest and the longest good attempt of the same task. Both labels get equal parts.

Source: AdaCtrl (arXiv 2505.18822), where annotations of the data set say how difficult a task is, and a smaller model
answers the easy ones. RECONSTRUCTION: difficulty is measured, with the threshold of its reward, and brief answers come
from an effort of the same policy.

What it is not: a fixed truth. The label is that of the policy that was asked; in training the reward's label moves on.
"""

from __future__ import annotations

from dataclasses import dataclass

from budgets.coldstart.attempts import Attempt, Sampler, success_rate
from budgets.coldstart.solutions import Solution, Solutions
from budgets.self_assessment import Tag, tag_text
from rollout.schema import Task, TokenBudget


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """Settings: attempts per task and effort, and the success rate above which a task is easy."""

    samples: int = 8
    easy_above: float = 0.625


async def tagged(
    task: Task, thorough: TokenBudget, brief: TokenBudget | None, sampler: Sampler, how: Tagging
) -> Solutions:
    """Solutions for `auto`, `easy` and `hard`, or the reason why there are none."""
    long = await sampler.attempts(task, thorough, how.samples)
    rate = success_rate(long)
    short = await sampler.attempts(task, brief, how.samples) if brief is not None else []
    good = sorted((a for a in (*long, *short) if a.fault is None), key=lambda a: a.num_thinking_tokens)
    if rate is None or not good:
        return Solutions.none(task, f"{thorough.effort}: {long[0].fault}")
    tag: Tag = "easy" if rate > how.easy_above else "hard"
    ends = {"easy": _solution(good[0], "easy"), "hard": _solution(good[-1], "hard")}
    return Solutions(task=task, by_effort={"auto": ends[tag], **ends}, label=tag)


def _solution(attempt: Attempt, tag: Tag) -> Solution:
    return Solution(
        thinking=attempt.thinking,
        answer=attempt.answer,
        num_tokens=attempt.num_thinking_tokens,
        preface=tag_text(tag),
    )
