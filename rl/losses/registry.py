"""Losses by the `type` of their settings."""

from __future__ import annotations

from rl.losses.cispo import cispo
from rl.losses.contract import LossFunction
from rl.losses.decoupled import decoupled
from rl.losses.dppo import dppo
from rl.losses.dro import dro
from rl.losses.gmpo import gmpo
from rl.losses.gspo import gspo
from rl.losses.ppo_clip import ppo_clip
from rl.losses.rloo import rloo
from rl.losses.sapo import sapo
from rl.losses.topr import topr
from rl.losses.unified import unified

LOSSES: dict[str, LossFunction] = {
    "cispo": cispo,
    "decoupled": decoupled,
    "dppo": dppo,
    "dro": dro,
    "gmpo": gmpo,
    "gspo": gspo,
    "ppo_clip": ppo_clip,
    "rloo": rloo,
    "sapo": sapo,
    "topr": topr,
    "unified": unified,
}
