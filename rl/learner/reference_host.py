"""What a process that holds a reference model can be asked. torch is imported there, when the model is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rl.learner.config import LearnerConfig
from rl.learner.process_log import write_output_to
from rl.packing import MicroBatch
from rollout.schema import Float32Array


class ReferenceHost:
    """Remote methods, mixed into the learner's ranks and into the reference model's own process."""

    def start_reference(self, config: LearnerConfig, dtype: str, settings: dict[str, Any]) -> None:
        from rl.learner.reference import FrozenModel, reference_settings

        self._reference_config = reference_settings(config, dtype)
        self._reference = FrozenModel(config=self._reference_config, **settings)

    def score_reference(self, micro_batches: Sequence[MicroBatch]) -> list[Float32Array]:
        return self._reference.score(micro_batches)

    def take_reference(self, chunk: Sequence[tuple[str, Any]]) -> None:
        self._reference.take(chunk)

    def save_reference(self, path: str) -> None:
        self._reference.save(path)

    def restore_reference(self, path: str) -> None:
        self._reference.restore(path, self._reference_config)


class ReferenceProcess(ReferenceHost):
    """A process of its own for the reference model."""

    def __init__(self, log_path: str, num_threads: int) -> None:
        write_output_to(log_path)
        import torch

        torch.set_num_threads(num_threads)
