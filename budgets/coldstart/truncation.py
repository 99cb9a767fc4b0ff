"""Budget-mode solutions by truncation and regeneration (ThinkDial).

For each task: the longest good chain of `samples` attempts at the first effort is that effort's solution. For every
other effort with ratio r its thinking is cut at the last sentence end before round(r * tokens), a closing remark is
put after it, the thinking is closed, and the policy writes a new answer; the first good one is kept. A task is used
only if every effort has a solution, so that all have the same problems and equal parts.

Source: ThinkDial (arXiv 2508.18773), ratios 1 / 0.5 / 0.25; the wording of the remarks is ours. The paper adds easy
tasks with an empty thinking to the lowest effort: a ratio of 0. It trains these solutions with twice as many ordinary
long chains; more of them shortened every effort.

What it is not: a shorter way of reasoning. The thinking is the beginning of a long one, and a task whose answer cannot
be written from there is left out, which leaves the easier ones: see the report.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from budgets.coldstart.attempts import Attempt, Sampler
from budgets.coldstart.solutions import Solution, Solutions
from rollout.schema import Task, TokenBudget

RATIOS = {"high": 1.0, "medium": 0.5, "low": 0.25}
REMARKS = {
    "medium": "I have weighed this with care and stop here, to give a considered answer.",
    "low": "Speed matters most here, so I stop and answer at once.",
}
_END = re.compile(r"(?<=[.!?;])\s+|(?<=[;])(?=\S)|\n+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """Settings: `ratios` by effort, the first 1; `remarks` by effort, put after a blank line."""

    ratios: Mapping[str, float]
    remarks: Mapping[str, str]
    samples: int = 4

    def __post_init__(self) -> None:
        first = next(iter(self.ratios.values()), None)
        if first != 1 or not all(0 <= r < 1 for r in list(self.ratios.values())[1:]) or self.samples < 1:
            raise ValueError(
                "truncation needs the ratio 1 for the first effort, ratios from 0 to below 1 for the others and at "
                f"least one sample, got {dict(self.ratios)} and {self.samples}"
            )


async def truncated(task: Task, budgets: Mapping[str, TokenBudget], sampler: Sampler, how: Truncation) -> Solutions:
    """Solutions of one task under every effort of `how.ratios`, or the reason why there are none."""
    full, *shorter = how.ratios
    chains = await sampler.attempts(task, budgets[full], how.samples)
    good = [a for a in chains if a.fault is None]
    if not good:
        return Solutions.none(task, f"{full}: {chains[0].fault}")
    chain = max(good, key=lambda a: a.num_thinking_tokens)
    found = {full: Solution(thinking=chain.thinking, answer=chain.answer, num_tokens=chain.num_thinking_tokens)}
    for effort in shorter:
        thinking = cut(chain, how.ratios[effort])
        if thinking and (remark := how.remarks.get(effort)):
            thinking = f"{thinking}\n\n{remark}"
        answers = await sampler.answers_to(task, budgets[effort], thinking, how.samples)
        kept = next((a for a in answers if a.fault is None), None)
        if kept is None:
            return Solutions.none(task, f"{effort}: {answers[0].fault}")
        found[effort] = Solution(thinking=thinking, answer=kept.answer, num_tokens=kept.num_thinking_tokens)
    return Solutions(task=task, by_effort=found)


def cut(chain: Attempt, ratio: float) -> str:
    """The beginning of a chain's thinking: at most round(ratio * tokens) tokens, ending with a sentence, a line or a
    step if one ends there, else with the last whole token."""
    trajectory = chain.trajectory
    if trajectory.thinking is None:
        return ""
    first, end = trajectory.tokens_of(trajectory.thinking)
    num = round(ratio * (end - first))
    if num == 0:
        return ""
    start = trajectory.thinking[0]
    stop = min(int(trajectory.char_ends[first + num - 1]), trajectory.thinking[1])
    text = trajectory.text[start:stop]
    ends = [m.start() for m in _END.finditer(trajectory.text[start : stop + 1]) if 0 < m.start() <= len(text)]
    return text[: ends[-1]].rstrip() if ends else text
