"""Settings of the cold start: supervised training on worked solutions before reinforcement learning."""

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


class SftConfig(BaseModel):
    """How worked solutions become a first policy."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    num_steps: PositiveInt
    """Optimizer steps."""
    batch_size: PositiveInt = 32
    """Solutions per optimizer step."""
    num_examples: PositiveInt | None = None
    """Solutions drawn from the tasks and repeated in a new order when used up; None draws one for every use."""
    mix: Annotated[dict[str, NonNegativeFloat], Field(min_length=1)] | None = None
    """Relative share of each effort among the solutions; None takes the efforts' weights."""
    lr: PositiveFloat = 2e-5
    """Peak learning rate of AdamW."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """Decay rates of AdamW's first and second moments."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay, applied to every parameter."""
    max_grad_norm: PositiveFloat = 1.0
    """Largest global gradient norm; larger gradients are scaled down to it."""
    warmup_steps: NonNegativeInt = 50
    """Optimizer steps over which the learning rate rises linearly to `lr`."""
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of `lr` that a cosine or linear schedule reaches at the last step."""
    max_length: PositiveInt = 2048
    """Longest prompt and solution together, in tokens; a longer one is refused, never cut."""
    dtype: Literal["bfloat16", "float32"] = "float32"
    """Precision of weights and activations."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the cold start computes."""
    num_threads: PositiveInt = 2
    """CPU threads."""
    report_every: PositiveInt = 50
    """Steps between two progress reports."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_steps >= self.num_steps:
            raise ValueError(
                f"warmup_steps must be below num_steps, got {self.warmup_steps} and {self.num_steps}; "
                "lower warmup_steps"
            )
        if self.mix is not None and sum(self.mix.values()) <= 0:
            raise ValueError(f"mix must give at least one effort a positive share, got {self.mix}")
        return self

    @property
    def num_draws(self) -> int:
        """Distinct solutions that the cold start is given."""
        return self.num_examples or self.num_steps * self.batch_size
