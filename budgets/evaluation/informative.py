"""The share of groups that would carry a signal: drawn G at a time, some attempts right and some wrong.

With n judged samples of a task of which c are right, over all groups of G of them

    informative@G = 1 - C(c, G) / C(n, G) - C(n - c, G) / C(n, G)

which is unbiased for 1 - p^G - (1 - p)^G. A group without both kinds has no advantage under a group baseline, so this
is the part of a training batch that teaches, before any sampler chooses.

Assumption: samples of a task are drawn independently, by the policy that training starts from. What it is not: the
share later in training, which moves with the policy; and a task with fewer than G judged samples has no estimate.
"""

from __future__ import annotations

import numpy as np

from budgets.evaluation.attempt import FloatArray
from budgets.evaluation.pass_at_k import pass_at_k


def informative_at(num_judged: int, num_correct: int, group_size: int) -> float:
    """The estimate for one task; NaN with fewer than `group_size` judged samples. Raises ValueError for impossible
    counts."""
    some_right = pass_at_k(num_judged, num_correct, group_size)
    some_wrong = pass_at_k(num_judged, num_judged - num_correct, group_size)
    return some_right + some_wrong - 1.0


def per_task(correct: FloatArray, group_size: int) -> FloatArray:
    """[N] estimates from [N, K] verdicts, NaN unjudged."""
    judged = (~np.isnan(correct)).sum(axis=-1)
    right = np.nansum(correct, axis=-1).astype(int)
    return np.asarray([informative_at(int(n), int(c), group_size) for n, c in zip(judged, right, strict=True)])
