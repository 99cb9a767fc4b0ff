"""pass@k: the probability that at least one of k samples of a task is right.

With n judged samples of a task of which c are right,

    pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n-c+1}^{n} (1 - k / i)

is the unbiased estimate (Chen et al. 2021, arXiv 2107.03374), averaged over tasks. Assumption: samples of a task are
drawn independently. What it is not: 1 - (1 - c/n)^k, which is biased downwards; and a task with fewer than k judged
samples has no estimate and leaves the mean.
"""

from __future__ import annotations

import numpy as np

from budgets.evaluation.attempt import FloatArray


def pass_at_k(num_judged: int, num_correct: int, k: int) -> float:
    """The estimate for one task; NaN with fewer than k judged samples. Raises ValueError for impossible counts."""
    if not 0 <= num_correct <= num_judged or k < 1:
        raise ValueError(f"pass@k needs 0 <= correct <= judged and k >= 1, got {num_correct}, {num_judged}, k = {k}")
    if num_judged < k:
        return float("nan")
    if num_judged - num_correct < k:
        return 1.0
    return float(1.0 - np.prod(1.0 - k / np.arange(num_judged - num_correct + 1, num_judged + 1)))


def per_task(correct: FloatArray, k: int) -> FloatArray:
    """[N] estimates from [N, K] verdicts, NaN unjudged."""
    judged = (~np.isnan(correct)).sum(axis=-1)
    right = np.nansum(correct, axis=-1).astype(int)
    return np.asarray([pass_at_k(int(n), int(c), k) for n, c in zip(judged, right, strict=True)])


def ladder(num_samples: int) -> list[int]:
    """The k of a table: powers of two up to the number of samples, and that number itself."""
    powers = [2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples]
    return sorted({*powers, num_samples} - {0})
