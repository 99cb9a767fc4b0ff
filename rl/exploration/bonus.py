"""How much a sibling's representation differs from the others': an elliptical bonus within one group.

    h_i   mean hidden state of the response, projected to d dimensions, less the mean of the group
    S     = lambda I + sum_i h_i h_i'
    leverage       b_i  = h_i' S^-1 h_i                           in [0, 1),  sum_i b_i <= min(k, d)
    leave_one_out  b_i' = h_i' (S - h_i h_i')^-1 h_i = b_i / (1 - b_i)

RepExp (arXiv 2510.11686), beta 0.01, lambda 0.01, d 32, leverage; hidden states are the last layer's of a frozen copy
of the starting policy, and the projection is sparse and random. The paper draws a new projection every step; here each
group has its own, drawn from its name, so that a resumed run repeats it.

Assumption: directions matter, not sizes. When the norms are far above sqrt(lambda) and k <= d + 1, every leverage is
(k - 1) / k and tells siblings apart no more: watch `explore/std`, and scale, raise lambda or lower d. What it is not: a
sign of quality; it is paid only in groups in which something was right.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def bonus(
    features: FloatArray,
    *,
    ridge: float,
    form: Literal["leverage", "leave_one_out"] = "leverage",
    scale: Literal["none", "unit_rms"] = "none",
) -> FloatArray:
    """[k] from features [k, d], which are centred here. Identical features give 0."""
    centred = features - features.mean(axis=0)
    if scale == "unit_rms":
        rms = np.sqrt((centred**2).sum(axis=1).mean())
        centred = centred / rms if rms > 0 else centred
    moment = ridge * np.eye(features.shape[1]) + centred.T @ centred
    leverage: FloatArray = np.einsum("kd,dk->k", centred, np.linalg.solve(moment, centred.T))
    return leverage / (1 - leverage) if form == "leave_one_out" else leverage


def sparse_projection(size: int, dimension: int, *, seed: int) -> FloatArray:
    """[size, dimension] entries +-sqrt(3 / dimension) with probability 1/6 each, else 0: norms are kept on average
    (Achlioptas 2003)."""
    drawn = np.random.default_rng(seed).integers(0, 6, size=(size, dimension))
    signs = np.where(drawn == 0, 1.0, np.where(drawn == 1, -1.0, 0.0))
    projection: FloatArray = signs * np.sqrt(3.0 / dimension)
    return projection
