"""AdamW with a guard in front, and which parameters its weight decay touches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rl.learner.config import LearnerConfig
from rl.learner.errors import NonFiniteError


class GuardedAdamW(torch.optim.AdamW):  # type: ignore[misc]  # torch is not type-checked
    """AdamW that clips the global gradient norm and refuses a non-finite one.

    For ZeRO stage 0, where the optimizer sees whole gradients, equal on every rank. With stages 1 to 3 it sees a share
    of them, DeepSpeed clips by the global norm and skips a non-finite step, and `max_grad_norm` is None here.
    """

    def __init__(self, params: Any, *, max_grad_norm: float | None, **options: Any) -> None:
        super().__init__(params, **options)
        self._max_grad_norm = max_grad_norm
        self.grad_norm: float | None = None

    def step(self, closure: None = None) -> None:
        if self._max_grad_norm is not None:
            parameters = [p for group in self.param_groups for p in group["params"]]
            self.grad_norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._max_grad_norm))
            if not np.isfinite(self.grad_norm):
                raise NonFiniteError(f"gradient norm {self.grad_norm}")
        super().step()


def build_optimizer(model: torch.nn.Module, config: LearnerConfig) -> GuardedAdamW:
    """AdamW over the trainable parameters of `model`."""
    return GuardedAdamW(
        decay_groups(model, config.weight_decay),
        lr=config.lr,
        betas=config.betas,
        fused=True,
        max_grad_norm=config.max_grad_norm if config.zero_stage == 0 else None,
    )


def decay_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups, decayed and not; a group without parameters is left out.

    Norms and biases (fewer than two dimensions) are not decayed: pulling a scale towards zero shrinks activations, not
    complexity. Nor is the token embedding: rows of tokens that a batch does not hold would shrink without a say.
    """
    embedding = {id(parameter) for parameter in model.get_input_embeddings().parameters()}
    decayed: list[torch.nn.Parameter] = []
    spared: list[torch.nn.Parameter] = []
    for parameter in model.parameters():  # a tied matrix comes once
        if parameter.requires_grad:
            (spared if parameter.ndim < 2 or id(parameter) in embedding else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
