"""How token losses are averaged: one weight per sample and one global normalizer per optimizer step. numpy only.

    L = (1 / normalizer) * sum_i weight_i * sum_t m_it * loss_it

    token_mean      weight_i = 1      normalizer = sum_i n_i
    sequence_mean   weight_i = 1/n_i  normalizer = number of sequences
    dr_grpo         weight_i = 1      normalizer = number of sequences * constant length

`n_i` counts the loss tokens of sample i. The sums run over the whole optimizer step: all ranks, all micro-batches.
Samples whose advantages are all zero stay in the normalizer: rejected data shrinks the step and re-weights nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rl.losses.config import Aggregation, DrGrpo, SequenceMean, TokenMean
from rollout.schema import Float32Array


def normalize(aggregation: Aggregation, num_loss_tokens: npt.NDArray[np.int64]) -> tuple[Float32Array, float]:
    """Weights [N] of the samples of one optimizer step, and their one normalizer.

    Args:
        num_loss_tokens: [N] loss tokens per sample, each at least 1.
    """
    if num_loss_tokens.size == 0 or (num_loss_tokens < 1).any():
        raise ValueError(f"every sample needs at least one loss token, got counts {num_loss_tokens.tolist()}")
    ones = np.ones(num_loss_tokens.size, dtype=np.float32)
    match aggregation:
        case TokenMean():
            return ones, float(num_loss_tokens.sum())
        case SequenceMean():
            return (1.0 / num_loss_tokens).astype(np.float32), float(num_loss_tokens.size)
        case DrGrpo():
            return ones, float(num_loss_tokens.size * aggregation.length)
