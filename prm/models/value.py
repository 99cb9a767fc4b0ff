"""A scalar at the end of each step: the expected outcome from here on, in [-1, 1].

    V = tanh( w h + b )          loss = sum over steps of (V - target)^2 / (count + 0.001)          score = (1 + V) / 2

Targets: a right end is +1, a wrong end -1; the visit-averaged value of its edge for every step of a search tree, or
2 p - 1 for the share p of continuations that succeed.
Source: AlphaMath Almost Zero (arXiv 2405.03553). It shares the network with the policy and adds the policy's loss on
right paths; here the value model stands alone, as a scorer of someone else's steps.
Assumption: targets are unbiased averages of outcomes, so that the score is the probability of success.
What it is not: a judgement of the step. A wrong step that is always repaired later has a high value.
"""

from __future__ import annotations

import torch

from prm.models.backbone import load_backbone, read_tensors, save_settings, save_with_head
from prm.models.discriminative import StepHead

_SOFTENER = 1e-3


def new_value(path: str, dtype: str) -> StepHead:
    """A fresh scalar head on the backbone of a language model; it starts at 0 everywhere."""
    backbone = load_backbone(path, dtype)
    head = torch.nn.Linear(backbone.config.hidden_size, 1).to(backbone.dtype)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    return StepHead(backbone, head)


def load_value(path: str, dtype: str) -> StepHead:
    """A trained model. Raises ValueError when it has no scalar head."""
    tensors = read_tensors(path, "score.")
    if set(tensors) != {"weight", "bias"} or tensors["weight"].shape[0] != 1:
        raise ValueError(f"{path!r} is no value model (tensors {sorted(tensors) or 'none'}); see `ponder prm train`")
    backbone = load_backbone(path, dtype)
    head = torch.nn.Linear(backbone.config.hidden_size, 1).to(backbone.dtype)
    head.load_state_dict(tensors)
    return StepHead(backbone, head)


def save_value(model: StepHead, source: str, out_dir: str, settings: dict[str, object]) -> None:
    """Write the model; `settings` names at least `kind`."""
    family = type(model.model).__name__.removesuffix("Model")
    save_with_head(model.model, model.score, source, out_dir, architecture=f"{family}ForStepValue")
    save_settings(out_dir, settings)


def values(logits: torch.Tensor) -> torch.Tensor:
    """[K] values in [-1, 1] from [K, 1] head outputs."""
    return torch.tanh(logits.squeeze(-1))


def value_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """[K] squared errors; targets in [-1, 1], else ValueError."""
    if bool((targets.abs() > 1).any()):
        raise ValueError(f"value targets lie in [-1, 1], got {targets[targets.abs() > 1][:4].tolist()}")
    return (values(logits) - targets) ** 2


def mean_value_loss(losses: torch.Tensor) -> torch.Tensor:
    """The mean over steps as the source divides it."""
    return losses.sum() / (losses.numel() + _SOFTENER)
