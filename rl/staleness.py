"""How old the tokens are that a step trains on, in batches published between drawing a token and training on it.

    lag(t) = |{ v published : v > version(t) }|

A response that a publish found unfinished goes on under the new weights, so its tokens differ in age. Versions never
go back along a response: its first sampled token is its oldest, and the bound of `rl/buffer.py`, which holds for that
one, holds for every token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rl.batch import TrainingSample
from rollout.schema import Metric


def batches_behind(versions: npt.ArrayLike, published: Sequence[int]) -> npt.NDArray[np.int64]:
    """[K] lag of tokens drawn from these versions [K]. `published` ascends and ends with the version trained now."""
    lags: npt.NDArray[np.int64] = len(published) - np.searchsorted(np.asarray(published), versions, side="right")
    return lags


def token_lags(sample: TrainingSample, published: Sequence[int]) -> npt.NDArray[np.int64]:
    """[K] lag of each loss token."""
    return batches_behind(sample.policy.at(np.flatnonzero(sample.loss_mask)), published)


def token_metrics(samples: Iterable[TrainingSample], published: Sequence[int]) -> list[Metric]:
    """Shares of the loss tokens by lag, and of the samples that were drawn from more than one version."""
    samples = [sample for sample in samples if sample.loss_mask.any()]
    if not samples:
        return []
    lags = np.concatenate([token_lags(sample, published) for sample in samples])
    continued = sum(sample.policy.start < sample.policy.end for sample in samples)
    values, counts = np.unique(lags, return_counts=True)
    return [
        *(
            Metric(name=f"staleness/tokens_lag_{lag}", value=float(count / lags.size), reduce="last")
            for lag, count in zip(values, counts, strict=True)
        ),
        Metric(name="staleness/continued", value=continued / len(samples), reduce="last"),
    ]
