"""The geometry of a model's hidden states on a fixed set of prompts.

One state a prompt: that of its last token in the last layer, after the final norm, where the answer begins. Not the
mean over tokens and not every token: a chat template repeats the same tokens in every prompt, and they would be counted
as directions of their own; the last token has read all of the prompt, and it is what the published curves are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rl.diagnostics.alpha_req import alpha_req, num_above_rounding
from rl.diagnostics.config import ALPHA_RANKS
from rl.diagnostics.covariance_rank import covariance_eigenvalues, covariance_rank
from rl.diagnostics.rankme import rankme


def geometry(states: torch.Tensor) -> dict[str, float]:
    """Metrics of [N, D] states by name; alpha-ReQ only where 99 eigenvalues exist."""
    eigenvalues = covariance_eigenvalues(states)
    values = {"geometry/rankme": rankme(states), "geometry/covariance_rank": covariance_rank(eigenvalues)}
    if num_above_rounding(eigenvalues) >= ALPHA_RANKS[1]:
        values["geometry/alpha_req"] = alpha_req(eigenvalues)
    return values


def last_states(
    backbone: torch.nn.Module, prompts: Sequence[Sequence[int]], *, device: torch.device, max_tokens: int
) -> torch.Tensor:
    """[N, D] state of the last token of each prompt, in the order of the prompts. Collective with ZeRO-3.

    Args:
        max_tokens: most positions, padding included, in one forward pass; a longer prompt goes alone.
    """
    states: list[torch.Tensor | None] = [None] * len(prompts)
    with torch.no_grad():
        for members in _batches(prompts, max_tokens):
            rows = [torch.tensor(prompts[i], dtype=torch.int64, device=device) for i in members]
            # Padding stands on the right: under a causal mask no real token sees it.
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
            hidden = backbone(input_ids=ids, use_cache=False).last_hidden_state
            for row, i in enumerate(members):
                states[i] = hidden[row, len(prompts[i]) - 1]
    return torch.stack([state for state in states if state is not None])


def _batches(prompts: Sequence[Sequence[int]], max_tokens: int) -> Iterator[list[int]]:
    """Indices of the prompts, longest first, cut where the next one would exceed the tokens of a forward pass."""
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: -len(prompts[i])):
        if batch and (len(batch) + 1) * len(prompts[batch[0]]) > max_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
