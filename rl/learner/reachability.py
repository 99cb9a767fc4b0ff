"""Can the ranks of a learner meet? One all-reduce over the nodes of a cluster, before a model is loaded anywhere."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist


def meet(rank: int, num_ranks: int, address: str, *, backend: str, timeout_s: float) -> None:
    """Join the others at `address` ("tcp://host:port" of rank 0) and add up one number. Collective.

    Raises RuntimeError or torch's own error when a rank does not come within the time, or the sum is wrong.
    """
    dist.init_process_group(
        backend,
        init_method=address,
        rank=rank,
        world_size=num_ranks,
        timeout=timedelta(seconds=timeout_s),
    )
    try:
        total = torch.ones(1, device="cuda" if backend == "nccl" else "cpu")
        dist.all_reduce(total)
        if int(total.item()) != num_ranks:
            raise RuntimeError(f"{backend} added {num_ranks} ones up to {total.item()}")
    finally:
        dist.destroy_process_group()
