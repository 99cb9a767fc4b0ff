"""Direct preference optimization, with TRL's `DPOTrainer`.

    margin = log pi(chosen) / ref(chosen) - log pi(rejected) / ref(rejected)      loss = -log sigmoid(beta * margin)

ref is the model as it was before the first step. Pairs arrive tokenized, so nothing is rendered or cut here: the tokens
are those that the policy sampled. Source: Rafailov et al. 2023 (arXiv 2305.18290); per token (`sigmoid_norm`): TULU 3.

Runs in a process of its own, as the cold start does and for the same reasons.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer

from rl.coldstart import batch_order, build_optimizer
from rl.learner.config import LearnerConfig
from rl.learner.model import load_model, save_model
from rl.preference.config import PreferenceConfig
from rl.preference.pairs import Pair
from rl.trl_arguments import trainer_arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceResult:
    """What it did. `accuracy` is the share of pairs in a batch whose chosen response gained more than its rejected one,
    `margin` the mean of beta * margin; both at the first and the last report."""

    num_steps: int
    num_pairs: int
    first_loss: float
    final_loss: float
    first_accuracy: float
    final_accuracy: float
    final_margin: float
    seconds: float


def run_dpo(
    config: PreferenceConfig,
    pairs: Sequence[Pair],
    model_dir: str,
    out_dir: str,
    *,
    seed: int,
    progress: Callable[[tuple[int, float]], None],
) -> PreferenceResult:
    """Train the model in `model_dir` on `pairs`; write it, with its tokenizer, to `out_dir`. `progress` gets step and
    loss.

    Raises:
        ValueError: no pairs, or a token outside the vocabulary.
        FloatingPointError: the loss became infinite or not a number.
    """
    torch.set_num_threads(config.num_threads)
    place = LearnerConfig(device=config.device, layout="buckets")
    model, reference = (load_model(model_dir, place) for _ in range(2))
    _check(pairs, vocab_size=model.config.vocab_size)
    order = batch_order([len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs], config=config, seed=seed)
    meter = _Meter(progress)
    with TemporaryDirectory(prefix="ponder-dpo-") as scratch:
        trainer = _Tokenized(
            model=model,
            ref_model=reference,
            args=DPOConfig(**trainer_arguments(config, scratch, seed), loss_type=[config.loss], beta=config.beta),
            train_dataset=_dataset([pairs[i] for i in order]),
            processing_class=AutoTokenizer.from_pretrained(model_dir),
            callbacks=[meter],
            optimizers=build_optimizer(config, model),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    save_model(model, model.state_dict(), model_dir, out_dir)
    return PreferenceResult(
        num_steps=config.num_steps,
        num_pairs=len(pairs),
        first_loss=meter.logs[0]["loss"],
        final_loss=meter.logs[-1]["loss"],
        first_accuracy=meter.logs[0]["rewards/accuracies"],
        final_accuracy=meter.logs[-1]["rewards/accuracies"],
        final_margin=meter.logs[-1]["rewards/margins"],
        seconds=meter.seconds,
    )


class _Tokenized(DPOTrainer):  # type: ignore[misc]  # trl is not type-checked
    """Takes the tokens as they are, in the order they are given."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        return dataset


def _check(pairs: Sequence[Pair], *, vocab_size: int) -> None:
    if not pairs:
        raise ValueError("preference optimization got no pairs; see the reasons that were counted, or drop the stage")
    for pair in pairs:
        tokens = (*pair.prompt, *pair.chosen, *pair.rejected)
        if not 0 <= min(tokens) <= max(tokens) < vocab_size:
            raise ValueError(
                f"a pair of task {pair.task_key} has token ids from {min(tokens)} to {max(tokens)}, and the vocabulary "
                f"has {vocab_size}; take pairs of a model with this tokenizer"
            )


def _dataset(pairs: Sequence[Pair]) -> Dataset:
    return Dataset.from_dict(
        {
            "prompt_ids": [list(p.prompt) for p in pairs],
            "chosen_ids": [list(p.chosen) for p in pairs],
            "rejected_ids": [list(p.rejected) for p in pairs],
        }
    )


class _Meter(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Keeps the trainer's log, and stops it at the first loss that is not finite."""

    def __init__(self, progress: Callable[[tuple[int, float]], None]) -> None:
        self._progress = progress
        self._started = self._ended = math.nan
        self.logs: list[Mapping[str, float]] = []

    @property
    def seconds(self) -> float:
        return self._ended - self._started

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Mapping[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return  # the summary at the end
        kept = {name: float(logs[name]) for name in ("loss", "rewards/accuracies", "rewards/margins")}
        if not math.isfinite(kept["loss"]):
            raise FloatingPointError(
                f"the loss of preference optimization is {kept['loss']} at step {state.global_step}: lower its lr or "
                "raise its warmup_steps"
            )
        self.logs.append(kept)
        self._progress((int(state.global_step), kept["loss"]))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._ended = time.monotonic()
