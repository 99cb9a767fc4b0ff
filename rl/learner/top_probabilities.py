"""What a frozen model expects next, at every position of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import AutoModelForCausalLM

from rl.learner.model import DTYPES
from rollout.schema import Float32Array


def top_log_probabilities(
    model_dir: str, chunks: Sequence[Sequence[int]], *, most: int, device: str, dtype: str
) -> Iterator[Float32Array]:
    """Per chunk [L - 1, most]: log-probabilities of the likeliest tokens after 1, 2, ... L - 1 tokens of it."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=DTYPES[dtype]).to(device).eval()
    for chunk in chunks:
        with torch.inference_mode():
            logits = model(torch.tensor([list(chunk[:-1])], device=device)).logits[0].float()
            found = logits.log_softmax(-1).topk(min(most, logits.shape[-1]), dim=-1).values
        yield found.cpu().numpy()
