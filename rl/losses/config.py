"""Settings of the policy losses. Imports pydantic only: the driver and `ponder --help` read this without torch."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TokenMean(_Settings):
    """Every loss token of the optimizer step weighs the same: sum over tokens / number of loss tokens (DAPO)."""

    type: Literal["token_mean"] = "token_mean"


class SequenceMean(_Settings):
    """Every sequence weighs the same: mean over its loss tokens, then mean over sequences (the GRPO paper)."""

    type: Literal["sequence_mean"] = "sequence_mean"


class DrGrpo(_Settings):
    """Sum over tokens / (number of sequences * a constant length): no length bias, no data-dependent step size."""

    type: Literal["dr_grpo"] = "dr_grpo"
    length: PositiveInt
    """Constant that stands for the length of a response, usually the largest response the budgets allow."""


Aggregation = Annotated[TokenMean | SequenceMean | DrGrpo, Field(discriminator="type")]


class PpoClip(_Settings):
    """Clipped token-level policy loss (PPO's surrogate, with GRPO-family advantages)."""

    type: Literal["ppo_clip"] = "ppo_clip"
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """How far below 1 the probability ratio of a token may fall before its gradient is cut."""
    clip_high: Annotated[float, Field(gt=0)] = 0.28
    """How far above 1 the probability ratio of a token may rise before its gradient is cut."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Largest ratio that still punishes a token with a negative advantage; None leaves that side unbounded."""
    aggregation: Aggregation = TokenMean()
    """How token losses are averaged over the optimizer step."""

    reward_kl_coefficient: ClassVar[float] = 0.0
    needs_reference: ClassVar[bool] = False
    takes_token_advantages: ClassVar[bool] = True


# One member today; further losses join as a union discriminated by `type`, each with its own file beside this one.
LossConfig = PpoClip
