"""Settings of training a step scorer on a file of labels. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from prm.config import Section

Fraction = Annotated[float, Field(ge=0, le=1)]


class MachineConfig(Section):
    """Processes and precision."""

    num_ranks: PositiveInt = 1
    """Processes on this machine, each with a share of every batch; with cuda one GPU each."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the ranks compute."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of weights and activations; bfloat16 keeps float32 master weights."""
    zero_stage: Annotated[int, Field(ge=0, le=2)] = 0
    """What is split over ranks: 0 nothing, 1 the optimizer's state, 2 gradients, too."""
    batch_tokens: Annotated[int, Field(ge=8)] = 8192
    """Most token positions of one forward pass, padding included."""
    max_tokens: Annotated[int, Field(ge=8)] = 4096
    """Longest solution; one that is longer keeps its first whole steps and their labels."""
    threads: PositiveInt = 1
    """CPU threads of a rank."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_tokens < 2 * self.max_tokens:
            raise ValueError(
                f"batch_tokens = {self.batch_tokens} must hold two solutions of max_tokens = {self.max_tokens} (a pair "
                "is never parted); raise the first or lower the second"
            )
        if self.dtype == "bfloat16" and self.zero_stage == 0:
            raise ValueError("dtype bfloat16 needs zero_stage 1 or 2, which keep float32 master weights")
        return self


class TrainConfig(Section):
    """How labels become a model."""

    kind: Literal["discriminative", "value", "implicit"] = "discriminative"
    """A classifier or a value at the end of each step, or a log-ratio trained on outcomes alone."""
    labels: Literal["hard", "soft", "three_way"] = "hard"
    """What the classifier's labels are; rows of another kind are converted where that loses nothing, else refused."""
    objective: Literal["ce", "dpo"] = "ce"
    """Loss of the implicit model: each outcome by itself, or pairs of a right and a wrong answer to one question."""
    beta: PositiveFloat = 0.05
    """Scale of the implicit model's log-ratio."""
    separator: str = ""
    """A token of the model's vocabulary that is put behind each step and read; left empty, a step's own last token."""
    joiner: str = "\n\n"
    """What stands between two steps of rows that are text alone."""
    lr: PositiveFloat = 1e-5
    """Peak learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of the matrices."""
    warmup: Fraction = 0.03
    """Share of the updates over which the learning rate rises; afterwards it falls linearly to a tenth."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest gradient norm; larger gradients are scaled down to it."""
    epochs: PositiveInt = 1
    """Passes over the rows."""
    head_epochs: Annotated[int, Field(ge=0)] = 0
    """Passes before those of `epochs` in which the head alone learns, on the model as it is (PURE: 3)."""
    head_lr: PositiveFloat = 1e-4
    """Peak learning rate of `head_epochs`."""
    batch_size: PositiveInt = 128
    """Solutions (or pairs) of one update, over all ranks."""
    max_class_weight: Annotated[float, Field(ge=1)] = 3.0
    """Hard labels are weighted by inverse frequency up to this; 1 weighs all alike."""
    tie: NonNegativeFloat = 0.0
    """Weight of the loss for steps whose neutral copy scores differently, beside 1 for a label; Crome takes 1."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the questions that is kept for evaluation, early stop and calibration."""
    evaluations: PositiveInt = 10
    """Evaluations on the held-out rows, evenly spread over the training."""
    patience: PositiveInt = 3
    """Evaluations in a row without a lower held-out loss after which training ends; the best model is kept."""
    calibration: Literal["none", "temperature", "isotonic"] = "temperature"
    """How scores are made to mean probabilities on the held-out rows (not for the implicit model)."""
    machine: MachineConfig = MachineConfig()
    """Where and how the model computes."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Order of the rows, split, and the head's first weights."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind != "implicit" and self.objective != "ce":
            raise ValueError(f"objective {self.objective!r} is the implicit model's; kind is {self.kind!r}")
        if self.kind == "implicit" and self.head_epochs:
            raise ValueError(f"head_epochs = {self.head_epochs} train a head, and kind 'implicit' has none; set 0")
        if self.kind == "implicit" and self.tie:
            raise ValueError(f"tie = {self.tie:g} compares step scores, and kind 'implicit' learns from outcomes alone")
        return self
