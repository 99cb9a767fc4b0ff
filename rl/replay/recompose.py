"""RoRecomp: which answers of a group are trained on at once, and when the others are.

    per group   right answers by length, shortest first; wrong answers by length, longest first
    priority    the first ceil(alpha * n) of each;  left over: the rest
    p_comp(t)   p_end + (p_start - p_end) (1 + cos(pi t / T)) / 2

Source: Li et al. 2025 (arXiv 2509.25958) name the two batches, the buffer and p_comp. Their rule of selection, ages and
schedule could not be obtained: what stands here is a RECONSTRUCTION, not the paper's.

Assumption: advantages were given over the whole group before it is divided, so its baseline stays unbiased, and what
is left over can be trained on without it. With alpha = 1 nothing is left over and the step is the plain one. With
p_comp = 1 and no staleness both parts together are the plain one too, summed over two updates.

What it is not: a length reward. Rewards and losses are untouched; only order and probability of training change.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of a group: its name, its length in sampled tokens, and whether it is right."""

    name: str
    length: int
    is_right: bool


def divide(answers: Sequence[Answer], alpha: float) -> tuple[list[str], list[str]]:
    """Names of the answers of one group to train on at once, and of those left over.

    A group without both right and wrong answers has nothing to trade and is trained on whole.
    """
    right = sorted((a for a in answers if a.is_right), key=lambda a: (a.length, a.name))
    wrong = sorted((a for a in answers if not a.is_right), key=lambda a: (-a.length, a.name))
    if not right or not wrong:
        return [a.name for a in answers], []
    first = [*right[: math.ceil(alpha * len(right))], *wrong[: math.ceil(alpha * len(wrong))]]
    chosen = {a.name for a in first}
    return [a.name for a in first], [a.name for a in (*right, *wrong) if a.name not in chosen]


def compensation_probability(step: int, num_steps: int, *, p_start: float, p_end: float) -> float:
    """p_comp at `step` of `num_steps`."""
    return p_end + (p_start - p_end) * 0.5 * (1.0 + math.cos(math.pi * step / num_steps))
