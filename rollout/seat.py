"""Where an engine runs, as far as its own settings do not say it: what the composition root reserved for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """How an engine shares its GPUs: it may use `memory_share` of each, None as much as it likes; one that `sleeps` can
    give the memory back for a while. `transfer` is the way weights take to it."""

    memory_share: float | None = None
    sleeps: bool = False
    transfer: Literal["object_store", "nccl", "ipc"] = "object_store"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSeat:
    """`options` are Ray's for the engine's actor: its GPUs and where they are. `environment` is for its process."""

    options: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    gpu: GpuUse = GpuUse()
