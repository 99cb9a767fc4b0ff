"""The implicit model trained on each batch of rollouts with their outcomes (PRIME, arXiv 2502.01456).

    loss = mean over judged responses of CE( beta * sum_t log-ratio_t , outcome )

One optimizer step a pass over the batch. The caller leaves out groups whose outcomes are all equal: they would teach
the share of right answers, not what makes one right. Before some updates, where the settings ask for it, the model is
looked at on labelled solutions (`prm/probe.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from prm.items import ScoreItem
from prm.models.backbone import save_causal, save_settings
from prm.models.implicit import ce_loss
from prm.models.scorer import ImplicitScorer
from prm.probe import Probe
from prm.train_engine import EngineSettings, Place, TrainEngine


class OnlineTrainer:
    """Optimizer beside an `ImplicitScorer`, whose weights it changes in place."""

    def __init__(self, scorer: ImplicitScorer) -> None:
        online = scorer.config.online
        if online is None:
            raise ValueError("this model is frozen; add [prm.online] to train it")
        self._scorer = scorer
        self._online = online
        bfloat16 = scorer.config.dtype == "bfloat16"
        settings = EngineSettings(
            lr=online.lr,
            max_grad_norm=online.max_grad_norm,
            zero_stage=1 if bfloat16 else 0,
            dtype=scorer.config.dtype,
            device=scorer.config.device,
        )
        self._engine = TrainEngine(scorer.model, settings, Place())
        self._probe: Probe | None = None
        if online.probe is not None:
            tokenizer = AutoTokenizer.from_pretrained(scorer.path)
            self._probe = Probe(online.probe, tokenizer, scorer.config.splitter)

    def update(self, items: Sequence[ScoreItem], labels: Sequence[float]) -> dict[str, float]:
        """Train on one batch; labels in [0, 1], one an item. Returns metrics of the model before the update.

        Raises NonFiniteTrainingError before the update that would have used such a value.
        """
        if len(items) != len(labels) or not items:
            raise ValueError(f"one label an item and at least one item, got {len(labels)} and {len(items)}")
        probed, metrics = self._look(), dict[str, float]()
        for epoch in range(self._online.epochs):
            rewards, loss = self._accumulate(items, labels)
            norm = self._engine.step()
            if epoch == 0:
                metrics = _metrics(rewards, labels) | {"loss": loss, "grad_norm": norm}
        self._scorer.version = self._engine.version
        return metrics | probed

    def _look(self) -> dict[str, float]:
        """Figures of the probe where one is due, at cumulative scores as in `ponder prm eval`."""
        num_updates = self._engine.version // self._online.epochs
        if self._probe is None or num_updates % self._probe.every:
            return {}
        answers = self._scorer.score(self._probe.items, cumulative=True)
        return self._probe.figures([answer.scores for answer in answers])

    def _accumulate(self, items: Sequence[ScoreItem], labels: Sequence[float]) -> tuple[list[float], float]:
        rewards, total = [0.0] * len(items), 0.0
        for rows in self._scorer.batches(items):
            placed, at, targets, owners = self._scorer.place(items, rows)
            ratios = self._engine.engine(placed, at, targets)
            ratios = ratios - self._scorer.reference_logprobs(placed, at, targets)
            order = list(placed.starts)
            slots = {index: slot for slot, index in enumerate(order)}
            slot_of = torch.tensor([slots[i] for i in owners.tolist()], dtype=torch.int64, device=ratios.device)
            sums = ratios.new_zeros(len(order)).index_add(0, slot_of, ratios) * self._scorer.config.beta
            truth = torch.tensor([labels[i] for i in order], dtype=torch.float32, device=ratios.device)
            loss = ce_loss(sums, truth).sum() / len(items)
            self._engine.backward(loss)
            total += float(loss.detach())
            for index, value in zip(order, sums.detach().tolist(), strict=True):
                rewards[index] = value
        return rewards, total

    def save(self, path: str) -> None:
        """Write `path/model`, a directory as `[prm] path` takes it, and all it takes to go on."""
        model_dir = str(Path(path) / "model")
        save_causal(self._scorer.model.model, self._scorer.path, model_dir)
        save_settings(model_dir, {"kind": "implicit", "beta": self._scorer.config.beta})
        self._engine.save(path)

    def load(self, path: str) -> None:
        """Go on from what `save` wrote."""
        self._engine.load(path)
        self._scorer.version = self._engine.version


def _metrics(rewards: Sequence[float], labels: Sequence[float]) -> dict[str, float]:
    """Outcome accuracy at 0, share of (right, wrong) pairs in order, and mean reward by outcome."""
    right = [r for r, label in zip(rewards, labels, strict=True) if label > 0.5]
    wrong = [r for r, label in zip(rewards, labels, strict=True) if label <= 0.5]
    hits = sum(r > 0 for r in right) + sum(r <= 0 for r in wrong)
    metrics = {"outcome_accuracy": hits / len(rewards)}
    if right and wrong:
        pairs = sum((a > b) + 0.5 * (a == b) for a in right for b in wrong)
        metrics["pair_accuracy"] = pairs / (len(right) * len(wrong))
    if right:
        metrics["reward_right"] = sum(right) / len(right)
    if wrong:
        metrics["reward_wrong"] = sum(wrong) / len(wrong)
    return metrics
