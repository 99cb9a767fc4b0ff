"""How far sampler, anchor, learner and reference are apart, as sums over tokens.

Sums add up exactly over micro-batches and ranks. What is not a mean over tokens is built from them once, afterwards, in
`rl/losses/summary.py`: names that start with `raw/` are meant for it and go no further.

    rho = anchor / sampler   mismatch/k1, k3, max_abs; ess_share = (sum rho)^2 / (N sum rho^2); chi2 = mean rho^2 - 1
    r = learner / anchor     loss/update_k3, what the updates of this batch have moved so far
    learner / reference      loss/reference_k1, loss/reference_k3

Assumption: tokens were drawn from the sampler, so k1 and k3 estimate KL(sampler || anchor). What they are not: the
mismatch of tokens that the sampler did not draw.
"""

from __future__ import annotations

import torch

from rl.losses.contract import MAX_LOG_RATIO, Tokens
from rl.losses.kl import kl_values
from rl.losses.summary import ENTROPY_EDGES, entropy_bin

Sums = dict[str, torch.Tensor]


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is not type-checked
def mismatch_sums(tokens: Tokens) -> tuple[Sums, Sums]:
    """Sums and maxima over the tokens of a micro-batch, `tokens` with the learner's own anchor."""
    difference = tokens.anchor - tokens.sampler
    bounded = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    rho = bounded.exp()
    update = tokens.log_ratio
    sums = {
        "mismatch/k1": -difference.sum(),
        "mismatch/k3": (torch.expm1(bounded) - bounded).sum(),
        "raw/rho": rho.sum(),
        "raw/rho_squared": rho.square().sum(),
        "loss/update_k3": (torch.expm1(update) - update).sum(),
    }
    largest = difference.abs().amax() if difference.numel() else difference.new_zeros(())
    return sums, {"mismatch/max_abs": largest}


@torch.no_grad()  # type: ignore[untyped-decorator]
def reference_sums(tokens: Tokens, reference: torch.Tensor) -> Sums:
    """Sums of the KL estimates against the reference."""
    return {f"loss/reference_{name}": kl_values(name, tokens.learner, reference).sum() for name in ("k1", "k3")}


@torch.no_grad()  # type: ignore[untyped-decorator]
def rejection_sums(tokens: Tokens, counts: torch.Tensor) -> Sums:
    """Sums of what a correction left out: tokens, and sequences without a token left."""
    left = tokens.sequence_sum(counts.to(tokens.anchor.dtype))
    return {
        "mismatch/masked_tokens": (~counts).sum(),
        "raw/masked_sequences": (left == 0).sum(),
        "raw/sequences": left.new_tensor(float(tokens.num_sequences)),
    }


@torch.no_grad()  # type: ignore[untyped-decorator]
def entropy_sums(entropies: torch.Tensor) -> Sums:
    """Sum of the entropies, and how many fall into each bin of the histogram that p10 is read from."""
    edges = torch.tensor(ENTROPY_EDGES, dtype=entropies.dtype, device=entropies.device)
    bins = torch.bincount(torch.bucketize(entropies, edges), minlength=len(ENTROPY_EDGES) + 1)
    return {"loss/entropy": entropies.sum()} | {entropy_bin(i): count for i, count in enumerate(bins.unbind())}
