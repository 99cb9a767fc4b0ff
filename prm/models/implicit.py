"""Implicit process rewards: partial log-ratios of two language models.

    r_t = beta * log( pi(y_t | x, y_<t) / ref(y_t | x, y_<t) )        reward of token t
    q_t = r_1 + ... + r_t                                             value after token t, q_0 = 0
    r(y) = q_T                                                        reward of the whole response

    CE    -[ l log sigma(r(y)) + (1 - l) log(1 - sigma(r(y))) ]       l in [0, 1]: was the answer right
    DPO   -log sigma( r(y_w) - r(y_l) )                               pairs of a right and a wrong answer

Source: Free Process Rewards without Process Labels (arXiv 2412.01981); its equation of CE lacks the minus sign. For any
beta > 0, q_t = beta * log E_ref[ exp(r(y) / beta) | y_<=t ]: training the whole response on outcomes alone makes every
partial sum a soft expectation of the final reward.
Assumption: pi starts at ref, and both read the tokens as they were sampled.
What it is not: a probability. q is centred per prompt (q_0 = 0 for every prompt), so it ranks continuations of one
prompt and says nothing across prompts. Tokens that were forced on the policy count 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from prm.models.rows import Rows
from rollout.schema import Float32Array

MAX_LOGITS = 2**26  # elements of the logits of one chunk: 256 MiB in float32


class TokenLogprobs(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """A causal language model whose forward gives log-probabilities of chosen tokens."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Rows, at: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[K] float32 log-probability of each label, read at flat position `at` (the token before it)."""
        hidden = self.model.base_model(input_ids=rows.input_ids, use_cache=False, **rows.attention).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, at)
        head = self.model.get_output_embeddings()
        size = max(1, MAX_LOGITS // int(head.weight.shape[0]))
        parts = []
        for start in range(0, at.numel(), size):
            chunk = (picked[start : start + size], labels[start : start + size])
            if torch.is_grad_enabled() and at.numel() > size:
                parts.append(checkpoint(_label_logprobs, head, *chunk, use_reentrant=False))
            else:
                parts.append(_label_logprobs(head, *chunk))
        return torch.cat(parts) if parts else picked.new_zeros(0, dtype=torch.float32)


def _label_logprobs(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = head(hidden).float()
    return logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def targets_of(
    rows: Rows, sequences: Sequence[np.ndarray], masks: Sequence[np.ndarray], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Where to read the tokens that count, in the order of `rows.starts`.

    Returns:
        [K] flat positions, [K] labels, [K] index of the sequence. THE shift: token t is read at position t - 1; the
        first token of a sequence has no prefix and never counts.
    """
    at, labels, owners = [], [], []
    for index, start in rows.starts.items():
        counted = np.flatnonzero(masks[index])
        counted = counted[counted > 0]
        at.append(start + counted - 1)
        labels.append(np.asarray(sequences[index])[counted])
        owners.append(np.full(counted.size, index))
    move = [np.concatenate(parts).astype(np.int64) for parts in (at, labels, owners)]
    first, second, third = (torch.from_numpy(part).to(device) for part in move)
    return first, second, third


def span_scores(ratios: Float32Array, spans: Sequence[tuple[int, int]], *, cumulative: bool) -> Float32Array:
    """[S] scores from [L] token rewards: the sum of each span, or everything up to its end."""
    sums = np.concatenate([[0.0], np.cumsum(ratios, dtype=np.float64)])
    scores = [sums[end] - (0.0 if cumulative else sums[start]) for start, end in spans]
    return np.asarray(scores, dtype=np.float32)


def ce_loss(rewards: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """[N] losses of whole-response rewards against outcomes in [0, 1]."""
    return F.binary_cross_entropy_with_logits(rewards, labels, reduction="none")


def dpo_loss(right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """[P] losses of pairs."""
    return F.softplus(wrong - right)
