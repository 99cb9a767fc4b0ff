"""Seats in Ray for the processes of a run: `launch/placement.py` says which, `launch/cluster.py` reserves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launch import cluster
from launch.config import RunConfig
from launch.placement import Seat, place, place_engines
from rollout.seat import EngineSeat, GpuUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Seats:
    """Empty where nothing is reserved: then Ray finds a place for each process by itself."""

    engines: tuple[EngineSeat, ...] = ()
    ranks: tuple[Mapping[str, Any], ...] = ()
    takes_turns: bool = False
    transfer: str = "object_store"


def reserve(config: RunConfig, *, engines_only: bool = False) -> Seats:
    """The seats of a run, or of its engines alone. Raises ClusterError when the GPUs are not there in time."""
    placement = place_engines(config) if engines_only else place(config)
    if placement is None:
        return Seats()
    group = cluster.reserve(
        placement.num_bundles,
        cpus_each=config.rollout.threads_per_engine,
        deadline_s=config.cluster.start_deadline_s,
    )
    use = GpuUse(memory_share=placement.engine_memory_share, sleeps=placement.takes_turns, transfer=placement.transfer)
    return Seats(
        engines=tuple(_engine_seat(group, seat, use) for seat in placement.engines),
        ranks=tuple(
            {"num_gpus": seat.gpu_share, "scheduling_strategy": cluster.seat_in(group, seat.bundles[0])}
            for seat in placement.ranks
        ),
        takes_turns=placement.takes_turns,
        transfer=placement.transfer,
    )


def _engine_seat(group: Any, seat: Seat, use: GpuUse) -> EngineSeat:
    """An engine on one GPU computes in its own process; one on several has a worker of vLLM's on each of them."""
    first = seat.bundles[0]
    if len(seat.bundles) == 1:
        options = {"num_gpus": seat.gpu_share, "scheduling_strategy": cluster.seat_in(group, first)}
        return EngineSeat(options=options, gpu=use)
    return EngineSeat(
        options={"num_gpus": 0, "scheduling_strategy": cluster.seat_in(group, first, takes_children=True)},
        environment={
            "VLLM_RAY_PER_WORKER_GPUS": str(seat.gpu_share),
            "VLLM_RAY_BUNDLE_INDICES": ",".join(map(str, seat.bundles)),
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without a GPU must still see that there are some
        },
        gpu=use,
    )
