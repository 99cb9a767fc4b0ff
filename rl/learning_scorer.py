"""What a run holds of a step scorer that learns from it; what is done with it is in `rl/online_prm.py`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Literal

from rl.ports import OnlineStepScorer


@dataclass(slots=True, kw_only=True, eq=False)
class OnlinePrm:
    """The scorer, when it learns, and how far it has come."""

    scorer: OnlineStepScorer
    order: Literal["before", "after"]
    updated_step: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)  # a save is never in the middle of an update

    @property
    def scores_late(self) -> bool:
        """Whether groups are scored when their batch is packed, and not when they come."""
        return self.order == "before"
