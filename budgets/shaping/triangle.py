"""RMT's length term: think about as long as the prompt says.

For l thinking tokens and a number B in the prompt

    tri(l) = l / B            for l <= B
             (2 B - l) / B    for B < l <= 2 B, and 0 beyond
    r      = (1 - weight) * outcome + weight * tri(l)

Source: Reinforcement Mid-Training (arXiv 2509.24375); its weight is not published, 0.2 is ours, and below 0.5 right
always beats wrong. The component is weight * (tri - outcome), so that its sum with the outcome is r.

Assumption: the prompt names B (`{tokens}` in the effort's instruction). What it is not: a wish for short answers;
thinking less than B costs as much as thinking more.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import TriangleConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings, named_number
from rollout.schema import Group


class Triangle(GroupShaper):
    """The shaper: component `length`."""

    name = "triangle"

    def __init__(self, config: TriangleConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        return {"length": self._config.weight * (triangle(siblings.thinking, named_number(group)) - siblings.scores)}


def triangle(lengths: FloatArray, number: int) -> FloatArray:
    """tri, between 0 and 1, [G]."""
    return np.clip(1.0 - np.abs(lengths - number) / number, 0.0, 1.0)
