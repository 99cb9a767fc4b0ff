"""Settings of objective re-weighting. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from rl.losses.term_config import Settings


class RecapConfig(Settings):
    """RECAP: weights of data domains and reward components that follow how their rewards move."""

    reading: Literal["recommended", "paper", "code"] = "recommended"
    """The formula: ours, which lifts what gets worse; the paper's own; or that of its released trainer."""
    over: Annotated[tuple[Literal["domains", "components"], ...], Field(min_length=1)] = ("domains",)
    """What is weighed: the advantages of the sources of tasks, the components of the reward, or both."""
    window: Annotated[int, Field(ge=2)] = 10
    """Steps in each of the two windows that are compared; every weight is 1 until both are full."""
    temperature: PositiveFloat = 5.0
    """Softness of the weights: 5 moves a weight by a third at most, 1 by a factor of several."""
