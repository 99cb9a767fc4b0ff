"""Mean hidden state of a response under a frozen model: what the exploration bonus compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel


class Representation:
    """A frozen backbone on one device."""

    def __init__(self, model_dir: str, *, device: str, dtype: str, batch_tokens: int) -> None:
        model = AutoModel.from_pretrained(model_dir, dtype=getattr(torch, dtype))
        self._model = model.to(device).eval().requires_grad_(False)
        self._device = device
        self._batch_tokens = batch_tokens

    def features(
        self, token_ids: Sequence[npt.NDArray[np.int32]], masks: Sequence[npt.NDArray[np.bool_]]
    ) -> npt.NDArray[np.float64]:
        """[N, D] mean of the last layer's hidden states over the positions of each mask, [L] like its tokens.

        Raises ValueError for a token outside of the model's vocabulary.
        """
        highest = max(int(ids.max()) for ids in token_ids)
        if highest >= self._model.config.vocab_size:
            raise ValueError(
                f"the model of sampling.exploration.path has {self._model.config.vocab_size} tokens and the policy "
                f"sampled number {highest}; both must have one vocabulary"
            )
        means = np.zeros((len(token_ids), self._model.config.hidden_size))
        with torch.inference_mode():
            for places in self._batches([len(ids) for ids in token_ids]):
                width = max(len(token_ids[i]) for i in places)
                ids = torch.zeros(len(places), width, dtype=torch.int64)
                chosen = torch.zeros(len(places), width)
                for row, i in enumerate(places):
                    ids[row, : len(token_ids[i])] = torch.from_numpy(token_ids[i].astype(np.int64))
                    chosen[row, : len(masks[i])] = torch.from_numpy(masks[i].astype(np.float32))
                # Padded on the right under causal attention: no token sees the padding.
                hidden = self._model(input_ids=ids.to(self._device), use_cache=False).last_hidden_state.double()
                weights = chosen.to(self._device).double()
                summed = (hidden * weights.unsqueeze(2)).sum(dim=1)
                means[places] = (summed / weights.sum(dim=1, keepdim=True)).cpu().numpy()
        return means

    def _batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Places of similar length together, at most `batch_tokens` positions; a longer sequence goes alone."""
        batch: list[int] = []
        for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
            if batch and lengths[i] * (len(batch) + 1) > self._batch_tokens:
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch
