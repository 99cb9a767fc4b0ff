"""Metrics that are no mean over tokens, from sums that are. Standard library only: the driver runs this.

The entropy histogram has logarithmic bins, so the p10 read from it is right to a tenth of its value, whatever the
number of micro-batches and ranks; entropies below the first edge read as that edge.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import accumulate

RAW = "raw/"
STREAM = "raw/stream_"
_BINS = 62
_SMALLEST, _LARGEST = 1e-4, 16.0
_STEP = (_LARGEST / _SMALLEST) ** (1 / _BINS)  # 1.21
ENTROPY_EDGES = tuple(_SMALLEST * _STEP**i for i in range(_BINS + 1))


def entropy_bin(index: int) -> str:
    """Name of the count of entropies between edges `index - 1` and `index`."""
    return f"{RAW}entropy_{index:02d}"


def summarize(means: Mapping[str, float]) -> dict[str, float]:
    """Means over the loss tokens of a batch, the `raw/` ones replaced by what they are for."""
    means = _by_stream(means)
    found = {name: value for name, value in means.items() if not name.startswith(RAW)}
    if "raw/rho_squared" in means:
        mean, square = means["raw/rho"], means["raw/rho_squared"]
        found["mismatch/ess_share"] = mean * mean / square if square else 0.0
        found["mismatch/chi2"] = square - 1.0
    if "raw/sequences" in means:
        found["mismatch/masked_rows"] = means["raw/masked_sequences"] / means["raw/sequences"]
    if entropy_bin(0) in means:
        found["loss/entropy_p10"] = _quantile([means[entropy_bin(i)] for i in range(len(ENTROPY_EDGES) + 1)], 0.1)
    return found


def _by_stream(means: Mapping[str, float]) -> dict[str, float]:
    """Where a batch holds several streams, the mean over its tokens of each number's own stream."""
    shares = {name.removeprefix(STREAM): share for name, share in means.items() if name.startswith(STREAM)}
    if not shares:
        return dict(means)
    found = {f"stream/{name}/share": share for name, share in shares.items()}
    for name, mean in means.items():
        owner = name.split("/")[1] if name.startswith("stream/") else "fresh"
        if not name.startswith(STREAM) and shares[owner] > 0:
            found[name] = mean / shares[owner]
    return found


def _quantile(shares: list[float], level: float) -> float:
    """Geometric middle of the bin that holds the quantile."""
    reached = accumulate(shares)
    index = next((i for i, total in enumerate(reached) if total >= level - 1e-9), len(shares) - 1)
    low, high = ENTROPY_EDGES[max(0, index - 1)], ENTROPY_EDGES[min(index, len(ENTROPY_EDGES) - 1)]
    return math.sqrt(low * high)
