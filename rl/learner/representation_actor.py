"""The frozen model of the exploration bonus in a process of its own, and its client in the driver."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ray

from rl.exploration.config import ExplorationConfig
from rl.learner.config import LearnerConfig
from rl.learner.process_log import write_output_to
from rollout.schema import Trajectory


class _RepresentationProcess:
    """Loads the model when it starts; torch is imported there."""

    def __init__(self, model_dir: str, settings: dict[str, Any], log_path: str, num_threads: int) -> None:
        write_output_to(log_path)
        import torch

        from rl.learner.representation import Representation

        torch.set_num_threads(num_threads)
        self._representation = Representation(model_dir, **settings)

    def features(
        self, token_ids: Sequence[npt.NDArray[np.int32]], masks: Sequence[npt.NDArray[np.bool_]]
    ) -> npt.NDArray[np.float64]:
        return self._representation.features(token_ids, masks)


class RepresentationClient:
    """Implements `rl.ports.Representer`."""

    def __init__(self, actor: Any, log_path: str) -> None:
        self._actor = actor
        self._log_path = log_path

    async def ready(self) -> None:
        """Wait until the model is loaded; raises what the process raised."""
        await self._result(self._actor.__ray_ready__.remote())

    async def features(self, trajectories: Sequence[Trajectory]) -> npt.NDArray[np.float64]:
        """[N, D], one row a trajectory: mean hidden state over its sampled tokens."""
        ids, masks = [t.token_ids for t in trajectories], [t.sampled for t in trajectories]
        found: npt.NDArray[np.float64] = await self._result(self._actor.features.remote(ids, masks))
        return found

    def close(self) -> None:
        """End the process."""
        ray.kill(self._actor)

    async def _result(self, reference: Any) -> Any:
        try:
            return (await asyncio.gather(reference))[0]
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            raise RuntimeError(
                f"the process of the exploration bonus died; its log is {self._log_path}: {error}"
            ) from error


def start_representation(
    config: ExplorationConfig, learner: LearnerConfig, policy_dir: str, *, log_dir: str
) -> RepresentationClient:
    """Load the model and return without waiting for it; `ready` waits. It computes as the learner does."""
    log_path = str(Path(log_dir) / "exploration.log")
    settings = {"device": learner.device, "dtype": "float32", "batch_tokens": config.batch_tokens}
    if learner.device == "cuda":
        settings["dtype"] = "bfloat16"
    environment = {"OMP_NUM_THREADS": str(learner.threads_per_rank), "TOKENIZERS_PARALLELISM": "false"}
    num_gpus = 1 if learner.device == "cuda" else 0
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": num_gpus, "runtime_env": {"env_vars": environment}}
    actor = ray.remote(_RepresentationProcess).options(**options)
    started = actor.remote(config.path or policy_dir, settings, log_path, learner.threads_per_rank)
    return RepresentationClient(started, log_path)
