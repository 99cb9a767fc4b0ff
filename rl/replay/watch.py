"""Does replay pull where fresh samples pull? Cosine of the two gradients, and the switch that acts on it.

    cosine = <g_fresh, g_replay> / (|g_fresh| |g_replay|),   both under the weights before the step
    off    after `patience` measurements in a row below zero, for the rest of the run

Source: this project's own safeguard. Assumption: some tens of samples show the direction; a single negative value is
noise, several in a row are not. What it is not: a test of whether replay helps; it only notices when it hurts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from rl.batch import TrainingSample
from rl.ports import State


class GradientComparer(Protocol):
    """The learner, asked for directions. Changes neither its weights nor its optimizer nor its random state."""

    async def gradient_cosine(self, some: Sequence[TrainingSample], others: Sequence[TrainingSample]) -> float:
        """Cosine of the gradients of the recipe's loss on two sets of samples; NaN if one of them is zero."""
        ...


class Watch:
    """Counts negative cosines in a row."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._negative = 0
        self.is_off = False

    def observe(self, cosine: float) -> bool:
        """Take a measurement; True if replay is switched off by it. NaN says nothing and changes nothing."""
        if self.is_off or math.isnan(cosine):
            return False
        self._negative = self._negative + 1 if cosine < 0 else 0
        self.is_off = self._negative >= self._patience
        return self.is_off

    def state_dict(self) -> State:
        return {"negative": self._negative, "is_off": self.is_off}

    def load_state_dict(self, state: State) -> None:
        self._negative, self.is_off = state["negative"], state["is_off"]
