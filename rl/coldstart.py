"""Cold start: supervised training on worked solutions, with TRL's `SFTTrainer`.

Loss per step = mean over the solution tokens of the batch of -log p(token | everything before it); prompt tokens only
condition. The rows arrive tokenized, so nothing is rendered, cut or packed here, and the rendering of the rollouts is
the only one there is.

Rows are put into batches of near-equal length up front, and the batches into a random order. The trainer's own length
grouping walks every block of batches from its longest to its shortest rows, which ties the learning rate to the length.

Runs in a process of its own: the trainer sets seeds, thread counts and the global state of `accelerate`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, TypedDict

import numpy as np
import torch
from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import SFTConfig as TrlConfig
from trl import SFTTrainer

from rl.coldstart_config import SftConfig
from rl.learner.config import LearnerConfig
from rl.learner.model import load_model, save_model
from rl.learner.schedule import learning_rate
from rl.trl_arguments import trainer_arguments

IGNORED = -100  # label of a token without loss, as transformers define it
BATCHES_PER_BLOCK = 50  # rows are sorted by length within blocks of this many batches, so that batches stay random


class OptimizerSettings(Protocol):
    """What a supervised phase says of its steps: a section of a recipe."""

    @property
    def num_steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def betas(self) -> tuple[float, float]: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def warmup_steps(self) -> int: ...
    @property
    def schedule(self) -> Literal["constant", "cosine", "linear"]: ...
    @property
    def final_lr_fraction(self) -> float: ...


class SftRow(TypedDict):
    """One solution: token ids of prompt and response, and 1 where the token belongs to the response."""

    input_ids: list[int]
    completion_mask: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SftProgress:
    """Where the cold start stands; `loss` is the mean since the last report, `eta_s` the seconds still to go."""

    step: int
    num_steps: int
    loss: float
    seconds: float
    eta_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SftResult:
    """What the cold start did. Tokens count prompt and solution, without padding; `padding` is the share of padding."""

    num_steps: int
    num_rows: int
    first_loss: float
    final_loss: float
    seconds: float
    start_seconds: float
    tokens: int
    tokens_per_s: float
    padding: float


def run_sft(
    config: SftConfig,
    rows: Sequence[SftRow],
    model_dir: str,
    out_dir: str,
    *,
    seed: int,
    progress: Callable[[SftProgress], None],
) -> SftResult:
    """Train the model in `model_dir` on `rows`; write it, with its tokenizer, to `out_dir` in Hugging Face format.

    Raises:
        ValueError: no rows; a row without tokens, without a token to learn, longer than `config.max_length`, with a
            mask of another length, or with a token outside the vocabulary.
        FloatingPointError: the loss became infinite or not a number.
    """
    started = time.monotonic()
    torch.set_num_threads(config.num_threads)
    model = load_model(model_dir, LearnerConfig(device=config.device, layout="buckets"))
    check_rows(rows, max_length=config.max_length, vocab_size=model.config.vocab_size)
    order = batch_order([len(row["input_ids"]) for row in rows], config=config, seed=seed)
    meter = _Meter(config.num_steps, progress)
    with TemporaryDirectory(prefix="ponder-sft-") as scratch:
        trainer = SFTTrainer(
            model=model,
            args=TrlConfig(**trainer_arguments(config, scratch, seed), dataset_kwargs={"skip_prepare_dataset": True}),
            train_dataset=_dataset(rows, order),
            processing_class=AutoTokenizer.from_pretrained(model_dir),
            callbacks=[meter],
            optimizers=build_optimizer(config, model),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    save_model(model, model.state_dict(), model_dir, out_dir)
    lengths = np.array([len(rows[i]["input_ids"]) for i in order]).reshape(config.num_steps, config.batch_size)
    tokens, padded = int(lengths.sum()), int(lengths.max(axis=1).sum()) * config.batch_size
    return SftResult(
        num_steps=config.num_steps,
        num_rows=len(rows),
        first_loss=meter.losses[0],
        final_loss=meter.losses[-1],
        seconds=meter.seconds,
        start_seconds=meter.started - started,
        tokens=tokens,
        tokens_per_s=tokens / meter.seconds,
        padding=1.0 - tokens / padded,
    )


def check_rows(rows: Sequence[SftRow], *, max_length: int, vocab_size: int) -> None:
    """Refuse rows that would train on nothing, be cut, or index outside the embedding; see `run_sft` for the errors."""
    if not rows:
        raise ValueError("the cold start got no worked solutions; give it some or drop the [sft] section")
    for index, row in enumerate(rows):
        ids, mask = row["input_ids"], row["completion_mask"]
        if len(ids) != len(mask):
            raise ValueError(f"row {index}: {len(ids)} tokens but a completion_mask of {len(mask)}")
        if not any(mask):
            raise ValueError(f"row {index}: none of its {len(ids)} tokens belongs to a solution; render one for it")
        if len(ids) > max_length:
            raise ValueError(
                f"row {index}: {len(ids)} tokens exceed sft.max_length = {max_length}; raise it or drop such solutions"
            )
        if not 0 <= min(ids) <= max(ids) < vocab_size:
            raise ValueError(
                f"row {index}: token ids from {min(ids)} to {max(ids)} do not fit a vocabulary of {vocab_size}; "
                "render with the tokenizer of this model"
            )


def batch_order(lengths: Sequence[int], *, config: OptimizerSettings, seed: int) -> list[int]:
    """Indices of the rows of all batches, one batch after the other: `num_steps * batch_size` of them.

    Every row is used before any is used again. Rows are drawn in random order, sorted by length inside blocks of
    `BATCHES_PER_BLOCK` batches, and the batches of a block are shuffled.
    """
    rng = np.random.default_rng([1, seed])
    needed = config.num_steps * config.batch_size
    passes = math.ceil(needed / len(lengths))
    drawn = np.concatenate([rng.permutation(len(lengths)) for _ in range(passes)])[:needed]
    keys = np.asarray(lengths)
    batches: list[np.ndarray] = []
    block_size = BATCHES_PER_BLOCK * config.batch_size
    for block in np.split(drawn, range(block_size, needed, block_size)):
        ordered = block[np.argsort(keys[block], kind="stable")].reshape(-1, config.batch_size)
        batches.extend(rng.permutation(ordered))
    return [int(i) for batch in batches for i in batch]


def _dataset(rows: Sequence[SftRow], order: Sequence[int]) -> Dataset:
    labels = [
        [token if kept else IGNORED for token, kept in zip(row["input_ids"], row["completion_mask"], strict=True)]
        for row in rows
    ]
    return Dataset.from_dict({"input_ids": [rows[i]["input_ids"] for i in order], "labels": [labels[i] for i in order]})


def build_optimizer(
    config: OptimizerSettings, model: torch.nn.Module
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """AdamW and its schedule, which is the learner's."""
    shape = LearnerConfig(
        lr=config.lr,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
        final_lr_fraction=config.final_lr_fraction,
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )

    def factor(step: int) -> float:
        return learning_rate(shape, step, config.num_steps) / config.lr

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class _Meter(TrainerCallback):  # type: ignore[misc]  # transformers is not type-checked
    """Turns the trainer's log into progress reports and stops it at the first loss that is not finite."""

    def __init__(self, num_steps: int, progress: Callable[[SftProgress], None]) -> None:
        self._num_steps = num_steps
        self._progress = progress
        self._ended = math.nan
        self.started = math.nan
        self.losses: list[float] = []

    @property
    def seconds(self) -> float:
        return self._ended - self.started

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.started = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, *, logs: Mapping[str, float], **_: Any) -> None:
        if "loss" not in logs:
            return  # the summary at the end
        step, loss = int(state.global_step), float(logs["loss"])
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss of the cold start is {loss} at step {step}: lower sft.lr or raise sft.warmup_steps"
            )
        self.losses.append(loss)
        seconds = time.monotonic() - self.started
        eta = seconds / step * (self._num_steps - step)
        self._progress(SftProgress(step=step, num_steps=self._num_steps, loss=loss, seconds=seconds, eta_s=eta))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._ended = time.monotonic()
