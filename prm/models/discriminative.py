"""A classifier at the end of each step.

    z = W2 relu(W1 h + b1) + b2            h: hidden state where the step ends (its last token, or a separator)
    hard        classes (bad, good)             CE(z, y)                       score = softmax(z)_good
    soft        classes (bad, good)             ( softmax(z)_good - y )^2      score = softmax(z)_good
    three_way   classes (bad, neutral, good)    CE(z, y)                       score = 1 - softmax(z)_bad

Source: Lessons of Developing PRMs (arXiv 2501.07301), whose released checkpoints have this head under the name `score`,
two classes, and one separator token after each step; three-way labels are PRM800K's (arXiv 2305.20050). Neutral counts
as not wrong, as in the former.
Assumption: a label says whether the step is right, or what share of its continuations succeeds; the two are different
things and must not be mixed in one training set.
What it is not: a value. A right step of a hopeless solution scores high when its labels are of the first sort.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from prm.models.backbone import load_backbone, read_settings, read_tensors, save_settings, save_with_head
from prm.models.rows import Rows

Labels = Literal["hard", "soft", "three_way"]
NUM_CLASSES = {"hard": 2, "soft": 2, "three_way": 3}
IGNORED = -100.0


class StepHead(torch.nn.Module):  # type: ignore[misc]  # torch is not type-checked
    """Backbone and head; forward gives the logits at chosen positions."""

    head_learns_alone = False
    """The backbone is read and gets no gradient but zero, which costs no backward pass through it."""

    def __init__(self, backbone: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.model = backbone
        self.score = head

    def forward(self, rows: Rows, at: torch.Tensor) -> torch.Tensor:
        """[K, C] float32 logits at flat positions `at`."""
        if self.head_learns_alone and torch.is_grad_enabled():
            with torch.no_grad():
                hidden = self._hidden(rows)
            # Some ZeRO stages wait for the gradient of every parameter.
            nothing = 0.0 * sum(p.sum() for p in self.model.parameters() if p.requires_grad)
        else:
            hidden, nothing = self._hidden(rows), 0.0
        logits: torch.Tensor = self.score(hidden.flatten(0, 1).index_select(0, at)).float() + nothing
        return logits

    def _hidden(self, rows: Rows) -> torch.Tensor:
        return self.model(input_ids=rows.input_ids, use_cache=False, **rows.attention).last_hidden_state


def two_layer_head(width: int, num_classes: int, dtype: torch.dtype) -> torch.nn.Module:
    """The head of Qwen's process reward models."""
    layers = (torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, num_classes))
    return torch.nn.Sequential(*layers).to(dtype)


def new_classifier(path: str, labels: Labels, dtype: str) -> StepHead:
    """A fresh head on the backbone of a language model."""
    backbone = load_backbone(path, dtype)
    return StepHead(backbone, two_layer_head(backbone.config.hidden_size, NUM_CLASSES[labels], backbone.dtype))


def load_classifier(path: str, dtype: str) -> tuple[StepHead, Labels]:
    """A trained model, ours or in the layout of Qwen's. Raises ValueError when it has no such head."""
    tensors = read_tensors(path, "score.")
    if set(tensors) != {"0.weight", "0.bias", "2.weight", "2.bias"}:
        raise ValueError(
            f"{path!r} is no step classifier: expected tensors score.0 and score.2, found {sorted(tensors) or 'none'}; "
            "train one with `ponder prm train`"
        )
    labels: Labels = read_settings(path).get("labels", "hard")
    if tensors["2.weight"].shape[0] != NUM_CLASSES[labels]:
        raise ValueError(f"{path!r} has {tensors['2.weight'].shape[0]} classes, its labels {labels!r} need another")
    backbone = load_backbone(path, dtype)
    head = two_layer_head(backbone.config.hidden_size, NUM_CLASSES[labels], backbone.dtype)
    head.load_state_dict(tensors)
    return StepHead(backbone, head), labels


def save_classifier(model: StepHead, source: str, out_dir: str, settings: dict[str, object]) -> None:
    """Write the model; `settings` names at least `kind` and `labels`."""
    family = type(model.model).__name__.removesuffix("Model")
    save_with_head(model.model, model.score, source, out_dir, architecture=f"{family}ForProcessRewardModel")
    save_settings(out_dir, settings)


def good_logit(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    """[K] log-odds of a step that is not bad: its sigmoid is the score."""
    bad, rest = logits[:, 0], logits[:, 1:]
    return (rest.squeeze(-1) if labels != "three_way" else rest.logsumexp(-1)) - bad


def step_losses(logits: torch.Tensor, labels: torch.Tensor, kind: Labels) -> torch.Tensor:
    """[K] losses. Labels: hard 0 or 1; soft in [0, 1]; three-way -1, 0 or 1. Raises ValueError for any other label."""
    given = labels.detach().cpu().numpy()
    allowed = {
        "hard": np.isin(given, (0, 1)),
        "soft": (given >= 0) & (given <= 1),
        "three_way": np.isin(given, (-1, 0, 1)),
    }
    if not allowed[kind].all():
        raise ValueError(f"labels of kind {kind!r} cannot be {sorted(set(given[~allowed[kind]].tolist()))[:4]}")
    if kind == "soft":
        return (torch.softmax(logits, -1)[:, 1] - labels) ** 2
    return F.cross_entropy(logits, (labels + (kind == "three_way")).long(), reduction="none")
