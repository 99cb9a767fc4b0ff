"""Several rewards, each normalized before they are summed (GDPO).

Formula: per component k and group, z_ik = (r_ik - mean(r_k)) / (s_k + epsilon); a_i = sum_k w_k z_ik; and over the
batch A_i = (a_i - mean(a)) / (s_a + epsilon). All deviations are sample deviations (ddof = 1) of what is judged.
Source: GDPO, as TRL's multi-objective option "normalize_then_sum" has it.
Assumption: a component's spread within a group says nothing about its importance; its weight does. So a process reward
that varies by 0.1 is heard beside an outcome that varies by 1, and neither drowns the other.
What it is not: safe by itself. A component that hardly varies is blown up to unit variance all the same; on a group of
wrong answers alone a process score would be the whole signal, which is why it is left out there unless asked for. A
sum of raw rewards is `grpo` on the final reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rl.credit.grpo import grpo_advantages

FloatArray = npt.NDArray[np.float64]


def gdpo_advantages(
    groups: Sequence[Mapping[str, FloatArray]], weights: Mapping[str, float], *, epsilon: float
) -> list[FloatArray]:
    """Per group, advantages [G].

    Args:
        groups: per group, the components [G] by name. NaN in `outcome` marks an unjudged sibling: it leaves every
            baseline and stays NaN. NaN elsewhere is a component that this judged sibling lacks; it counts as average.
        weights: weight per component; a component without one is not counted.
    """
    if not groups:
        return []
    sums = []
    for components in groups:
        judged = ~np.isnan(components["outcome"])
        total = np.where(judged, 0.0, np.nan)
        for name, weight in weights.items():
            scores = np.where(judged, components[name], np.nan)
            total = total + np.where(judged, weight * np.nan_to_num(grpo_advantages(scores, epsilon=epsilon)), 0.0)
        sums.append(total)
    batch = np.concatenate(sums)
    batch = batch[~np.isnan(batch)]
    if batch.size < 2:
        return [total * 0.0 for total in sums]
    mean, deviation = float(batch.mean()), float(batch.std(ddof=1))
    return [(total - mean) / (deviation + epsilon) for total in sums]
