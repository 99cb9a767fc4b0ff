"""Scores that mean what they say: temperature and isotonic calibration, and how far a score is from it.

    temperature   p' = sigma( logit(p) / T ),  T minimizing the cross-entropy on held-out steps
    isotonic      p' = the non-decreasing step function of p that minimizes the squared error (pool adjacent violators)
    ECE           sum over bins of share(bin) * | mean score(bin) - mean label(bin) |, bins of equal width

Temperature keeps the order of scores and has one parameter, isotonic keeps it up to ties and needs hundreds of labels.
Neither changes which of two steps is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Method = Literal["none", "temperature", "isotonic"]
_EPSILON = 1e-6
_TEMPERATURES = (0.05, 20.0)


def logit(p: npt.ArrayLike) -> Array:
    """Log-odds, finite for 0 and 1."""
    clipped = np.clip(np.asarray(p, np.float64), _EPSILON, 1 - _EPSILON)
    odds: Array = np.log(clipped) - np.log1p(-clipped)
    return odds


def fit_temperature(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """The temperature in [0.05, 20] with the least cross-entropy, by golden section on its logarithm."""
    odds, truth = logit(scores), np.asarray(labels, np.float64)
    if odds.size == 0 or odds.shape != truth.shape:
        raise ValueError(
            f"calibration needs as many labels as scores and at least one, got {odds.shape}, {truth.shape}"
        )

    def loss(log_temperature: float) -> float:
        scaled = odds / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - truth * scaled))

    low, high = np.log(_TEMPERATURES)
    ratio = (np.sqrt(5) - 1) / 2
    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def fit_isotonic(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Array, Array]:
    """Knots of the step function: scores at which it starts to hold, ascending, and its values."""
    x, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if x.size == 0 or x.shape != y.shape:
        raise ValueError(f"calibration needs as many labels as scores and at least one, got {x.shape}, {y.shape}")
    starts, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    sums = np.bincount(inverse, weights=y)
    blocks: list[list[float]] = []  # start, sum, count
    for start, total, count in zip(starts.tolist(), sums.tolist(), counts.tolist(), strict=True):
        blocks.append([start, total, count])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            _, total_above, count_above = blocks.pop()
            blocks[-1][1] += total_above
            blocks[-1][2] += count_above
    return np.array([b[0] for b in blocks]), np.array([b[1] / b[2] for b in blocks])


def fit(method: Method, scores: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, Any]:
    """A calibration as plain data, for the file beside the weights."""
    if method == "none":
        return {}
    if method == "temperature":
        return {"type": "temperature", "temperature": fit_temperature(scores, labels)}
    starts, values = fit_isotonic(scores, labels)
    return {"type": "isotonic", "starts": starts.tolist(), "values": values.tolist()}


def apply(calibration: Mapping[str, Any], scores: npt.ArrayLike) -> Array:
    """Calibrated scores; NaN stays NaN. Raises ValueError for a calibration of an unknown type."""
    given = np.asarray(scores, np.float64)
    if not calibration:
        return given
    if calibration.get("type") == "temperature":
        scaled: Array = 1.0 / (1.0 + np.exp(-logit(given) / float(calibration["temperature"])))
    elif calibration.get("type") == "isotonic":
        starts, values = (np.asarray(calibration[name], np.float64) for name in ("starts", "values"))
        scaled = values[np.clip(np.searchsorted(starts, given, side="right") - 1, 0, len(values) - 1)]
    else:
        raise ValueError(f"a calibration is of type temperature or isotonic, got {calibration.get('type')!r}")
    return np.where(np.isnan(given), np.nan, scaled)


def expected_calibration_error(scores: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 10) -> float:
    """ECE in [0, 1] over judged steps; NaN without any."""
    p, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if p.size == 0:
        return float("nan")
    return float(sum(share * abs(score - label) for _, share, score, label in curve(p, y, bins=bins)))


def curve(scores: npt.ArrayLike, labels: npt.ArrayLike, *, bins: int = 10) -> list[tuple[float, float, float, float]]:
    """Of each bin that holds a score: its lower edge, its share of all, its mean score and its mean label."""
    p, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    places = np.clip((p * bins).astype(int), 0, bins - 1)
    return [
        (b / bins, float(np.mean(places == b)), float(p[places == b].mean()), float(y[places == b].mean()))
        for b in np.unique(places).tolist()
    ]
