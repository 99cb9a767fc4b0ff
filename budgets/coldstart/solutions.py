"""Solutions of a task under several efforts, and how a set of them is balanced and reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rollout.schema import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What to write under one effort. `num_tokens` are those of the thinking."""

    thinking: str
    answer: str
    num_tokens: int
    preface: str = ""

    def as_json(self) -> dict[str, str]:
        """The form of `Task.meta["demonstrations"]`."""
        written = {"thinking": self.thinking, "answer": self.answer}
        return {**written, "preface": self.preface} if self.preface else written


@dataclass(frozen=True, slots=True, kw_only=True)
class Solutions:
    """Solutions of one task by effort; none, and the `reason`, where the task gave nothing. `label` is what the set is
    balanced by, such as a difficulty."""

    task: Task
    by_effort: Mapping[str, Solution] = field(default_factory=dict)
    reason: str = ""
    label: str = ""

    @classmethod
    def none(cls, task: Task, reason: str) -> Solutions:
        return cls(task=task, reason=reason)

    def as_row(self) -> dict[str, Any]:
        """A row of a task file: read with columns.meta = ["demonstrations"]."""
        return {
            "prompt": [{"role": m.role, "content": m.content} for m in self.task.prompt],
            "answer": self.task.answer,
            "split_key": str(self.task.meta.get("split_key", self.task.key)),
            "demonstrations": {effort: solution.as_json() for effort, solution in self.by_effort.items()},
        }


def balanced(found: Sequence[Solutions]) -> list[Solutions]:
    """As many tasks of each label as of the rarest one, in order."""
    useful = [s for s in found if s.by_effort]
    counts = Counter(s.label for s in useful)
    if not counts:
        return []
    most, taken = min(counts.values()), Counter[str]()
    kept = []
    for solutions in useful:
        taken[solutions.label] += 1
        if taken[solutions.label] <= most:
            kept.append(solutions)
    return kept


def report(found: Sequence[Solutions], kept: Sequence[Solutions], *, num_overlapping: int) -> dict[str, Any]:
    """What was made and what was left out: counts and thinking tokens by effort and label, reasons by how often.

    `ratio` is the mean number of thinking tokens over that of the first effort, on the tasks that have both.
    """
    efforts = list(dict.fromkeys(effort for s in kept for effort in s.by_effort))
    return {
        "num_tasks": len(found) + num_overlapping,
        "num_kept": len(kept),
        "num_overlapping": num_overlapping,
        "left_out": dict(Counter(s.reason for s in found if not s.by_effort).most_common()),
        "num_balanced_away": sum(bool(s.by_effort) for s in found) - len(kept),
        "labels": dict(Counter(s.label for s in kept if s.label)),
        "efforts": {effort: _of_effort(kept, effort, efforts[0]) for effort in efforts},
    }


def _of_effort(kept: Sequence[Solutions], effort: str, base: str) -> dict[str, Any]:
    tokens = np.array([s.by_effort[effort].num_tokens for s in kept if effort in s.by_effort], dtype=np.float64)
    both = [
        (s.by_effort[effort].num_tokens, s.by_effort[base].num_tokens)
        for s in kept
        if effort in s.by_effort and base in s.by_effort
    ]
    base_tokens = sum(b for _, b in both)
    return {
        "num_solutions": len(tokens),
        "thinking_tokens": {
            "mean": round(float(tokens.mean()), 2),
            "p10": float(np.quantile(tokens, 0.1)),
            "p90": float(np.quantile(tokens, 0.9)),
        },
        "ratio": round(sum(a for a, _ in both) / base_tokens, 4) if base_tokens else None,
    }
