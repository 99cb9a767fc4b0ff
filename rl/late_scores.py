"""Scores that a batch gets when it is whole: those of a step scorer that learns from it first, and the reference's."""

from __future__ import annotations

from collections.abc import Sequence

from rl import online_prm, reference
from rl.assembly import ReferenceLogprobs
from rl.buffer import Slot
from rl.run import Run


async def score_slots(run: Run, step: int, slots: Sequence[Slot]) -> ReferenceLogprobs | None:
    """Put late step scores into the slots; return the reference log-probabilities, None without a reference model."""
    await online_prm.before_credit(run, step, slots)
    return await reference.score_slots(run, step, slots)
