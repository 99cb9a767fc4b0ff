"""A packed micro-batch on the device, with what the attention needs to keep samples apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rl.batch import Stream
from rl.learner.forward import block_attention, causal_attention, varlen_attention
from rl.losses.contract import LossInputs
from rl.losses.selection import Scored
from rl.packing import PADDING, MicroBatch, PackedStep
from rollout.schema import Float32Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DeviceBatch:
    """Shapes [R, T]; with a varlen kernel the rows are laid end to end, [1, R * T]."""

    input_ids: torch.Tensor  # int64
    targets: torch.Tensor  # int64
    chosen: torch.Tensor  # [K] int64, flat indices of the loss tokens
    attention: dict[str, Any]
    loss_mask: torch.Tensor  # bool
    advantages: torch.Tensor  # float32
    sampler_logprobs: torch.Tensor  # float32
    weights: torch.Tensor  # float32
    segments: torch.Tensor  # int32, index of the sample in the batch, -1 at padding
    sequences: torch.Tensor  # int32, index of the sample in this micro-batch, -1 where there is no loss token
    num_sequences: int
    position_ids: torch.Tensor  # int64, inside the sample
    reference_logprobs: torch.Tensor | None  # float32
    streams: torch.Tensor | None  # int8, `rl.batch.Stream`; None where all samples are fresh

    @property
    def tokens(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.input_ids, self.targets, self.chosen

    def scored(self, logprobs: torch.Tensor, entropies: torch.Tensor) -> Scored:
        """What a loss needs to choose tokens by, which it does among the fresh ones."""
        fresh = self.loss_mask if self.streams is None else self.loss_mask & (self.streams == 0)
        return Scored(
            logprobs=logprobs,
            entropies=entropies,
            advantages=self.advantages,
            mask=fresh,
            samples=self.segments,
            positions=self.position_ids,
        )

    def loss_inputs(
        self,
        learner: torch.Tensor,
        entropies: torch.Tensor,
        anchor: torch.Tensor,
        selected: torch.Tensor | None,
        packed: PackedStep,
    ) -> LossInputs:
        """What the objective is given for this micro-batch of a step."""
        return LossInputs(
            learner_logprobs=learner,
            anchor_logprobs=anchor,
            sampler_logprobs=self.sampler_logprobs,
            advantages=self.advantages,
            mask=self.loss_mask,
            weights=self.weights,
            normalizer=packed.normalizer,
            num_loss_tokens=packed.num_loss_tokens,
            segments=self.sequences,
            num_sequences=self.num_sequences,
            reference_logprobs=self.reference_logprobs,
            entropies=entropies,
            selected=selected,
            streams=self.streams,
        )

    def drift(self, anchor: torch.Tensor) -> dict[int, float]:
        """Mean |log (anchor / sampler)| over the loss tokens of each replayed sample, by its index in the batch."""
        if self.streams is None:
            return {}
        chosen = self.loss_mask & (self.streams == Stream.REPLAY)
        owners, distances = self.segments[chosen], (anchor - self.sampler_logprobs)[chosen].abs()
        return {i: float(distances[owners == i].mean()) for i in owners.unique().tolist()}

    def non_finite(self, learner_logprobs: torch.Tensor) -> list[int]:
        """Segments that hold a non-finite value at a loss token; all of them if the values are finite one by one."""
        finite = torch.ones_like(self.loss_mask)
        given = (self.advantages, self.sampler_logprobs, self.weights, self.reference_logprobs)
        for values in (learner_logprobs, *(v for v in given if v is not None)):
            finite &= torch.isfinite(values)
        guilty: list[int] = self.segments[self.loss_mask & ~finite].unique().tolist()
        return guilty or list(self.segments[self.loss_mask].unique().tolist())


def to_device(micro_batch: MicroBatch, device: torch.device, *, varlen: bool) -> DeviceBatch:
    """Copy to `device`. Rows of one sample need no mask; rows of several get a block mask or kernel boundaries."""

    def move(array: np.ndarray[Any, Any], dtype: torch.dtype) -> torch.Tensor:
        rows = array.reshape(1, -1) if varlen else array
        return torch.tensor(rows, dtype=dtype, device=device)

    sequences = np.full_like(micro_batch.segments, PADDING)
    names, numbers = np.unique(micro_batch.segments[micro_batch.loss_mask], return_inverse=True)
    sequences[micro_batch.loss_mask] = numbers
    reference, streams = micro_batch.reference_logprobs, micro_batch.streams
    segments = move(micro_batch.segments, torch.int32)
    position_ids = move(micro_batch.position_ids, torch.int64)
    if varlen:
        attention = varlen_attention(segments, position_ids)
    elif _is_one_sample_a_row(micro_batch):
        attention = causal_attention()
    else:
        attention = block_attention(segments, position_ids)
    return DeviceBatch(
        input_ids=move(micro_batch.input_ids, torch.int64),
        targets=move(micro_batch.targets, torch.int64),
        chosen=torch.tensor(np.flatnonzero(micro_batch.loss_mask), dtype=torch.int64, device=device),
        attention=attention,
        loss_mask=move(micro_batch.loss_mask, torch.bool),
        advantages=move(micro_batch.advantages, torch.float32),
        sampler_logprobs=move(micro_batch.sampler_logprobs, torch.float32),
        weights=move(micro_batch.weights, torch.float32),
        segments=segments,
        sequences=move(sequences, torch.int32),
        num_sequences=names.size,
        position_ids=position_ids,
        reference_logprobs=None if reference is None else move(reference, torch.float32),
        streams=None if streams is None else move(streams, torch.int8),
    )


def _is_one_sample_a_row(micro_batch: MicroBatch) -> bool:
    first = micro_batch.segments[:, :1]
    return bool(((micro_batch.segments == first) | (micro_batch.segments == PADDING)).all())


def probe_batch(token_ids: list[list[int]]) -> MicroBatch:
    """Sequences to be scored at every token after the first, as one padded micro-batch."""
    width = max(len(ids) for ids in token_ids) - 1
    shape = (len(token_ids), width)
    inputs, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments = np.full(shape, PADDING, np.int32)
    for row, ids in enumerate(token_ids):
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = ids[1:]
        segments[row, : len(ids) - 1] = row
    nothing: Float32Array = np.zeros(shape, np.float32)
    return MicroBatch(
        input_ids=inputs,
        position_ids=np.broadcast_to(np.arange(width, dtype=np.int32), shape),
        segments=segments,
        targets=targets,
        loss_mask=segments != PADDING,
        advantages=nothing,
        sampler_logprobs=nothing,
        weights=nothing,
    )
