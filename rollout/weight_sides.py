"""Names for the two sides of weights on GPUs that travel to other processes; vLLM is loaded there, not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def make_nccl_sender(address: str, port: int, size: int) -> Any:
    """In learner rank 0: see `rollout.weight_sender.NcclSender`."""
    from rollout.weight_sender import NcclSender

    return NcclSender(address, port, size)


def share_by_ipc(chunk: Sequence[tuple[str, Any]]) -> list[dict[str, Any]]:
    """In each learner rank: see `rollout.weight_sender.shared_handles`."""
    from rollout.weight_sender import shared_handles

    return shared_handles(chunk)


def merge_ipc(of_ranks: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """In an engine: for each tensor, the handles {GPU: handle} of all ranks together."""
    return [
        {gpu: handle for of_rank in handles for gpu, handle in of_rank.items()}
        for handles in zip(*of_ranks, strict=True)
    ]
