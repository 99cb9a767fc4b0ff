"""Process supervision of DeepSeekMath: the sum of the group-normalized scores of this step and all later ones.

Formula: z = (q - mean(q)) / (s + epsilon) over all steps of the group, s the population deviation (ddof = 0);
P_ik = sum_{j >= k} z_ij.
Source: arXiv 2402.03300, section 4.1.3.
Assumption: siblings take about as many steps. Over the group the values of all first steps sum to sum(z) = 0.
What it is not: safe. The sum pays for the number of steps: of answers with eight steps of 0.9, two of 0.9 and three of
0.2, the first gets four times the second. A policy that may pad learns to (`tests/unit/rl/test_step_hacking.py` shows
it). It is here as the published rule and as the control of the others.
"""

from __future__ import annotations

from collections.abc import Sequence

from rl.credit.steps.rows import Row, Values, pooled, returns

EPSILON = 1e-6


def group_return_terms(rows: Sequence[Row]) -> list[Values]:
    """Per sibling, one value a step. Scores that are all equal carry no signal and give 0."""
    scores = pooled(rows)
    if not scores.size:
        return [None] * len(rows)
    mean, deviation = float(scores.mean()), float(scores.std())
    if deviation < EPSILON:
        return [None if row is None else row.scores * 0.0 for row in rows]
    return [None if row is None else returns((row.scores - mean) / (deviation + EPSILON)) for row in rows]
