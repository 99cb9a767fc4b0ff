"""How old the tokens are that a step trains on, in batches published between drawing a token and training on it.

    lag(t) = |{ v published : v > version(t) }|

A response that a publish found unfinished goes on under the new weights, so its tokens differ in age. Versions never
go back along a response: its first sampled token is its oldest, and the bound of `rl/buffer.py`, which holds for that
one, holds for every token.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from rl.batch import TrainingSample
from rollout.schema import Metric


def batches_behind(versions: npt.ArrayLike, published: Sequence[int]) -> npt.NDArray[np.int64]:
    """[K] lag of tokens drawn from these versions [K]. `published` ascends and ends with the version trained now."""
    lags: npt.NDArray[np.int64] = len(published) - np.searchsorted(np.asarray(published), versions, side="right")
    return lags


def oldest_lag(sample: TrainingSample, published: Sequence[int]) -> int:
    """Lag of the oldest loss token, which is the first one; 0 for a sample without loss tokens."""
    if not sample.policy.switches:
        return len(published) - bisect_right(published, sample.policy.start) if sample.loss_mask.any() else 0
    return int(token_lags(sample, published).max(initial=0))


def token_lags(sample: TrainingSample, published: Sequence[int]) -> npt.NDArray[np.int64]:
    """[K] lag of each loss token."""
    return batches_behind(sample.policy.at(np.flatnonzero(sample.loss_mask)), published)


def token_metrics(samples: Iterable[TrainingSample], published: Sequence[int]) -> list[Metric]:
    """Shares of the loss tokens by lag, and of the samples that were drawn from more than one version."""
    counts: Counter[int] = Counter()  # loss tokens by lag
    num_samples = continued = 0
    for sample in samples:
        num_tokens = int(np.count_nonzero(sample.loss_mask))
        if not num_tokens:
            continue
        num_samples += 1
        continued += sample.policy.start < sample.policy.end
        if sample.policy.switches:
            counts.update(token_lags(sample, published).tolist())
        else:
            counts[oldest_lag(sample, published)] += num_tokens
    total = counts.total()
    if not total:
        return []
    return [
        *(
            Metric(name=f"staleness/tokens_lag_{lag}", value=count / total, reduce="last")
            for lag, count in sorted(counts.items())
        ),
        Metric(name="staleness/continued", value=continued / num_samples, reduce="last"),
    ]
