"""The learner as Ray actors: one process per rank, and one client in the driver. The driver loads no torch."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rl.batch import StepResult, TrainingBatch, TrainingSample
from rl.learner.config import LearnerConfig, LossConfig, ScratchModel
from rl.learner.errors import LearnerDiedError
from rl.learner.process_log import write_output_to
from rl.learner.reference_host import ReferenceHost
from rl.learner.result import RankInfo, RankResult, combine
from rl.losses.estimator_config import StreamEstimators
from rl.packing import MicroBatch, PackedBatch, pack
from rollout.schema import Float32Array

DEATH_GRACE_S = 10.0  # seconds in which the death of a rank must show after another rank's call failed
KEEP_FREED_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


class LearnerRank(ReferenceHost):
    """One rank, in its own process. torch and DeepSpeed are imported there, when it starts."""

    def __init__(self, log_path: str) -> None:
        write_output_to(log_path)

    def meeting_point(self, *, is_local: bool) -> str:
        """An address with a free port on this machine, for the ranks to meet at."""
        host = "127.0.0.1" if is_local else ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            return f"tcp://{host}:{probe.getsockname()[1]}"

    def start(self, rank: int, num_ranks: int, address: str, settings: Mapping[str, Any]) -> RankInfo:
        from rl.learner.engine import LearnerEngine, Rendezvous

        rendezvous = Rendezvous(rank=rank, num_ranks=num_ranks, address=address)
        self._engine = LearnerEngine(rendezvous=rendezvous, **settings)
        return self._engine.info()

    def train(self, batch: PackedBatch) -> RankResult:
        return self._engine.train(batch)

    def version(self) -> int:
        return self._engine.version

    def export_chunk(self, index: int) -> tuple[bool, list[tuple[str, Any]]]:
        """A receipt and the chunk, two objects: whoever waits for the first need not fetch the second."""
        return True, self._engine.export_chunk(index)

    def announce_chunk(self, index: int) -> dict[str, list[Any]]:
        return self._engine.exporter.announce(index)

    def open_channel(self, make_sender: Callable[[str, int, int], Any], address: str, port: int, size: int) -> None:
        if (before := getattr(self, "_sender", None)) is not None:
            before.close()
        self._sender = make_sender(address, port, size)

    def send_chunk(self, index: int) -> None:
        """Collective; the first rank sends."""
        chunk = self._engine.exporter.chunk(index, place="first")
        if chunk:
            self._sender.send(chunk)

    def share_chunk(self, index: int, share: Callable[[Any], Any]) -> tuple[bool, Any]:
        """A receipt, and handles of the chunk's tensors, which are kept until `drop_chunk`. Collective."""
        self._shared = self._engine.exporter.chunk(index, place="all")
        return True, share(self._shared)

    def drop_chunk(self) -> None:
        self._shared = []

    def checksums(self) -> dict[str, str]:
        return self._engine.checksums()

    def probe(self, token_ids: list[list[int]]) -> list[Float32Array]:
        return self._engine.probe(token_ids)

    def geometry(self, prompts: list[list[int]]) -> dict[str, float]:
        return self._engine.geometry(prompts)

    def layer_gradients(self, samples: list[MicroBatch]) -> dict[str, float]:
        return self._engine.layer_gradients(samples)

    def gradient_cosine(self, some: PackedBatch, others: PackedBatch) -> float:
        return self._engine.gradient_cosine(some, others)

    def adopt(self, config: LearnerConfig, loss: LossConfig, temperature: float) -> None:
        self._engine.adopt(config, loss, temperature)

    def give_back(self) -> None:
        """What this rank keeps of its GPU for later goes back to the others on it."""
        import torch

        torch.cuda.empty_cache()

    def save(self, path: str) -> None:
        self._engine.save(path)

    def load(self, path: str) -> None:
        self._engine.load(path)

    def save_model(self, out_dir: str) -> None:
        self._engine.save_model(out_dir)


class LearnerClient:
    """All ranks behind one object. Implements `rl.ports.Learner` and `rl.sync.WeightSource`.

    Every call is submitted to all ranks at once, without an await in between, so the ranks see the same calls in the
    same order however many coroutines use the client: their collectives always match.
    """

    def __init__(
        self, ranks: list[Any], started: list[Any], config: LearnerConfig, loss: LossConfig, *, log_dir: str
    ) -> None:
        """`started` holds the references of the `LearnerRank.start` calls, one a rank."""
        self._ranks = ranks
        self._started = started
        self._log_dir = log_dir
        self._config = config
        self._loss = loss

    @property
    def ranks(self) -> Sequence[Any]:
        """Handles of the rank processes, which may also host a reference model."""
        return self._ranks

    async def ready(self) -> RankInfo:
        """Wait until every rank has loaded the model; raises what a rank raised."""
        infos: list[RankInfo] = await self._results(self._started)
        return infos[0]

    async def step(self, batch: TrainingBatch) -> StepResult:
        """Update the weights `num_optimizer_steps * epochs` times, fewer if fewer samples hold a loss token.

        Raises:
            NonFiniteError: a loss or gradient is not finite; the update that needed it was not applied.
            ValueError: the batch cannot be packed.
        """
        start = time.perf_counter()
        info = await self.ready()
        config = self._config
        # In a thread: packing a large batch takes long enough to hold up the driver's other coroutines.
        packed = await asyncio.to_thread(
            self._pack, info, batch.samples, ranks=config.num_ranks, steps=config.num_optimizer_steps
        )
        reference = ray.put(packed)
        results: list[RankResult] = await self._all(lambda rank: rank.train.remote(reference))
        seconds = time.perf_counter() - start
        metrics = combine(packed, results, seconds, epochs=self._config.epochs)
        drift = {packed.names[index]: value for result in results for index, value in result.drift.items()}
        spans = {f"learner rank {rank}": result.spans for rank, result in enumerate(results)}
        return StepResult(version=results[0].version, seconds=seconds, metrics=metrics, drift=drift, spans=spans)

    async def version(self) -> int:
        versions: list[int] = await self._all(lambda rank: rank.version.remote())
        if len(set(versions)) != 1:
            raise RuntimeError(f"learner ranks disagree about the version: {versions}")
        return versions[0]

    async def export(self) -> AsyncIterator[object]:
        """References to chunks of the full weights, each a list of (Hugging Face name, CPU tensor)."""
        info = await self.ready()
        for index in range(info.num_chunks):
            pairs = [rank.export_chunk.options(num_returns=2).remote(index) for rank in self._ranks]
            await self._results([receipt for receipt, _ in pairs])  # else an engine would be blamed for a dead rank
            yield pairs[0][1]  # never awaited here: that would fetch the tensors into the driver

    async def announce_chunk(self, index: int) -> dict[str, list[Any]]:
        """Names, dtypes and shapes of a chunk, for whoever receives it on a GPU."""
        announced: list[dict[str, list[Any]]] = await self._results([self._ranks[0].announce_chunk.remote(index)])
        return announced[0]

    async def meeting_place(self) -> tuple[str, int]:
        """An address and a free port of the first rank's machine."""
        found: list[str] = await self._results([self._ranks[0].meeting_point.remote(is_local=False)])
        host, _, port = found[0].removeprefix("tcp://").rpartition(":")
        return host, int(port)

    async def open_channel(self, make_sender: Callable[[str, int, int], Any], host: str, port: int, size: int) -> None:
        """Let the first rank meet the engines' workers; returns when all `size` have met."""
        await self._results([self._ranks[0].open_channel.remote(make_sender, host, port, size)])

    async def send_chunk(self, index: int) -> None:
        """Broadcast a chunk to those who have met; returns when they have received it."""
        await self._all(lambda rank: rank.send_chunk.remote(index))

    async def share_chunk(self, index: int, share: Callable[[Any], Any]) -> list[Any]:
        """References to what `share` makes of a chunk in each rank, which keeps it until `drop_chunk`."""
        pairs = [rank.share_chunk.options(num_returns=2).remote(index, share) for rank in self._ranks]
        await self._results([receipt for receipt, _ in pairs])
        return [handles for _, handles in pairs]

    async def drop_chunk(self) -> None:
        await self._all(lambda rank: rank.drop_chunk.remote())

    async def checksums(self) -> dict[str, str]:
        """Digest of every exported tensor."""
        digests: list[dict[str, str]] = await self._all(lambda rank: rank.checksums.remote())
        return digests[0]

    async def probe(self, token_ids: list[list[int]]) -> list[Float32Array]:
        """Per sequence, [L] log-probability of each token given its prefix, at temperature 1; 0 for the first."""
        answers: list[list[Float32Array]] = await self._all(lambda rank: rank.probe.remote(token_ids))
        return answers[0]

    async def geometry(self, prompts: Sequence[Sequence[int]]) -> dict[str, float]:
        """Metrics of the hidden states at the end of each prompt."""
        listed = [list(prompt) for prompt in prompts]
        answers: list[dict[str, float]] = await self._all(lambda rank: rank.geometry.remote(listed))
        return answers[0]

    async def layer_gradients(self, samples: Sequence[TrainingSample]) -> dict[str, float]:
        """Metrics of the gradients of single samples, measured on the first rank alone."""
        info = await self.ready()
        alone = [self._pack(info, [sample], ranks=1, steps=1).steps[0].ranks[0][0] for sample in samples]
        measured: list[dict[str, float]] = await self._results([self._ranks[0].layer_gradients.remote(alone)])
        return measured[0]

    async def gradient_cosine(self, some: Sequence[TrainingSample], others: Sequence[TrainingSample]) -> float:
        """Cosine of the gradients of the loss on two sets of samples, measured on the first rank alone."""
        info = await self.ready()
        batches = [self._pack(info, samples, ranks=1, steps=1) for samples in (some, others)]
        measured: list[float] = await self._results([self._ranks[0].gradient_cosine.remote(*batches)])
        return measured[0]

    async def adopt(self, config: LearnerConfig, loss: LossConfig, *, temperature: float) -> None:
        """Use the learning rate, the weights of the loss's terms and the temperature of these from the next step on."""
        await self._all(lambda rank: rank.adopt.remote(config, loss, temperature))
        self._config, self._loss = config, loss

    async def give_back(self) -> None:
        """Let the other processes on the ranks' GPUs have what a step needed and the next one will need again."""
        await self._all(lambda rank: rank.give_back.remote())

    async def save(self, path: str) -> None:
        """Write `path/model` (Hugging Face format, tokenizer included), optimizer, version and random state."""
        await self._all(lambda rank: rank.save.remote(path))

    async def load(self, path: str) -> None:
        """Go on from what `save` wrote, bit-identically."""
        await self._all(lambda rank: rank.load.remote(path))

    async def save_model(self, out_dir: str) -> None:
        """Write the weights alone as a Hugging Face model directory."""
        await self._all(lambda rank: rank.save_model.remote(out_dir))

    def close(self) -> None:
        """End the rank processes."""
        for rank in self._ranks:
            ray.kill(rank)

    def _pack(self, info: RankInfo, samples: Sequence[TrainingSample], *, ranks: int, steps: int) -> PackedBatch:
        return pack(
            samples,
            aggregation=self._loss.aggregation,
            num_ranks=ranks,
            num_optimizer_steps=steps,
            micro_batch_tokens=self._config.micro_batch_tokens,
            layout=info.layout,
            row_tokens=info.row_tokens,
        )

    async def _all(self, call: Callable[[Any], Any]) -> list[Any]:
        await self.ready()
        return await self._results([call(rank) for rank in self._ranks])

    async def _results(self, references: list[Any]) -> list[Any]:
        """All results, or the first exception as the remote code raised it, with the remote traceback as its cause.

        A dead rank is the cause of whatever the others then say about their broken collective, so it comes first.
        """
        try:
            return list(await asyncio.gather(*references))
        except (ray.exceptions.RayTaskError, ray.exceptions.RayActorError) as error:
            if (death := await self._death(references)) is not None:
                raise death from error
            assert isinstance(error, ray.exceptions.RayTaskError)
            raise error.cause from error

    async def _death(self, references: list[Any]) -> LearnerDiedError | None:
        """The death among the answers of a call that failed; a rank that is only slow to answer is not waited for."""
        answers = [asyncio.ensure_future(asyncio.wrap_future(reference.future())) for reference in references]
        await asyncio.wait(answers, timeout=DEATH_GRACE_S if len(answers) > 1 else None)
        found = None
        for rank, answer in enumerate(answers):
            error = answer.exception() if answer.done() else None
            answer.cancel()
            if found is None and isinstance(error, ray.exceptions.RayActorError):
                where = f"its log: {self._log_dir}/learner_rank{rank}.log"
                found = LearnerDiedError(f"learner rank {rank} died: {_first_line(error)}; {where}")
        return found


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]


def start_learner(
    config: LearnerConfig,
    loss: LossConfig,
    model_dir: str,
    *,
    temperature: float,
    log_dir: str,
    seed: int,
    total_steps: int,
    load_loss: Callable[[], Any] | None = None,
    streams: StreamEstimators | None = None,
    seats: Sequence[Mapping[str, Any]] = (),
) -> LearnerClient:
    """Start the ranks and return without waiting for them: the engines can start at the same time.

    CPU ranks meet over gloo on the loopback interface of the driver's machine; CUDA ranks meet over NCCL, one GPU each,
    wherever Ray finds one.

    Args:
        temperature: sampling temperature of the rollouts.
        log_dir: gets one log file a rank, with whatever the libraries print, and a batch that broke the learner.
        total_steps: training steps (batches) of the whole run, for the learning-rate schedule.
        load_loss: called in each rank's process for the function of a plugin loss.
        seats: Ray's options of each rank, its GPU and where it is; without it Ray finds one.
        streams: how replayed samples, demonstrations and text are trained on; None takes the defaults.
    """
    if temperature <= 0:
        raise ValueError(f"rollouts to train on must be sampled: temperature must be above 0, got {temperature}")
    on_cpu = config.device == "cpu"
    options: dict[str, Any] = {"num_cpus": 0, "num_gpus": 0 if on_cpu else 1, "max_restarts": 0}
    if on_cpu:
        here = ray.get_runtime_context().get_node_id()
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(here, soft=False)
    options["runtime_env"] = {"env_vars": rank_environment(config)}
    ranks = [
        ray.remote(LearnerRank)
        .options(**{**options, **(seats[i] if seats else {})})
        .remote(str(Path(log_dir) / f"learner_rank{i}.log"))
        for i in range(config.num_ranks)
    ]

    address = ranks[0].meeting_point.remote(is_local=on_cpu)
    settings = {
        "config": config,
        "loss": loss,
        "model_dir": model_dir,
        "temperature": temperature,
        "seed": seed,
        "total_steps": total_steps * config.num_optimizer_steps * config.epochs,
        "dump_dir": log_dir,
        "load_loss": load_loss,
        "streams": streams,
    }
    started = [rank.start.remote(i, config.num_ranks, address, settings) for i, rank in enumerate(ranks)]
    return LearnerClient(ranks, started, config, loss, log_dir=log_dir)


def rank_environment(config: LearnerConfig) -> dict[str, str]:
    """Environment variables of a rank's process."""
    environment = {
        "OMP_NUM_THREADS": str(config.threads_per_rank),
        "LOCAL_RANK": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if config.device == "cpu":
        # glibc would hand the memory of every activation back to the system and fetch it again, page by page: measured,
        # a seventh of a training step of a small model.
        environment |= {"DS_ACCELERATOR": "cpu", "GLOO_SOCKET_IFNAME": "lo"} | KEEP_FREED_MEMORY
    return environment


async def build_scratch_model(spec: ScratchModel, out_dir: str, *, seed: int) -> None:
    """`rl.learner.scratch.build_model` in a process of its own."""
    await ray.remote(_build).options(num_cpus=0).remote(spec, out_dir, seed)


def _build(spec: ScratchModel, out_dir: str, seed: int) -> None:
    from rl.learner.scratch import build_model

    build_model(spec, out_dir, seed=seed)
