"""One micro-batch for a loss, from plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rl.losses.aggregation import normalize
from rl.losses.config import LossConfig
from rl.losses.contract import LossInputs, LossOutput
from rl.losses.objective import Objective

Rows = Sequence[Sequence[float]]


def rectangle(rows: Rows, width: int, padding: float) -> torch.Tensor:
    return torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])


def loss_inputs(
    config: LossConfig,
    *,
    anchor: Rows,
    log_ratios: Rows,
    advantages: Rows,
    sampler: Rows | None = None,
    reference: Rows | None = None,
    entropies: torch.Tensor | None = None,
    selected: Sequence[Sequence[bool]] | None = None,
    width: int | None = None,
    padding: float = float("nan"),
) -> LossInputs:
    """Rows are sequences of mixed lengths, one a row; `learner_logprobs` is a leaf with gradient."""
    counts = [len(row) for row in anchor]
    width = max(counts) if width is None else width
    weights, normalizer = normalize(config.aggregation, np.asarray(counts))
    mask = torch.tensor([[i < count for i in range(width)] for count in counts])
    anchors = rectangle(anchor, width, padding)
    return LossInputs(
        learner_logprobs=(anchors + rectangle(log_ratios, width, padding)).requires_grad_(),
        anchor_logprobs=anchors,
        sampler_logprobs=anchors if sampler is None else rectangle(sampler, width, padding),
        advantages=rectangle(advantages, width, padding),
        mask=mask,
        weights=torch.tensor(weights)[:, None].expand(len(counts), width),
        normalizer=normalizer,
        num_loss_tokens=sum(counts),
        segments=torch.arange(len(counts), dtype=torch.int32)[:, None].expand(len(counts), width),
        num_sequences=len(counts),
        reference_logprobs=None if reference is None else rectangle(reference, width, padding),
        entropies=entropies,
        selected=None if selected is None else rectangle(selected, width, False).bool(),
    )


def one_row(config: LossConfig, log_ratios: Sequence[float], advantage: float, **options: Any) -> LossOutput:
    """The loss of one sequence whose tokens share an advantage."""
    output, _ = one_row_gradient(config, log_ratios, advantage, backward=False, **options)
    return output


def one_row_gradient(
    config: LossConfig, log_ratios: Sequence[float], advantage: float, *, backward: bool = True, **options: Any
) -> tuple[LossOutput, list[float]]:
    """The same, with the gradient for the log-probability of each token."""
    anchor = [-0.5, -1.0, -0.2, -0.7][: len(log_ratios)]
    learner = [x + d for x, d in zip(anchor, log_ratios, strict=True)]
    anchor = options.pop("anchor", anchor)
    ratios = [x - a for x, a in zip(learner, anchor, strict=True)]
    rows = {name: [value] for name, value in options.items()}
    inputs = loss_inputs(config, anchor=[anchor], log_ratios=[ratios], advantages=[[advantage] * len(anchor)], **rows)
    output = Objective(config)(inputs)
    if not backward:
        return output, []
    output.loss.backward()
    gradient = inputs.learner_logprobs.grad
    assert gradient is not None
    return output, gradient[0].tolist()
