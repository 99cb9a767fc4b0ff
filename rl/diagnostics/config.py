"""Settings of the diagnostics that look inside the model. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

ALPHA_RANKS = (11, 99)
"""First and last rank of the eigenvalues that alpha-ReQ is fitted to."""


class DiagnosticsConfig(BaseModel):
    """Looks inside the model at intervals. Each stops training for as long as it takes, so both are off by default."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    geometry_every: NonNegativeInt = 0
    """Steps between measurements of the geometry of hidden states (RankMe, alpha-ReQ), the first one before training;
    0 turns them off."""

    geometry_tasks: Annotated[int, Field(ge=2)] = 256
    """Held-out tasks whose prompts are looked at, always the same ones; twice the model's width is a good number."""

    gradient_every: NonNegativeInt = 0
    """Steps between measurements of the gradient of every layer on samples of the batch; 0 turns them off."""

    gradient_samples: PositiveInt = 8
    """Samples of the batch that are measured, one backward pass each."""
