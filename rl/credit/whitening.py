"""Whitening over all loss tokens of a batch, as the REINFORCE++ family has it.

Formula: w = (a - m) / sqrt(v + epsilon), with mean m and sample variance v (ddof = 1) over every loss token of the
batch, epsilon = 1e-8.
Source: REINFORCE++, arXiv 2501.03262.
What it is not: neutral. It re-centres: a group of equal rewards, whose own advantage is 0, gets -m / sqrt(v).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

EPSILON = 1e-8


def whitening(values: FloatArray, counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean and divisor over tokens, where `values[i]` stands at `counts[i]` of them; both [N]. NaN counts nowhere.

    Fewer than two tokens have no variance; they come out as 0.
    """
    known = ~np.isnan(values)
    values, counts = values[known], counts[known]
    num_tokens = int(counts.sum())
    if num_tokens == 0:
        return 0.0, 1.0
    mean = float((values * counts).sum()) / num_tokens
    variance = float((counts * (values - mean) ** 2).sum()) / max(1, num_tokens - 1)
    return mean, float(np.sqrt(variance + EPSILON))
