"""What a loss is given and what it gives back. The learner knows no algorithm: it calls `rl.losses.objective`.

Shapes: [R, T] rows and positions of one micro-batch, [K] its loss tokens alone, [S] its sequences. A position describes
the token it predicts. The four log-probabilities have four names and never share one:
    sampler_   what the engine reported when it drew the token, after temperature
    learner_   the current weights, with gradient
    anchor_    the learner's, detached, before the first update of the batch
    reference_ a frozen model's, present where something in the recipe needs it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

MAX_LOG_RATIO = 20.0  # exp(20) = 4.9e8 keeps float32 products finite; clipping has cut the gradient long before


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
    num_loss_tokens: int  # likewise, of the whole optimizer step
    segments: torch.Tensor  # [R, T] int32, sequence of a loss token in this micro-batch; one sequence is never split
    num_sequences: int  # segments are below it
    reference_logprobs: torch.Tensor | None = None  # [R, T] float32
    entropies: torch.Tensor | None = None  # [R, T] float32, with gradient only if the settings of the loss need it
    selected: torch.Tensor | None = None  # [R, T] bool, tokens chosen over the whole step by `rl.losses.selection`
    streams: torch.Tensor | None = None  # [R, T] int8, `rl.batch.Stream`; None where every sample is fresh


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tokens:
    """The loss tokens of a micro-batch, end to end. What is masked is not here, so nothing can leak out of it."""

    learner: torch.Tensor  # [K] float32, carries the gradient
    anchor: torch.Tensor  # [K] float32, detached; the sampler's in bypass mode
    sampler: torch.Tensor  # [K] float32, detached
    advantages: torch.Tensor  # [K] float32
    segments: torch.Tensor  # [K] int64
    num_sequences: int
    selected: torch.Tensor | None = None  # [K] bool

    @property
    def log_ratio(self) -> torch.Tensor:
        """[K] log of learner / anchor, within +-20."""
        return (self.learner - self.anchor).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)

    def sequence_sum(self, values: torch.Tensor) -> torch.Tensor:
        """[K] values of tokens to [S] sums of sequences."""
        return values.new_zeros(self.num_sequences).index_add(0, self.segments, values)

    def sequence_mean(self, values: torch.Tensor) -> torch.Tensor:
        """[K] values of tokens to [S] means of sequences."""
        return self.sequence_sum(values) / self.sequence_sum(torch.ones_like(values))

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """[S] values of sequences to [K], one copy a token."""
        return values.index_select(0, self.segments)


def tokens_at(inputs: LossInputs, index: torch.Tensor, *, whole: bool) -> Tokens:
    """The tokens at [K] flat indices, which hold whole sequences. Unless that is the `whole` of the micro-batch, their
    sequences are numbered anew."""

    def pick(values: torch.Tensor) -> torch.Tensor:
        return values.flatten().index_select(0, index)

    segments, num_sequences = pick(inputs.segments).long(), inputs.num_sequences
    if not whole:
        names, segments = segments.unique(return_inverse=True)
        num_sequences = names.numel()
    return Tokens(
        learner=pick(inputs.learner_logprobs),
        anchor=pick(inputs.anchor_logprobs).detach(),
        sampler=pick(inputs.sampler_logprobs).detach(),
        advantages=pick(inputs.advantages),
        segments=segments,
        num_sequences=num_sequences,
        selected=None if inputs.selected is None else pick(inputs.selected),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenLoss:
    """Loss of each token before averaging; a loss of a whole sequence stands at each of its tokens.

    `sums` are detached sums over tokens for the metrics, the same names in every micro-batch.
    """

    values: torch.Tensor  # [K]
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)


class LossFunction(Protocol):
    def __call__(self, config: Any, tokens: Tokens) -> TokenLoss: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossOutput:
    """`loss` is this micro-batch's share of the step's loss, so shares add up over micro-batches and ranks.

    `sums` are detached sums over loss tokens, reported as means over the loss tokens of the step; `maxima` are detached
    largest values.
    """

    loss: torch.Tensor  # scalar
    sums: Mapping[str, torch.Tensor]
    maxima: Mapping[str, torch.Tensor] = field(default_factory=dict)
