"""Settings of the exploration bonus."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt


class ExplorationConfig(BaseModel):
    """A reward for siblings whose hidden states differ from the others'; see `rl/exploration/bonus.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    weight: PositiveFloat = 0.01
    """What a bonus of 1 adds to the reward."""

    ridge: PositiveFloat = 0.01
    """Added to the diagonal of the features' second moment; features far smaller than its root get no bonus."""

    dimension: PositiveInt = 32
    """Dimensions that features are projected to; below group_size - 1 where the bonus turns out flat."""

    form: Literal["leverage", "leave_one_out"] = "leverage"
    """The bonus itself, below 1, or its version without the sibling in the moment, which is unbounded."""

    scale: Literal["none", "unit_rms"] = "none"
    """Leave the centred features as they are, or scale those of a group to a mean squared norm of 1."""

    all_right: bool = False
    """Pay the bonus also where every answer is right: it is then the only difference, and estimators that divide by the
    deviation of a group make it as large as any other signal."""

    path: str | None = None
    """Model directory that gives the features; left out: the model that reinforcement learning starts from."""

    batch_tokens: Annotated[int, Field(ge=64)] = 8192
    """Token positions of one forward pass, padding included."""
