"""Training of a step scorer from a file of labels: one rank's work, from rows to a model directory.

    OUT/best/        the model with the lowest held-out loss so far, as `[prm] path` takes it
    OUT/last/        weights, optimizer and place in the data after the last evaluation: a rerun goes on from there
    OUT/train.json   settings, rows, every evaluation; "done" when it ended

With `head_epochs` there are two stages, first the head alone and then all of the model (PURE, arXiv 2504.15275), each
with a learning rate that rises and falls; only the second one ends early.

The loss of an update is the weighted mean over the labelled steps (solutions, pairs) of its batch, over all ranks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer

from prm.data import StepRow, split_rows
from prm.models.discriminative import StepHead
from prm.train_config import TrainConfig
from prm.train_engine import EngineSettings, Place, TrainEngine
from prm.train_examples import Example, Unit, class_weights, encode_row, joiner_of, micro_batches, units_of
from prm.train_tasks import Task, build_task

Report = Callable[[dict[str, Any]], None]
_LOG = "train.json"


def learning_rate(peak: float, warmup: float, step: int, total: int) -> float:
    """Linear warm-up over the first `warmup` share of the updates, then linear down to a tenth at the last one."""
    warm = max(1, round(warmup * total))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (1.0 - 0.9 * (step - warm + 1) / max(1, total - warm))


class Training:
    """One rank. `run` trains to the end, from the last evaluation if there is one."""

    def __init__(
        self,
        config: TrainConfig,
        rows: Sequence[StepRow],
        model_dir: str,
        out_dir: Path,
        place: Place,
        *,
        held_out: Sequence[StepRow] | None = None,
        report: Report,
    ) -> None:
        """Load model and rows. `held_out` None: a share of the questions of `rows`."""
        torch.set_num_threads(config.machine.threads)
        torch.manual_seed(config.seed)
        self._config = config
        self._out = out_dir
        self._place = place
        self._report = report
        self._device = torch.device(config.machine.device)
        tokenizer = AutoTokenizer.from_pretrained(model_dir)
        self._separator = separator_of(tokenizer, config)
        train, held = split_rows(rows, config.held_out, seed=config.seed) if held_out is None else (rows, held_out)
        self._train, self._held = (
            units_of([encode_row(row, tokenizer, config, self._separator) for row in part], config)
            for part in (train, held)
        )
        if not self._train or not self._held:
            side = "held-out" if self._train else "training"
            raise ValueError(
                f"no {side} row has anything to learn for kind {config.kind!r} ({len(train)} training and {len(held)} "
                "held-out rows); add labels, outcomes for the implicit model, or change held_out"
            )
        if config.tie and all(len(unit) == 1 for unit in self._train):
            raise ValueError("tie compares steps with neutral copies, and there is none; add --neutral, or set tie=0")
        self._weights = class_weights(self._train, config)
        self._task: Task = build_task(config, model_dir, self._device)
        machine = config.machine
        self._engine = TrainEngine(
            self._task.module,
            EngineSettings(
                lr=config.lr,
                weight_decay=config.weight_decay,
                max_grad_norm=config.max_grad_norm,
                zero_stage=machine.zero_stage,
                dtype=machine.dtype,
                device=machine.device,
            ),
            place,
        )
        self._per_epoch = math.ceil(len(self._train) / config.batch_size)
        self._of_head = self._per_epoch * config.head_epochs
        self._total = self._of_head + self._per_epoch * config.epochs
        self._history: list[dict[str, float]] = []

    def run(self) -> dict[str, Any]:
        """Train; returns what train.json says. Collective."""
        if (self._out / "last").is_dir():
            self._history = self._engine.load(str(self._out / "last"))["history"]
        every = max(1, self._total // self._config.evaluations)
        losses: list[float] = []
        while self._engine.version < self._total and not self._is_exhausted():
            losses.append(self._update(self._batch(self._engine.version)))
            step = self._engine.version
            if step % every == 0 or step == self._total:
                self._evaluate(float(np.mean(losses)))
                losses.clear()
        return self._finish()

    def _batch(self, step: int) -> list[Unit]:
        """The units of an update: a function of seed and step alone, so a resumed run sees the same."""
        epoch, at = divmod(step, self._per_epoch)
        order = np.random.default_rng([self._config.seed, epoch]).permutation(len(self._train))
        size = self._config.batch_size
        return [self._train[i] for i in order[at * size : (at + 1) * size].tolist()]

    def _update(self, batch: Sequence[Unit]) -> float:
        """One optimizer step; the loss of this rank's share."""
        self._task.module.train()
        step, config = self._engine.version, self._config
        head_alone = step < self._of_head
        if isinstance(self._task.module, StepHead):
            self._task.module.head_learns_alone = head_alone
        normalizer = sum(self._task.weight(unit, self._weights) for unit in batch)
        shares = [batch[rank :: self._place.num_ranks] for rank in range(self._place.num_ranks)]
        tokens = self._config.machine.batch_tokens
        # Every rank makes as many backward passes as the busiest: some ZeRO stages meet in each of them.
        passes = max(len(micro_batches(share, tokens)) for share in shares)
        mine = micro_batches(shares[self._place.rank], tokens)
        total = 0.0
        for index in range(passes):
            if index < len(mine):
                loss = self._task.loss(self._engine.engine, mine[index], self._weights) / normalizer
            else:
                loss = sum(p.sum() for p in self._task.module.parameters() if p.requires_grad) * 0.0
            self._engine.backward(loss)
            total += float(loss.detach())
        if head_alone:
            lr = learning_rate(config.head_lr, config.warmup, step, self._of_head)
        else:
            lr = learning_rate(config.lr, config.warmup, step - self._of_head, self._total - self._of_head)
        self._engine.step(lr, head_alone=head_alone)
        return total

    def _evaluate(self, train_loss: float) -> None:
        """Measure on the held-out rows, keep the model if it is the best, save the place. Collective."""
        self._task.module.eval()
        entry = {"step": float(self._engine.version), "train_loss": train_loss}
        if self._place.rank == 0:
            entry |= self._measure()
        entry = _from_first(entry, self._place)
        is_best = all(entry["loss"] < earlier["loss"] for earlier in self._history)
        self._history.append(entry)
        if is_best and self._place.rank == 0:
            self._task.save(str(self._out / "best"), self._settings({}))
        self._engine.save(str(self._out / "last"), {"history": self._history})
        if self._place.rank == 0:
            self._write(done=False)
            self._report({**entry, "total": self._total, "best": is_best})

    def _measure(self) -> dict[str, float]:
        sums, weight = 0.0, 0.0
        with torch.no_grad():
            for units in micro_batches(self._held, self._config.machine.batch_tokens):
                sums += float(self._task.loss(self._task.module, units, self._weights))
                weight += sum(self._task.weight(unit, self._weights) for unit in units)
        return {"loss": sums / weight, **self._task.figures(self._examples(), self._config.machine.batch_tokens)}

    def _examples(self) -> list[Example]:
        return list({id(e): e for unit in self._held for e in unit}.values())

    def _is_exhausted(self) -> bool:
        """No better held-out loss for `patience` evaluations."""
        losses = [entry["loss"] for entry in self._history if entry["step"] > self._of_head]
        return len(losses) > self._config.patience and min(losses) < min(losses[-self._config.patience :])

    def _finish(self) -> dict[str, Any]:
        """Calibrate the best model on the held-out rows. Collective."""
        summary: dict[str, Any] = {}
        if self._place.rank == 0:
            calibration = self._task.calibrate(
                str(self._out / "best"), self._examples(), self._config.machine.batch_tokens, self._config.calibration
            )
            self._task.write_settings(str(self._out / "best"), self._settings(calibration))
            summary = self._write(done=True)
        return summary

    def _settings(self, calibration: dict[str, Any]) -> dict[str, Any]:
        settings: dict[str, Any] = {"kind": self._config.kind, "separator_id": self._separator}
        settings["joiner"] = joiner_of(self._config)
        if self._config.kind == "implicit":
            return settings | {"beta": self._config.beta, "objective": self._config.objective}
        return settings | {"labels": self._config.labels, "calibration": calibration}

    def _write(self, *, done: bool) -> dict[str, Any]:
        summary = {
            "done": done,
            "settings": self._config.model_dump(mode="json"),
            "train_units": len(self._train),
            "held_out_units": len(self._held),
            "updates": self._engine.version,
            "evaluations": self._history,
        }
        partial = self._out / f"{_LOG}.partial"
        partial.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._out / _LOG)
        return summary


def separator_of(tokenizer: Any, config: TrainConfig) -> int | None:
    """Id of the separator token. Raises ValueError for a text that is not one token of the vocabulary."""
    if not config.separator:
        return None
    found = tokenizer.convert_tokens_to_ids(config.separator)
    if found is None or found == tokenizer.unk_token_id:
        raise ValueError(
            f"separator {config.separator!r} is no token of the model; name one of its tokens, or leave it empty"
        )
    return int(found)


def _from_first(entry: dict[str, float], place: Place) -> dict[str, float]:
    """What rank 0 measured, on every rank: all decide alike."""
    if place.num_ranks == 1:
        return entry
    shared: list[dict[str, float]] = [entry]
    torch.distributed.broadcast_object_list(shared, src=0)
    return shared[0]
