"""Kimi k1.5's length reward: from the shortest attempt of a group to its longest.

With lengths len of the attempts (tokens after the prompt)

    lambda_i = 0.5 - (len_i - min len) / (max len - min len)        in [-0.5, 0.5]; 0 when all lengths are equal
    length_i = weight * (lambda_i if correct else min(0, lambda_i))

Source: Kimi k1.5 (arXiv 2501.12599), section 2.3.3; the weight is not published. It is off for the first part of
training (`start_version`), because early use slows learning.

Assumption: siblings ran under one budget, so their lengths compare. Attempts without a verdict neither set the range
nor get a term. What it is not: a target length. The best is whatever is shortest in the group, and standardized
advantages cancel `weight` in a group that is right throughout.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from budgets.shaping.config import KimiConfig
from budgets.shaping.siblings import FloatArray, GroupShaper, Siblings
from rollout.schema import BoolArray, Group


class Kimi(GroupShaper):
    """The shaper: component `length`."""

    name = "kimi"

    def __init__(self, config: KimiConfig) -> None:
        super().__init__(config)
        self._config = config

    def terms(self, group: Group, siblings: Siblings) -> Mapping[str, FloatArray]:
        return {"length": self._config.weight * length_term(siblings.lengths, siblings.correct, siblings.judged)}


def length_term(lengths: FloatArray, correct: BoolArray, judged: BoolArray) -> FloatArray:
    """lambda where correct, min(0, lambda) where wrong, 0 where unjudged; all [G]. Judged lengths set the range."""
    if not judged.any():
        return np.zeros(len(lengths))
    shortest, longest = lengths[judged].min(), lengths[judged].max()
    if shortest == longest:
        return np.zeros(len(lengths))
    position = 0.5 - (lengths - shortest) / (longest - shortest)
    return np.where(judged, np.where(correct, position, np.minimum(0.0, position)), 0.0)
