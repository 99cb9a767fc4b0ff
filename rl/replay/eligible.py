"""Which stored trajectories may be trained on again, how they are ranked, and how many of them.

    eligible    1 <= age <= max_age,  uses < max_uses,  drift <= limit (or not measured yet)
    w           I(p) * exp(-age / age_decay) * lambda_domain,   I(p) = p (1 - p)^2,   p the share right in the group
    how many    floor(share / (1 - share) * fresh), so that replayed / (fresh + replayed) <= share

Source: the rule of eligibility and the weights are this project's own; I(p) is the information score of VADE
(arXiv 2511.18902), which prefers what is hard but solvable.

Assumption: an age in steps stands for the distance of the weights; drift, measured when a record is trained on, is the
distance itself, and what has drifted too far once is never eligible again.

What it is not: prioritized experience replay. The bias of the choice is not divided out: it is meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rl.replay.config import ShareReplay

LARGEST_INFORMATION = 4 / 27  # of p (1 - p)^2, at p = 1/3
SMALLEST_PRIORITY = 1e-12  # an eligible record is unlikely, never impossible


def how_many(share: float, num_fresh: int) -> int:
    """Most replayed samples beside `num_fresh` fresh ones."""
    return int(share / (1.0 - share) * num_fresh + 1e-9)


def eligible(config: ShareReplay, index: npt.NDArray[Any], *, step: int) -> npt.NDArray[np.bool_]:
    """[N] which records may be replayed at `step`."""
    age = step - index["step"]
    limit = np.inf if config.estimator.mask.drift is None else config.estimator.mask.drift
    near: npt.NDArray[np.bool_] = ~(index["drift"] > limit)
    return index["held"] & (age >= 1) & (age <= config.max_age) & (index["uses"] < config.max_uses) & near


def priorities(
    config: ShareReplay,
    index: npt.NDArray[Any],
    *,
    step: int,
    sources: Sequence[str],
    domain_weights: Mapping[str, float],
) -> npt.NDArray[np.float64]:
    """[N] weights w, whether eligible or not."""
    solved = index["solved"].astype(np.float64)
    information = solved * (1.0 - solved) ** 2 / LARGEST_INFORMATION if config.priority == "variance" else 1.0
    domains = np.asarray([domain_weights.get(name, 1.0) for name in sources] or [1.0])
    decay = np.exp(-(step - index["step"]) / config.age_decay)
    owners = np.minimum(index["source"], domains.size - 1)
    weights: npt.NDArray[np.float64] = np.maximum(SMALLEST_PRIORITY, information * decay * domains[owners])
    return weights


def draw(
    rng: np.random.Generator, positions: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], count: int
) -> npt.NDArray[np.int64]:
    """`count` of `positions` without replacement, by `weights` [N over positions]; all of them if there are fewer."""
    if count <= 0:
        return positions[:0]
    keys = np.log(rng.random(positions.size)) / weights  # the largest keys are such a draw (Efraimidis, Spirakis 2006)
    return positions[np.argsort(-keys, kind="stable")[:count]]
