"""Log-probability and entropy of chosen tokens under a causal language model, and the attention of a micro-batch.

Only positions with a loss token go through the output head, which `rl/learner/head.py` computes in chunks.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch

from rl.learner.head import ChunkedHead

HEAD_TOLERANCE = 1e-2  # bfloat16 rounding of logits; a missing scale or soft cap is far larger


class TokenScorer(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Wraps a Hugging Face causal language model so that one forward call gives log-probabilities instead of logits.

    One module, because DeepSpeed hooks the forward of what it is given: with ZeRO-3 both the backbone and the head must
    run inside that call. Parameters keep their Hugging Face names, under the prefix `model.`.
    """

    PREFIX = "model."

    def __init__(self, model: torch.nn.Module, *, temperature: float, max_logit_mib: int) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.head = ChunkedHead(model.get_output_embeddings(), max_logit_mib=max_logit_mib)

    def forward(
        self,
        input_ids: torch.Tensor,
        targets: torch.Tensor,
        chosen: torch.Tensor,
        *,
        attention: dict[str, Any],
        temperature: float | None = None,
        entropy_gradient: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Score the targets at the chosen positions.

        Args:
            input_ids, targets: [R, T] int64.
            chosen: [K] flat indices into R * T.
            attention: positions and mask as `causal_attention`, `block_attention` or `varlen_attention` make them.
            temperature: replaces the sampling temperature, for probes.
            entropy_gradient: whether the entropies carry a gradient, which costs a little memory and time.

        Returns:
            Log-probabilities and entropies, both [R, T] float32, zero where not chosen.
        """
        hidden = self.model.base_model(input_ids=input_ids, use_cache=False, **attention).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, chosen)
        labels = targets.flatten().index_select(0, chosen)
        chosen_temperature = self.temperature if temperature is None else temperature
        logprobs, entropies = self.head(
            picked, labels, temperature=chosen_temperature, entropy_gradient=entropy_gradient
        )
        empty = torch.zeros(input_ids.numel(), dtype=torch.float32, device=input_ids.device)
        return (
            empty.index_copy(0, chosen, logprobs).view_as(input_ids),
            empty.index_copy(0, chosen, entropies).view_as(input_ids),
        )


def causal_attention() -> dict[str, Any]:
    """One sample a row, padded on the right: plain causal attention, positions from 0, no mask to build or to read."""
    return {}


def block_attention(segments: torch.Tensor, position_ids: torch.Tensor) -> dict[str, Any]:
    """Several samples a row: a token sees the earlier tokens of its own sample. `segments`, `position_ids` [R, T]."""
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    same = segments.unsqueeze(2) == segments.unsqueeze(1)
    return {"attention_mask": (same & causal).unsqueeze(1), "position_ids": position_ids}


def varlen_attention(segments: torch.Tensor, position_ids: torch.Tensor) -> dict[str, Any]:
    """The same for a kernel of variable lengths, given as one row: [1, T] and the boundaries between samples."""
    row = segments.flatten()
    changes = torch.nonzero(row[1:] != row[:-1]).flatten() + 1
    ends = [0, *changes.tolist(), row.numel()]
    boundaries = torch.tensor(ends, dtype=torch.int32, device=segments.device)
    longest = max(b - a for a, b in pairwise(ends))
    return {
        "position_ids": position_ids,
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def check_head(model: torch.nn.Module) -> None:
    """Refuse a model whose logits are not head(backbone(x)), such as one with capped or scaled logits.

    Raises:
        ValueError: `TokenScorer` would compute other log-probabilities than the model and the engine.
    """
    with torch.no_grad():
        ids = torch.arange(8, device=next(model.parameters()).device).remainder(model.config.vocab_size).unsqueeze(0)
        logits = model(input_ids=ids, use_cache=False).logits.float()
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        difference = float((logits - model.get_output_embeddings()(hidden).float()).abs().max())
    if not difference <= HEAD_TOLERANCE * max(1.0, float(logits.abs().max())):
        raise ValueError(
            f"{type(model).__name__} changes its logits after the output head (by up to {difference:.3g}), which the "
            "learner's chunked head leaves out; use a model without logit scaling or soft caps"
        )
