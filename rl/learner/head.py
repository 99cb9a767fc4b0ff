"""The output head fused with log-probability and entropy: logits exist one chunk at a time, forward and backward.

    z = (W h + b) / temperature          log p_y = z_y - logsumexp(z)          H = -sum_v p_v log p_v

    d log p_y / dz_v = [v = y] - p_v     dH / dz_v = -p_v (log p_v + H)

The matrix products run in the dtype of the model, everything between them in float32 and in blocks of rows that stay in
the cache. A graph of ordinary operations would keep [tokens, vocabulary] in float32 twice (log-softmax and its
gradient); here the backward pass computes the logits of a chunk again, writes the gradient over them, and goes on. The
last chunk of the forward pass is kept for the backward pass, so a micro-batch of one chunk computes nothing twice.

What it is not: it has no second derivative, and no logit cap or scale after the head (`forward.check_head` refuses
models that have one).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

BLOCK_ELEMENTS = 2**19  # float32 values between two matrix products: 2 MiB, about a core's share of the cache


class ChunkedHead(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Shares the parameters of a linear output head. A module, so that ZeRO-3 gathers them around its forward call."""

    def __init__(self, head: torch.nn.Module, *, max_logit_mib: int) -> None:
        super().__init__()
        self.weight = head.weight  # [V, H]; the embedding's own parameter when the two are tied
        self.bias = getattr(head, "bias", None)
        vocabulary = head.weight.shape[0]
        self.chunk_tokens = max(1, max_logit_mib * 2**20 // (head.weight.element_size() * vocabulary))

    def forward(
        self, hidden: torch.Tensor, labels: torch.Tensor, *, temperature: float, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each label and entropy of its distribution, both [K] float32.

        Args:
            hidden: [K, H], any floating dtype.
            labels: [K] int64.
            entropy_gradient: whether gradients flow through the entropies too; they always do through the others.
        """
        logprobs, entropies = _Scores.apply(
            hidden, self.weight, self.bias, labels, 1.0 / temperature, self.chunk_tokens, entropy_gradient
        )
        return logprobs, entropies


class _Scores(torch.autograd.Function):  # type: ignore[misc]  # torch is not type-checked
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        scale: float,
        chunk_tokens: int,
        entropy_gradient: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logprobs = torch.empty(labels.shape, dtype=torch.float32, device=hidden.device)
        entropies, normalizers = torch.empty_like(logprobs), torch.empty_like(logprobs)
        logits = hidden.new_empty(0)
        for chunk in _slices(labels.numel(), chunk_tokens):
            logits = F.linear(hidden[chunk], weight, bias)
            for block in _slices(logits.shape[0], _block_rows(logits)):
                rows = slice(chunk.start + block.start, chunk.start + block.stop)
                scaled = _scaled(logits[block], scale)
                scores = F.log_softmax(scaled, dim=-1)
                label = labels[rows].unsqueeze(-1)
                logprobs[rows] = scores.gather(-1, label).squeeze(-1)
                normalizers[rows] = (scaled.gather(-1, label) - scores.gather(-1, label)).squeeze(-1)
                entropies[rows] = -torch.linalg.vecdot(scores.exp(), scores)
        ctx.save_for_backward(hidden, weight, bias, labels, normalizers, entropies)
        ctx.kept = logits
        ctx.scale, ctx.chunk_tokens, ctx.entropy_gradient = scale, chunk_tokens, entropy_gradient
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, by_logprob: torch.Tensor, by_entropy: torch.Tensor) -> tuple[Any, ...]:
        hidden, weight, bias, labels, normalizers, entropies = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        hidden_grad = torch.empty_like(hidden) if needs_hidden else None
        # Chunks are added up in float32: bfloat16 would lose the small ones.
        weight_grad = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if needs_weight else None
        bias_grad = torch.zeros(weight.shape[:1], dtype=torch.float32, device=weight.device) if needs_bias else None
        kept, ctx.kept = ctx.kept, None  # overwritten below: a second backward pass computes it again
        for chunk in reversed(_slices(labels.numel(), ctx.chunk_tokens)):
            logits = F.linear(hidden[chunk], weight, bias) if kept is None else kept
            kept = None
            for block in _slices(logits.shape[0], _block_rows(logits)):
                rows = slice(chunk.start + block.start, chunk.start + block.stop)
                logits[block] = _logit_gradient(
                    _scaled(logits[block], ctx.scale).sub_(normalizers[rows].unsqueeze(-1)),
                    labels[rows],
                    by_logprob[rows],
                    (by_entropy[rows], entropies[rows]) if ctx.entropy_gradient else None,
                ).mul_(ctx.scale)
            if hidden_grad is not None:
                torch.mm(logits, weight, out=hidden_grad[chunk])
            if weight_grad is not None:
                weight_grad += logits.T @ hidden[chunk]
            if bias_grad is not None:
                bias_grad += logits.sum(0, dtype=torch.float32)
        return (
            hidden_grad,
            None if weight_grad is None else weight_grad.to(weight.dtype),
            None if bias_grad is None else bias_grad.to(weight.dtype),
            *([None] * 4),
        )


def _logit_gradient(
    scores: torch.Tensor,
    labels: torch.Tensor,
    by_logprob: torch.Tensor,
    entropy: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """[B, V] gradient of the scaled logits, from their log-probabilities `scores`.

    Args:
        by_logprob: [B] gradient of the loss by log p_y.
        entropy: [B] gradient of the loss by H, and [B] H itself; None leaves entropies out.
    """
    pull = by_logprob.unsqueeze(-1)
    if entropy is None:
        gradient = scores.exp_().mul_(-pull)
    else:
        by_entropy, value = (part.unsqueeze(-1) for part in entropy)
        gradient = scores.exp().neg_().mul_(scores.add_(value).mul_(by_entropy).add_(pull))
    return gradient.scatter_add_(-1, labels.unsqueeze(-1), pull)


def _scaled(logits: torch.Tensor, scale: float) -> torch.Tensor:
    """A float32 copy of the logits after temperature."""
    return logits.to(torch.float32, copy=True).mul_(scale)


def _block_rows(logits: torch.Tensor) -> int:
    return max(1, BLOCK_ELEMENTS // int(logits.shape[1]))


def _slices(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
