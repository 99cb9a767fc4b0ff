"""What a loss is given and what it gives back. The learner knows no algorithm: it calls a function of this shape.

Shapes: [R, T] rows and positions of one micro-batch; a position describes the token it predicts.
The four log-probabilities have four names and never share one:
    sampler_   what the engine reported when it drew the token, after temperature
    learner_   the current weights, with gradient
    anchor_    the learner's, detached, before the first update of the batch
    reference_ a frozen model's, present where something in the recipe needs it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from rl.losses.config import LossConfig


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossInputs:
    """One micro-batch. Values where `mask` is False are arbitrary, NaN included, and must not matter."""

    learner_logprobs: torch.Tensor  # [R, T] float32, carries the gradient
    anchor_logprobs: torch.Tensor  # [R, T] float32
    sampler_logprobs: torch.Tensor  # [R, T] float32
    advantages: torch.Tensor  # [R, T] float32
    mask: torch.Tensor  # [R, T] bool, True at loss tokens
    weights: torch.Tensor  # [R, T] float32, weight of the token's sequence
    normalizer: float  # one number for the whole optimizer step: all ranks, all micro-batches
    segments: torch.Tensor  # [R, T] int32, sequence of a loss token in this micro-batch; one sequence is never split
    num_sequences: int  # segments are below it
    reference_logprobs: torch.Tensor | None = None  # [R, T] float32
    entropies: torch.Tensor | None = None  # [R, T] float32, with gradient only if the settings of the loss need it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossOutput:
    """`loss` is this micro-batch's share of the step's loss, so shares add up over micro-batches and ranks.

    `sums` are detached sums over loss tokens, reported as means over the loss tokens of the step; `maxima` are detached
    largest values.
    """

    loss: torch.Tensor  # scalar
    sums: Mapping[str, torch.Tensor]
    maxima: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LossFunction(Protocol):
    def __call__(self, config: LossConfig, inputs: LossInputs) -> LossOutput: ...
