"""Whitened token returns (REINFORCE++).

Formula: G_t = sum_{k >= t} gamma^(k - t) * r_k over the loss tokens of an answer, where r_k is the reward paid at token
k (the KL penalty, when there is one) and the last loss token also gets the reward of the whole answer; then whitened
over all loss tokens of the batch.
Source: REINFORCE++, arXiv 2501.03262.
Assumption: rewards of all tasks are on one scale and the batch is large, for the batch's mean is the only baseline.
With gamma = 1 and no KL penalty every token of an answer has the answer's reward.
What it is not: group-relative. Siblings are not compared, so a hard task's right answer counts no more than an easy
one's, and a group of equal rewards has signal like any other and must not be dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from rl.credit.whitening import whitening

FloatArray = npt.NDArray[np.float64]


def reinforce_pp_advantages(
    rewards: Sequence[float], token_rewards: Sequence[FloatArray], *, gamma: float
) -> list[FloatArray]:
    """Per answer, advantages [n] of its n loss tokens.

    Args:
        rewards: reward of the whole answer; an unjudged answer must be left out by the caller.
        token_rewards: [n] rewards paid at the loss tokens, zeros where there are none.
    """
    returns = [_returns(reward, tokens, gamma) for reward, tokens in zip(rewards, token_rewards, strict=True)]
    tokens = np.concatenate([np.zeros(0), *returns])
    mean, divisor = whitening(tokens, np.ones(tokens.size, dtype=np.int64))
    return [(r - mean) / divisor for r in returns]


def _returns(reward: float, tokens: FloatArray, gamma: float) -> FloatArray:
    if not tokens.size:
        return tokens
    paid = tokens.copy()
    paid[-1] += reward
    if gamma == 1.0:
        return np.cumsum(paid[::-1])[::-1]
    backwards = accumulate(paid[::-1].tolist(), lambda later, now: now + gamma * later)
    return np.asarray(list(backwards), dtype=np.float64)[::-1]
