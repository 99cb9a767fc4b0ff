"""The learner's side of vLLM's weight transfer on GPUs. Made in a learner rank's process, which hands tensors over.

The other side is vLLM's own `nccl` and `ipc` engines (`vllm.distributed.weight_transfer`), unpacked: one tensor at a
time, so nothing is held besides the chunk that the learner has gathered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.multiprocessing.reductions import reduce_tensor
from vllm.distributed.weight_transfer.nccl_common import trainer_init

Named = Iterable[tuple[str, torch.Tensor]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    """Where rank 0, this one, and every worker of every engine meet."""

    master_address: str
    master_port: int
    world_size: int


class NcclSender:
    """Broadcasts to every worker of every engine. Both sides wait for each other, tensor by tensor."""

    def __init__(self, address: str, port: int, world_size: int) -> None:
        """Returns when all have met: the engines must be asked to join at the same time."""
        self._group = trainer_init(_Meeting(master_address=address, master_port=port, world_size=world_size))

    def send(self, named: Named) -> None:
        """In the order that the engines were told. Returns when all have been received."""
        stream = torch.cuda.current_stream()
        for _, tensor in named:
            self._group.broadcast(tensor.contiguous(), src=0, stream=stream)
        stream.synchronize()

    def close(self) -> None:
        self._group.destroy()


def shared_handles(named: Named) -> list[dict[str, Any]]:
    """For each tensor {GPU: how to open it from another process on that GPU}; valid while the tensor is kept."""
    uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    return [{uuid: reduce_tensor(tensor)[1]} for _, tensor in named]
