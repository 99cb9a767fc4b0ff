"""Solutions for thinking, not thinking and deciding oneself (Kwai Keye-VL), and the sizes of its mixture.

For each task `samples` attempts without thinking measure its success rate p, and as many are made with thinking.

    no_think     the first good attempt without thinking
    think        the longest good attempt with it
    auto_think   <analysis>TEXT /no_think</analysis> and the first, where p > easy_above, else
                 <analysis>TEXT /think</analysis> and the second

Source: Kwai Keye-VL (arXiv 2507.01949), cold start of five streams in one fine-tuning run, sizes below in thousands. In
a text-only system three of them exist; the other two, thinking with images and video, are rows that the user brings,
drawn with the same shares. The analysis is written by a model there; RECONSTRUCTION: here a callable writes it, and the
decision is made by measurement.

What it is not: balanced. Not thinking is a third more frequent than thinking on purpose: both together did better than
long chains alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from budgets.coldstart.attempts import Attempt, Sampler, success_rate
from budgets.coldstart.solutions import Solution, Solutions
from budgets.self_assessment import Decision, analysis_text
from rollout.schema import Task, TokenBudget

SIZES: Mapping[str, float] = MappingProxyType(
    {"no_think": 330.0, "think": 230.0, "auto_think": 20.0, "agentic_think": 100.0, "video": 104.0}
)
Analyst = Callable[[Task, Decision], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Settings: attempts per task and mode, and the success rate without thinking above which it is not needed."""

    samples: int = 8
    easy_above: float = 0.625


def plain_analysis(task: Task, decision: Decision) -> str:
    """An analysis that needs no model."""
    return (
        "The question can be answered directly."
        if decision == "no_think"
        else "The question needs several steps, so I work them out first."
    )


async def five_modes(
    task: Task, thinking: TokenBudget, direct: TokenBudget, sampler: Sampler, how: Modes, analyst: Analyst
) -> Solutions:
    """Solutions for `think`, `no_think` and `auto_think` where both ways have a good one, or why there are none."""
    without = await sampler.attempts(task, direct, how.samples)
    rate = success_rate(without)
    with_it = await sampler.attempts(task, thinking, how.samples)
    good = [a for a in with_it if a.fault is None]
    if rate is None or not good:
        return Solutions.none(task, f"think: {with_it[0].fault}")
    found = {"think": _solution(max(good, key=lambda a: a.num_thinking_tokens))}
    short = next((a for a in without if a.fault is None), None)
    if short is not None:
        found["no_think"] = _solution(short)
    decision: Decision = "no_think" if short is not None and rate > how.easy_above else "think"
    chosen = found[decision]
    preface = analysis_text(analyst(task, decision), decision)
    found["auto_think"] = Solution(
        thinking=chosen.thinking, answer=chosen.answer, num_tokens=chosen.num_tokens, preface=preface
    )
    return Solutions(task=task, by_effort=found, label=decision)


def shares(streams: Mapping[str, int]) -> dict[str, float]:
    """The mix of a cold start: Keye's sizes for the streams that have solutions, adding up to 1.

    Raises ValueError for a stream that is none of the five.
    """
    if unknown := sorted(set(streams) - set(SIZES)):
        raise ValueError(f"the streams are {', '.join(SIZES)}, got {', '.join(unknown)}; rename them")
    sizes = {name: SIZES[name] for name, count in streams.items() if count > 0}
    return {name: round(size / sum(sizes.values()), 4) for name, size in sizes.items()}


def _solution(attempt: Attempt) -> Solution:
    return Solution(thinking=attempt.thinking, answer=attempt.answer, num_tokens=attempt.num_thinking_tokens)
