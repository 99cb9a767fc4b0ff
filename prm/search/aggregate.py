"""Step scores of one solution as one number, which is what selection and search compare.

    last      s_S                               product   s_1 * ... * s_S
    min       min_k s_k                         mean      (s_1 + ... + s_S) / S
    soft_min  sum_k w_k s_k,  w = softmax(-s / T)

over the steps that have a score: an unjudged step (NaN) is left out, "last" takes the last judged one, and a solution
without any judged step has no number (NaN), which is not 0. min <= soft_min <= mean.

Which one is best depends on how the scorer's labels were made (Qwen2.5-Math-PRM, arXiv 2501.07301; Snell et al., arXiv
2408.03314): labels from completions say "can still be rescued", so last; labels from a judge or a check say "is right",
so min or product. soft_min is PURE's (arXiv 2504.15275). What it is not: comparable between kinds of scores; a product
of anything but probabilities means nothing and is refused.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from rollout.schema import ScoreKind, StepScores

Aggregate = Literal["last", "min", "product", "mean", "soft_min"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)
SOFT_MIN_TEMPERATURE = 0.1


def aggregate(steps: StepScores | None, name: Aggregate, *, temperature: float = SOFT_MIN_TEMPERATURE) -> float:
    """One number for a solution; NaN when no step of it was judged. Raises ValueError for a product of other kinds."""
    if steps is None:
        return math.nan
    if name == "product" and steps.kind is not ScoreKind.PROB:
        raise ValueError(
            f"aggregate 'product' needs scores of kind prob, scorer {steps.scorer!r} gives {steps.kind}; use min, mean "
            "or last"
        )
    known = steps.scores[~np.isnan(steps.scores)].astype(np.float64)
    if not len(known):
        return math.nan
    match name:
        case "last":
            value = known[-1]
        case "min":
            value = known.min()
        case "product":
            value = known.prod()
        case "mean":
            value = known.mean()
        case "soft_min":
            weights = np.exp(-(known - known.min()) / temperature)
            value = (weights * known).sum() / weights.sum()
    return float(value)
