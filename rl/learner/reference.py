"""The frozen reference model: log-probabilities without a gradient, computed as the learner computes its own.

Lent the learner's memory, it lives in the memory of the CPU and visits the GPU only while it scores: the learner is not
training then, and its activations have left room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoConfig

from rl.learner.config import LearnerConfig
from rl.learner.forward import TokenScorer
from rl.learner.micro_batch import to_device
from rl.learner.model import load_model, save_model
from rl.packing import MicroBatch
from rollout.schema import Float32Array


class FrozenModel:
    """A model directory, loaded once, scored and now and then overwritten."""

    def __init__(
        self, model_dir: str, policy_dir: str, config: LearnerConfig, *, temperature: float, is_lent: bool
    ) -> None:
        """Load the model.

        Args:
            policy_dir: the policy's model directory; both must have one vocabulary.
            config: the learner's settings, with the dtype of the reference model.
            is_lent: keep the weights on the CPU between scorings.

        Raises:
            ValueError: no weights, or another vocabulary than the policy's.
        """
        sizes = [AutoConfig.from_pretrained(path).vocab_size for path in (model_dir, policy_dir)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the reference model must have the policy's vocabulary: {model_dir} has {sizes[0]} tokens, "
                f"{policy_dir} has {sizes[1]}; set reference.path to a model of the same family"
            )
        self._model_dir = model_dir
        self._device = torch.device(config.device)
        self._home = torch.device("cpu") if is_lent else self._device
        model = load_model(model_dir, config)
        model.eval().requires_grad_(False)
        self._model = model.to(self._home)
        self._scorer = TokenScorer(model, temperature=temperature, max_logit_mib=config.max_logit_mib)

    def score(self, micro_batches: Sequence[MicroBatch]) -> list[Float32Array]:
        """Per micro-batch, [R, T] log-probability of each target after temperature; 0 where it was not sampled."""
        scored = []
        with self._at_work(), torch.inference_mode():
            for micro_batch in micro_batches:
                batch = to_device(micro_batch, self._device, varlen=False)
                logprobs = self._scorer(*batch.tokens, attention=batch.attention)[0]
                scored.append(logprobs.cpu().numpy())
        return scored

    def take(self, chunk: Sequence[tuple[str, torch.Tensor]]) -> None:
        """Overwrite the weights of one chunk, given by Hugging Face name. Raises KeyError for a foreign name."""
        parameters = dict(self._model.named_parameters())
        with torch.no_grad():
            for name, tensor in chunk:
                parameters[name].copy_(tensor)

    def save(self, path: str) -> None:
        """Write a Hugging Face model directory."""
        save_model(self._model, self._model.state_dict(), self._model_dir, path)

    def restore(self, path: str, config: LearnerConfig) -> None:
        """Take the weights of a directory that `save` wrote."""
        self.take(list(load_model(path, config).named_parameters()))

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        if self._home == self._device:
            yield
            return
        self._model.to(self._device)
        try:
            yield
        finally:
            self._model.to(self._home)
            torch.cuda.empty_cache()


def reference_settings(config: LearnerConfig, dtype: str) -> LearnerConfig:
    """The learner's settings, as far as they shape a forward pass. Not validated: master weights are no concern of a
    model that is never updated."""
    changes: dict[str, Any] = {"dtype": dtype, "layout": "buckets", "gradient_checkpointing": False}
    return config.model_copy(update=changes)
