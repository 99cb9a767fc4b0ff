"""Sequences of many lengths as rows of token positions, and the attention that keeps them apart.

A batch is a rectangle of at most `batch_tokens` positions, as wide as its longest sequence; shorter sequences share a
row. Rows of one sequence each need no mask. A sequence's scores are the same alone and in company: it attends to
its own tokens alone, at positions that start from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rollout.schema import Int32Array

PADDING = -1
Row = list[int]  # indices of the sequences in it, in order


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """One batch on its device. Shapes [R, T]."""

    input_ids: torch.Tensor  # int64
    attention: dict[str, Any]  # what the backbone is called with besides
    starts: dict[int, int]  # flat index in R * T of the first token of each sequence of the batch


def plan(lengths: Sequence[int], batch_tokens: int) -> list[list[Row]]:
    """Batches of rows of sequence indices, each sequence once; longest first, first fit.

    Raises ValueError for an empty sequence or one longer than a batch.
    """
    waiting = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    if waiting and (lengths[waiting[0]] > batch_tokens or lengths[waiting[-1]] < 1):
        bad = lengths[waiting[0]] if lengths[waiting[0]] > batch_tokens else lengths[waiting[-1]]
        raise ValueError(f"a sequence must hold 1 to {batch_tokens} tokens (batch_tokens), got {bad}")
    batches: list[list[Row]] = []
    while waiting:
        width = lengths[waiting[0]]
        rows: list[Row] = []
        room: list[int] = []
        left: list[int] = []
        num_rows = batch_tokens // width
        for index in waiting:
            size = lengths[index]
            if len(rows) < num_rows and (not room or max(room) < size):
                rows.append([index])
                room.append(width - size)
                continue
            place = next((at for at, free in enumerate(room) if free >= size), None)
            if place is None:
                left.append(index)
            else:
                rows[place].append(index)
                room[place] -= size
        batches.append(rows)
        waiting = left
    return batches


def lay_out(sequences: Sequence[Int32Array], rows: Sequence[Row], device: torch.device) -> Rows:
    """The tensors of one batch of `plan`."""
    width = max(sum(len(sequences[index]) for index in row) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    positions = np.zeros_like(ids)
    segments = np.full_like(ids, PADDING)
    starts: dict[int, int] = {}
    for at, row in enumerate(rows):
        offset = 0
        for index in row:
            end = offset + len(sequences[index])
            ids[at, offset:end] = sequences[index]
            positions[at, offset:end] = np.arange(end - offset)
            segments[at, offset:end] = index
            starts[index] = at * width + offset
            offset = end
    attention: dict[str, Any] = {}
    if any(len(row) > 1 for row in rows):
        block = torch.from_numpy(segments).to(device)
        causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        same = block.unsqueeze(2) == block.unsqueeze(1)
        attention = {
            "attention_mask": (same & causal).unsqueeze(1),
            "position_ids": torch.from_numpy(positions).to(device),
        }
    return Rows(input_ids=torch.from_numpy(ids).to(device), attention=attention, starts=starts)
