"""Which process sits on which GPU: pure arithmetic over the recipe. `launch/cluster.py` reserves the seats in Ray.

    disaggregated   every engine has rollout.tensor_parallel GPUs of its own, every rank one of its own
    colocated       GPU g holds learner rank g and a part of an engine, which take turns: the engine sleeps while the
                    learner works, and wakes with the next publish
    split           the same seats, both awake; the engine may use cluster.engine_share of each GPU's memory

A bundle is one GPU. Two processes on one bundle take the shares of it that are written here, so Ray gives it to no
third. On CPUs nothing is reserved: threads are shared, and `RunConfig.warnings` says when they are too many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from launch.config import RunConfig

TURNS_SHARE = 0.5  # of a GPU, in Ray's books alone, for each of two processes that take turns on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """GPUs of one process: bundle numbers and the share of each."""

    bundles: tuple[int, ...]
    gpu_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Seats of all engines and learner ranks on `num_bundles` GPUs."""

    num_bundles: int
    engines: tuple[Seat, ...]
    ranks: tuple[Seat, ...]
    engine_memory_share: float | None  # of a GPU that an engine may use; None leaves it to the engine
    takes_turns: bool
    transfer: Literal["object_store", "nccl", "ipc"] = "object_store"


def place_engines(config: RunConfig) -> Placement | None:
    """Seats of the engines alone, each GPU whole; None where they compute on CPUs."""
    if config.rollout.device != "cuda":
        return None
    blocks = _blocks(config)
    return Placement(
        num_bundles=sum(map(len, blocks)),
        engines=tuple(Seat(bundles=block, gpu_share=1.0) for block in blocks),
        ranks=(),
        engine_memory_share=None,
        takes_turns=False,
    )


def _blocks(config: RunConfig) -> list[tuple[int, ...]]:
    width = config.rollout.tensor_parallel
    return [tuple(range(i * width, (i + 1) * width)) for i in range(config.rollout.num_engines)]


def place(config: RunConfig) -> Placement | None:
    """The seats of a run; None where nothing computes on a GPU."""
    on_gpu = {config.rollout.device, config.learner.device}
    if "cuda" not in on_gpu:
        return None
    blocks, by_gpu = _blocks(config), config.cluster.publish == "auto"
    kind, num_ranks = config.cluster.placement, config.learner.num_ranks
    if kind == "disaggregated":
        engines = blocks if config.rollout.device == "cuda" else []
        taken = sum(map(len, engines))
        ranks = range(taken, taken + num_ranks) if config.learner.device == "cuda" else range(0)
        return Placement(
            num_bundles=taken + len(ranks),
            engines=tuple(Seat(bundles=block, gpu_share=1.0) for block in engines),
            ranks=tuple(Seat(bundles=(bundle,), gpu_share=1.0) for bundle in ranks),
            engine_memory_share=None,
            takes_turns=False,
            transfer="nccl" if len(on_gpu) == 1 and by_gpu else "object_store",
        )
    share = TURNS_SHARE if kind == "colocated" else config.cluster.engine_share
    return Placement(
        num_bundles=num_ranks,
        engines=tuple(Seat(bundles=block, gpu_share=share) for block in blocks),
        ranks=tuple(Seat(bundles=(bundle,), gpu_share=1 - share) for bundle in range(num_ranks)),
        engine_memory_share=config.cluster.engine_share,
        takes_turns=kind == "colocated",
        transfer="ipc" if by_gpu else "object_store",
    )
