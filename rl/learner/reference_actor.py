"""The reference model behind one object in the driver, wherever its weights live. The driver loads no torch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rl.batch import TrainingSample
from rl.config import ReferenceConfig
from rl.learner.config import LearnerConfig
from rl.learner.errors import ReferenceDiedError
from rl.learner.reference_host import ReferenceProcess
from rl.losses.config import TokenMean
from rl.packing import MicroBatch, PackedBatch, pack
from rl.ports import State
from rollout.schema import Float32Array, Trajectory


class WeightSource(Protocol):
    """The learner, as far as a reference model follows it."""

    @property
    def ranks(self) -> Sequence[Any]:
        """Ray handles of processes that are `ReferenceHost`s."""
        ...

    def export(self) -> AsyncIterator[object]: ...


class ReferenceClient:
    """Implements `rl.ports.Reference`."""

    def __init__(
        self,
        hosts: Sequence[Any],
        started: Sequence[Any],
        config: ReferenceConfig,
        learner_config: LearnerConfig,
        learner: WeightSource,
        *,
        log_dir: str,
    ) -> None:
        """`started` holds the references of the `start_reference` calls, one a host."""
        self._hosts = tuple(hosts)
        self._started = tuple(started)
        self._config = config
        self._micro_batch_tokens = learner_config.micro_batch_tokens
        self._learner = learner
        self._log_dir = log_dir
        self._synced_step = 0
        self._lock = asyncio.Lock()  # no batch is scored half by old and half by new weights

    async def ready(self) -> None:
        """Wait until every host has loaded the model; raises what a host raised."""
        await self._results(self._started)

    async def score(self, trajectories: Sequence[Trajectory]) -> list[Float32Array]:
        """[L] per trajectory: log-probability of each sampled token after temperature; 0 where not sampled."""
        scored = [np.zeros(len(t.token_ids), dtype=np.float32) for t in trajectories]
        samples = [_sample(i, t) for i, t in enumerate(trajectories) if t.sampled.any()]
        if not samples:
            return scored
        packed: PackedBatch = await asyncio.to_thread(
            partial(
                pack,
                samples,
                aggregation=TokenMean(),
                num_ranks=len(self._hosts),
                num_optimizer_steps=1,
                micro_batch_tokens=self._micro_batch_tokens,
                layout="buckets",
            )
        )
        shares = packed.steps[0].ranks
        async with self._lock:
            calls = [host.score_reference.remote(share) for host, share in zip(self._hosts, shares, strict=True)]
            answers: list[list[Float32Array]] = await self._results(calls)
        places = [int(sample.group_id) for sample in samples]
        for share, answer in zip(shares, answers, strict=True):
            for micro_batch, logprobs in zip(share, answer, strict=True):
                _unpack(micro_batch, logprobs, [scored[place] for place in places])
        return scored

    async def follow(self, step: int) -> bool:
        """Take the learner's weights if `sync_every` says so after `step`. True if it did."""
        every = self._config.sync_every
        if every == 0 or step % every != 0:
            return False
        async with self._lock:
            async for chunk in self._learner.export():
                await self._results([host.take_reference.remote(chunk) for host in self._hosts])
            self._synced_step = step
        return True

    def state_dict(self) -> State:
        """The last step whose weights were taken; 0 for none."""
        return {"synced_step": self._synced_step}

    async def save(self, path: str) -> None:
        """Write the weights as a model directory, if they are not those the run started with."""
        if self._synced_step:
            await self._results([self._hosts[0].save_reference.remote(path)])

    async def load(self, path: str, state: State) -> None:
        """Go on from what `save` wrote."""
        if state["synced_step"]:
            await self._results([host.restore_reference.remote(path) for host in self._hosts])
        self._synced_step = state["synced_step"]

    def close(self) -> None:
        """End the model's own process; a lent place in the learner's is left to the learner."""
        if self._config.placement == "actor":
            for host in self._hosts:
                ray.kill(host)

    async def _results(self, references: Sequence[Any]) -> list[Any]:
        """All results, or the first exception as the remote code raised it."""
        try:
            return list(await asyncio.gather(*references))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayActorError as error:
            raise ReferenceDiedError(
                f"the process of the reference model died; its log is in {self._log_dir}: {error}"
            ) from error


def start_reference(
    config: ReferenceConfig,
    learner_config: LearnerConfig,
    learner: WeightSource,
    policy_dir: str,
    *,
    temperature: float,
    log_dir: str,
) -> ReferenceClient:
    """Load the reference model and return without waiting for it; `ready` waits.

    Its own process stands beside the driver on a CPU, and takes a GPU of its own wherever Ray finds one.
    """
    is_lent = config.placement == "learner"
    hosts = learner.ranks if is_lent else [_process(learner_config, log_dir)]
    settings = {
        "model_dir": config.path or policy_dir,
        "policy_dir": policy_dir,
        "temperature": temperature,
        "is_lent": is_lent,
    }
    started = [host.start_reference.remote(learner_config, config.dtype, settings) for host in hosts]
    return ReferenceClient(hosts, started, config, learner_config, learner, log_dir=log_dir)


def _process(config: LearnerConfig, log_dir: str) -> Any:
    environment = {"OMP_NUM_THREADS": str(config.threads_per_rank), "TOKENIZERS_PARALLELISM": "false"}
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 1, "max_restarts": 0}
    if config.device == "cpu":
        here = ray.get_runtime_context().get_node_id()
        options |= {"num_gpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}
    actor = ray.remote(ReferenceProcess).options(runtime_env={"env_vars": environment}, **options)
    return actor.remote(str(Path(log_dir) / "reference.log"), config.threads_per_rank)


def _sample(place: int, trajectory: Trajectory) -> TrainingSample:
    """A sample for the packer; its group names the place of the trajectory."""
    nothing = np.zeros(len(trajectory.token_ids), dtype=np.float32)
    return TrainingSample(
        group_id=str(place),
        sibling=trajectory.sibling,
        effort="",
        token_ids=trajectory.token_ids,
        loss_mask=trajectory.sampled,
        advantages=nothing,
        sampler_logprobs=nothing,
        policy=trajectory.policy,
    )


def _unpack(micro_batch: MicroBatch, logprobs: Float32Array, by_segment: Sequence[Float32Array]) -> None:
    """Write [R, T] log-probabilities back to their tokens: position t of a sample describes its token t + 1."""
    mask = micro_batch.loss_mask
    segments, tokens, values = micro_batch.segments[mask], micro_batch.position_ids[mask] + 1, logprobs[mask]
    for segment in np.unique(segments).tolist():
        mine = segments == segment
        by_segment[segment][tokens[mine]] = values[mine]
