"""A backend of vLLM's weight-transfer interface that loads checkpoint-format tensors handed over in this process.

The tensors come out of Ray's shared memory, so a chunk is read in place. An update is start, any number of chunks,
finish; between start and finish the model has no usable weights and must not run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

BACKEND = "ponder_shared_memory"
Chunk = list[tuple[str, torch.Tensor]]


@dataclass
class InitInfo(WeightTransferInitInfo):  # type: ignore[misc]
    """Nothing to agree on: both sides only need tensors under checkpoint names."""


@dataclass
class UpdateInfo(WeightTransferUpdateInfo):  # type: ignore[misc]
    """One chunk of the checkpoint: (name, tensor) pairs, tensors on the CPU."""

    weights: Chunk


class SharedMemoryTransfer(WeightTransferEngine[InitInfo, UpdateInfo]):  # type: ignore[misc]
    """Loads whole checkpoints layer by layer and refuses partial ones.

    vLLM keeps the old weights of a layer that an update leaves out and only logs it, so the parameters written by all
    chunks of an update are compared with the parameters of the model at its end.
    """

    init_info_cls = InitInfo
    update_info_cls = UpdateInfo
    supports_draft_weight_update = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._expected = {name for name, _ in self.model.named_parameters()}
        self._written: set[str] | None = set()
        self._is_given_up = False

    def init_transfer_engine(self, init_info: InitInfo) -> None:
        """Nothing to connect to."""

    def start_weight_update(self) -> None:
        """Put the layers on the meta device, to be materialized as their tensors arrive."""
        self._written, self._is_given_up = set(), False
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: UpdateInfo) -> None:
        """Load one chunk. A chunk may end in the middle of a layer; one without tensors gives the update up.

        An update that is given up must still be finished: a layer keeps count of what it was given, and half of an old
        checkpoint must not complete it.
        """
        self._is_given_up = not update_info.weights
        written = self.model.load_weights(update_info.weights)
        if written is None:  # some architectures do not report what they wrote
            self._written = None
        elif self._written is not None:
            self._written |= written

    def finish_weight_update(self) -> None:
        """Repack every layer for its kernels. Raises ValueError when the chunks did not cover the model."""
        finalize_layerwise_reload(self.model, self.model_config)
        self._repack_tied_head()
        missing = sorted(self._expected - self._written) if self._written is not None else []
        if missing and not self._is_given_up:
            raise ValueError(
                f"a weight update must cover every parameter; {len(missing)} of {len(self._expected)} were not in it: "
                f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}. Send the whole checkpoint"
            )

    def _repack_tied_head(self) -> None:
        """Pack the output head again when it shares the embedding's weight.

        The reload counts a tied weight as part of the embedding and repacks nothing for the head, whose CPU kernel
        works on its own packed copy: without this the head keeps the weights the engine was started with.
        """
        if self.vllm_config.model_config.hf_text_config.tie_word_embeddings:
            head = self.model.lm_head
            head.quant_method.process_weights_after_loading(head)

    def shutdown(self) -> None:
        """Nothing to release."""


def register() -> None:
    """Make the backend known to vLLM in this process. Safe to call again."""
    try:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryTransfer)
    except ValueError:  # the factory has no way to ask; a second engine in one process registers the same class
        return
