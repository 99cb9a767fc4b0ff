"""Losses by the `type` of their settings."""

from __future__ import annotations

from rl.losses.contract import LossFunction
from rl.losses.ppo_clip import ppo_clip

LOSSES: dict[str, LossFunction] = {"ppo_clip": ppo_clip}
