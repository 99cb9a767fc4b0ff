"""Losses of the samples that are not fresh: each stream has its own estimator, and its own metrics.

    L += (1 / normalizer) sum over streams s, tokens t of weight_t * l_t,    l of `rl.losses.unified`, estimator of s

The fresh samples of a micro-batch never see these tokens: correction, KL, entropy and the choice of tokens are theirs
alone.

    stream/<name>/share      of the loss tokens           stream/<name>/nll       mean -log probability
    stream/<name>/weight     mean weight, left out as 0   stream/<name>/left_out  share that the mask left out
"""

from __future__ import annotations

import torch

from rl.batch import Stream
from rl.losses.contract import LossInputs, tokens_at
from rl.losses.estimator_config import Estimator, StreamEstimators
from rl.losses.unified import estimate

NAMES = {stream: stream.name.lower() for stream in Stream if stream is not Stream.FRESH}


def fresh_index(inputs: LossInputs) -> torch.Tensor:
    """[K] flat indices of the loss tokens of fresh samples."""
    mask = inputs.mask if inputs.streams is None else inputs.mask & (inputs.streams == Stream.FRESH)
    return mask.flatten().nonzero().squeeze(1)


def stream_losses(estimators: StreamEstimators, inputs: LossInputs) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Weighted sum of the losses of all streams but the fresh one, before the normalizer; and their metric sums."""
    assert inputs.streams is not None
    total = inputs.learner_logprobs.new_zeros(())
    fresh = (inputs.mask & (inputs.streams == Stream.FRESH)).sum()
    sums: dict[str, torch.Tensor] = {"raw/stream_fresh": fresh.to(total.dtype)}
    for stream, name in NAMES.items():
        index = (inputs.mask & (inputs.streams == stream)).flatten().nonzero().squeeze(1)
        tokens = tokens_at(inputs, index, whole=False)
        estimator: Estimator = getattr(estimators, name)
        found = estimate(estimator, tokens)
        total = total + (found.values * inputs.weights.flatten().index_select(0, index)).sum()
        sums[f"raw/stream_{name}"] = total.new_tensor(float(index.numel()))
        sums[f"stream/{name}/nll"] = -tokens.learner.detach().sum()
        sums |= {f"stream/{name}/{key}": value for key, value in found.sums.items()}
    return total, sums
