"""Settings of preference optimization and of the pairs it learns from. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Beta = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class _Pairs(_Settings):
    max_per_task: PositiveInt = 4
    """Most pairs of one task, so that no task outweighs the others."""
    match: Literal["length", "random"] = "length"
    """Which right attempt meets which wrong one: those nearest in length, so that truth and not length is learned, or
    any."""
    min_pairs: PositiveInt = 1
    """Fewer pairs than this end the stage with the reasons counted."""


class SampledPairs(_Pairs):
    """Attempts of the model that the stage begins with, at training tasks, judged."""

    type: Literal["sampled"] = "sampled"
    """Selects this source."""
    num_tasks: PositiveInt = 512
    """Training tasks that are attempted, the first of the split."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Attempts at each."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature."""
    efforts: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Efforts that the tasks take turns in; None takes all of the recipe."""


class RecordedPairs(_Pairs):
    """Attempts that runs have recorded, with the verdicts they went by."""

    type: Literal["recorded"]
    """Selects this source."""
    runs: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Run directories; their tokenizer must be that of the model."""


class FilePairs(_Pairs):
    """Pairs that somebody else made."""

    type: Literal["file"]
    """Selects this source."""
    paths: Annotated[tuple[Text, ...], Field(min_length=1)]
    """Files of rows with prompt, answer (the reference), chosen and rejected: an answer, or thinking and answer."""
    verifier: Text = "math"
    """Verifier of the rows; one whose chosen is not right, or whose rejected is not wrong, is left out."""
    effort: str | None = None
    """Effort whose instruction the prompts carry; None takes the first of the recipe."""


PairsConfig = Annotated[SampledPairs | RecordedPairs | FilePairs, Field(discriminator="type")]


class PreferenceConfig(_Settings):
    """How pairs move the model: direct preference optimization."""

    num_steps: PositiveInt
    """Optimizer steps."""
    batch_size: PositiveInt = 16
    """Pairs per optimizer step."""
    loss: Literal["sigmoid", "sigmoid_norm", "hinge", "ipo"] = "sigmoid"
    """DPO's own; the same on log-probabilities per token (TULU 3, beta 5); a hinge; or IPO's square."""
    beta: PositiveFloat = 0.1
    """Strength of the pull towards the model that the stage began with; IPO's tau."""
    lr: PositiveFloat = 5e-7
    """Peak learning rate of AdamW."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """Decay rates of AdamW's first and second moments."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay, applied to every parameter."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it."""
    warmup_steps: NonNegativeInt = 0
    """Optimizer steps over which the learning rate rises linearly to `lr`."""
    schedule: Literal["constant", "cosine", "linear"] = "linear"
    """Shape of the learning rate after the warm-up."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of `lr` that a cosine or linear schedule reaches at the last step."""
    max_length: PositiveInt = 2048
    """Longest prompt and response together, in tokens; a pair with a longer one is left out, never cut."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Precision of weights and activations."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where it computes."""
    num_threads: PositiveInt = 2
    """CPU threads."""
    report_every: PositiveInt = 10
    """Steps between two progress reports."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_steps >= self.num_steps:
            raise ValueError(
                f"warmup_steps must be below num_steps, got {self.warmup_steps} and {self.num_steps}; "
                "lower warmup_steps"
            )
        return self
