"""What is trained: the module, its loss on a micro-batch, and figures on held-out rows, for each kind of model."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import numpy as np
import torch

from prm import calibration
from prm.evaluate import auc
from prm.items import ScoreItem
from prm.models.backbone import load_causal, save_causal, save_settings
from prm.models.config import DiscriminativePrmConfig, ValuePrmConfig
from prm.models.discriminative import StepHead, good_logit, new_classifier, save_classifier, step_losses
from prm.models.implicit import TokenLogprobs, ce_loss, dpo_loss, targets_of
from prm.models.rows import Rows, lay_out
from prm.models.scorer import good_probability, load_scorer, value_probability
from prm.models.tie import tie_losses
from prm.models.value import new_value, save_value, value_losses
from prm.train_config import TrainConfig
from prm.train_examples import Example, Unit, micro_batches

Forward = Callable[..., torch.Tensor]
Weights = Mapping[float, float]


class Task(Protocol):
    """One kind of model in training."""

    module: torch.nn.Module

    def loss(self, forward: Forward, units: Sequence[Unit], weights: Weights) -> torch.Tensor:
        """Weighted sum of the losses of a micro-batch."""
        ...

    def weight(self, unit: Unit, weights: Weights) -> float:
        """What a unit counts in the mean."""
        ...

    def figures(self, examples: Sequence[Example], batch_tokens: int) -> dict[str, float]:
        """Further figures on held-out examples."""
        ...

    def save(self, out_dir: str, settings: dict[str, Any]) -> None: ...

    def write_settings(self, out_dir: str, settings: dict[str, Any]) -> None: ...

    def calibrate(
        self, saved: str, examples: Sequence[Example], batch_tokens: int, method: calibration.Method
    ) -> dict[str, Any]:
        """A calibration of the saved model on held-out examples; empty for a model without probabilities."""
        ...


def build_task(config: TrainConfig, model_dir: str, device: torch.device) -> Task:
    if config.kind == "implicit":
        return ImplicitTask(config, model_dir, device)
    return HeadTask(config, model_dir, device)


def _placed(examples: Sequence[Example], device: torch.device) -> Rows:
    """One example a row."""
    return lay_out([e.token_ids for e in examples], [[i] for i in range(len(examples))], device)


def _num_tied(first: Example, second: Example) -> int:
    """Steps that both reach."""
    return min(len(first.positions), len(second.positions))


class HeadTask:
    """A classifier or a value at the end of each step."""

    def __init__(self, config: TrainConfig, model_dir: str, device: torch.device) -> None:
        self._config = config
        self._source = model_dir
        self._device = device
        dtype = config.machine.dtype
        model = (
            new_value(model_dir, dtype) if config.kind == "value" else new_classifier(model_dir, config.labels, dtype)
        )
        self.module: StepHead = model.to(device)

    def loss(self, forward: Forward, units: Sequence[Unit], weights: Weights) -> torch.Tensor:
        examples = [e for unit in units for e in unit]
        every, given = self._logits(forward, examples, labelled=not self._config.tie)
        known = ~torch.isnan(given)
        logits, targets = every[known], given[known]
        if self._config.kind == "value":
            losses = value_losses(logits, targets)
        else:
            losses = step_losses(logits, targets, self._config.labels)
        scale = torch.tensor([weights.get(t, 1.0) for t in targets.tolist()], device=losses.device)
        total: torch.Tensor = (losses * scale).sum()
        if self._config.tie:
            total = total + self._config.tie * self._ties(every, units).sum()
        return total

    def weight(self, unit: Unit, weights: Weights) -> float:
        labels = sum(weights.get(t, 1.0) for e in unit for t in e.targets if not math.isnan(t))
        return labels + self._config.tie * (_num_tied(*unit) if len(unit) == 2 else 0)

    def _ties(self, logits: torch.Tensor, units: Sequence[Unit]) -> torch.Tensor:
        """[K] losses between each step of an original and the same step of its copy; `logits` at all positions."""
        odds = self._log_odds(logits)
        ends = np.cumsum([0, *(len(e.positions) for unit in units for e in unit)])
        parts, at = [odds.new_zeros(0)], 0
        for unit in units:
            if len(unit) == 2:
                size = _num_tied(*unit)
                parts.append(tie_losses(odds[ends[at] :][:size], odds[ends[at + 1] :][:size]))
            at += len(unit)
        return torch.cat(parts)

    def _log_odds(self, logits: torch.Tensor) -> torch.Tensor:
        """[K] whose sigmoid is the score (tanh v = 2 sigma(2 v) - 1)."""
        return 2 * logits.squeeze(-1) if self._config.kind == "value" else good_logit(logits, self._config.labels)

    def scores(self, examples: Sequence[Example], batch_tokens: int) -> list[list[float]]:
        """Uncalibrated probabilities at the positions of each example."""
        found: dict[int, list[float]] = {}
        for units in micro_batches([(e,) for e in examples], batch_tokens):
            part = [e for unit in units for e in unit]
            with torch.no_grad():
                logits, _ = self._logits(self.module, part, labelled=False)
                raw = self._probability(logits).cpu().tolist()
            at = 0
            for example in part:
                found[id(example)] = raw[at : at + len(example.positions)]
                at += len(example.positions)
        return [found[id(e)] for e in examples]

    def figures(self, examples: Sequence[Example], batch_tokens: int) -> dict[str, float]:
        scores, truths = self._hard(self.scores(examples, batch_tokens), examples)
        figures = {"auc": auc(scores, truths), "ece": calibration.expected_calibration_error(scores, truths)}
        return {name: value for name, value in figures.items() if not math.isnan(value)}

    def save(self, out_dir: str, settings: dict[str, Any]) -> None:
        save = save_value if self._config.kind == "value" else save_classifier
        save(self.module, self._source, out_dir, settings)

    def write_settings(self, out_dir: str, settings: dict[str, Any]) -> None:
        save_settings(out_dir, settings)

    def calibrate(
        self, saved: str, examples: Sequence[Example], batch_tokens: int, method: calibration.Method
    ) -> dict[str, Any]:
        size: dict[str, Any] = {
            "max_tokens": self._config.machine.max_tokens,
            "batch_tokens": self._config.machine.batch_tokens,
        }
        served = ValuePrmConfig if self._config.kind == "value" else DiscriminativePrmConfig
        best = load_scorer(served(path=saved, dtype=self._config.machine.dtype, **size))
        items = [ScoreItem(token_ids=e.item.token_ids, sampled=e.item.sampled, spans=e.item.spans) for e in examples]
        scores = [a.scores[: len(e.positions)].tolist() for a, e in zip(best.score(items), examples, strict=True)]
        found, truths = self._hard(scores, examples)
        return calibration.fit(method, found, truths) if found.size else {}

    def _logits(
        self, forward: Forward, examples: Sequence[Example], *, labelled: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[K, C] at all positions, or at those with a target, and the targets [K]."""
        rows = _placed(examples, self._device)
        flat, targets = [], []
        for index, start in rows.starts.items():
            for position, target in zip(examples[index].positions, examples[index].targets, strict=True):
                if not labelled or not math.isnan(target):
                    flat.append(start + position)
                    targets.append(target)
        at = torch.tensor(flat, dtype=torch.int64, device=self._device)
        return forward(rows, at), torch.tensor(targets, dtype=torch.float32, device=self._device)

    def _probability(self, logits: torch.Tensor) -> torch.Tensor:
        return (
            value_probability(logits) if self._config.kind == "value" else good_probability(logits, self._config.labels)
        )

    def _hard(
        self, scores: Sequence[Sequence[float]], examples: Sequence[Example]
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Scores and labels in [0, 1] of all labelled steps."""
        found = np.asarray([s for part in scores for s in part], np.float64)
        given = np.asarray([t for e in examples for t in e.targets], np.float64)
        if self._config.kind == "value":
            given = (1 + given) / 2
        elif self._config.labels == "three_way":
            given = np.where(np.isnan(given), np.nan, given >= 0)
        known = ~np.isnan(given) & ~np.isnan(found)
        return found[known], given[known]


class ImplicitTask:
    """The log-ratio to the model that it starts from."""

    def __init__(self, config: TrainConfig, model_dir: str, device: torch.device) -> None:
        self._config = config
        self._source = model_dir
        self._device = device
        self.module = TokenLogprobs(load_causal(model_dir, config.machine.dtype)).to(device)
        self._reference = TokenLogprobs(load_causal(model_dir, config.machine.dtype)).to(device).eval()
        self._reference.requires_grad_(False)

    def loss(self, forward: Forward, units: Sequence[Unit], weights: Weights) -> torch.Tensor:
        rewards = self._rewards(forward, [e for unit in units for e in unit])
        if self._config.objective == "dpo":
            return dpo_loss(rewards[0::2], rewards[1::2]).sum()
        truth = torch.tensor([unit[0].outcome for unit in units], dtype=torch.float32, device=rewards.device)
        return ce_loss(rewards, truth).sum()

    def weight(self, unit: Unit, weights: Weights) -> float:
        return 1.0

    def figures(self, examples: Sequence[Example], batch_tokens: int) -> dict[str, float]:
        rewards: dict[int, float] = {}
        for units in micro_batches([(e,) for e in examples], batch_tokens):
            part = [unit[0] for unit in units]
            with torch.no_grad():
                found = self._rewards(self.module, part).tolist()
            rewards |= {id(e): r for e, r in zip(part, found, strict=True)}
        value = auc([rewards[id(e)] for e in examples], [float(e.outcome > 0.5) for e in examples])
        return {} if math.isnan(value) else {"outcome_auc": value}

    def save(self, out_dir: str, settings: dict[str, Any]) -> None:
        save_causal(self.module.model, self._source, out_dir)
        save_settings(out_dir, settings)

    def write_settings(self, out_dir: str, settings: dict[str, Any]) -> None:
        save_settings(out_dir, settings)

    def calibrate(
        self, saved: str, examples: Sequence[Example], batch_tokens: int, method: calibration.Method
    ) -> dict[str, Any]:
        return {}

    def _rewards(self, forward: Forward, examples: Sequence[Example]) -> torch.Tensor:
        """[N] reward of each whole solution."""
        rows = _placed(examples, self._device)
        place = targets_of(rows, [e.token_ids for e in examples], [e.sampled for e in examples], self._device)
        at, labels, owners = place
        with torch.no_grad():
            base = self._reference(rows, at, labels)
        ratios = forward(rows, at, labels) - base
        sums = cast(torch.Tensor, ratios.new_zeros(len(examples)).index_add(0, owners, ratios))
        return sums * self._config.beta
