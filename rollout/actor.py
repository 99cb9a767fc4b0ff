"""Engines as Ray actors, and the pool through which the rest of the system talks to them.

An actor serves many jobs at the same time on one event loop; its engine batches them. The pool knows how loaded each
engine is, gives every call a deadline, and turns whatever went wrong into one error that names the engine and its log.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from rollout.config import FormatConfig, RolloutConfig
from rollout.continuation import Continuation, Continued, continue_all
from rollout.engine import EngineTimeoutError, Request
from rollout.generate import generate_group
from rollout.pool import EnginePool, EngineStats, Member
from rollout.render import Renderer
from rollout.schema import Float32Array, Group, Job
from rollout.seat import EngineSeat, GpuUse

MAX_CALLS = 10_000  # calls an actor accepts at a time; far above what a run keeps in flight
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf")
TokenLists = Sequence[Sequence[int]]


class RolloutActor:
    """One engine with its renderer. A plain class: `start_engines` makes it a Ray actor."""

    def __init__(
        self, config: RolloutConfig, format: FormatConfig, model_dir: str, *, log_path: str, gpu: GpuUse
    ) -> None:
        _write_output_to(log_path)
        self._gpu = gpu
        self._config = config
        self._format = format
        self._model_dir = model_dir
        self._num_groups = 0
        self._num_sampled_tokens = 0

    async def start(self, seed: int, version: int) -> None:
        """Load model and tokenizer and run a first request, so that the first job finds everything warm.

        Raises ValueError when model, tokenizer and format do not fit together.
        """
        from rollout.vllm_engine import VllmEngine  # loads vLLM, which only this process needs

        self._renderer = Renderer.load(self._model_dir, self._format)
        self._engine = await VllmEngine.start(
            self._config,
            self._model_dir,
            seed=seed,
            version=version,
            marks=(self._format.thinking_open, self._format.thinking_close),
            gpu=self._gpu,
        )
        eos_ids = self._renderer.eos_ids
        await self._engine.complete(Request(prompt_ids=eos_ids[:1], max_tokens=2, stop_ids=()))
        gc.collect()
        gc.freeze()  # what is loaded by now stays; a collection that walks over it holds every thread up

    async def generate(self, job: Job) -> Group:
        """Run one job; see `generate_group`."""
        group = await generate_group(job, self._engine, self._renderer)
        self._num_groups += 1
        self._num_sampled_tokens += sum(int(t.sampled.sum()) for t in group.trajectories)
        return group

    async def write_on(self, continuation: Continuation) -> tuple[Continued, ...]:
        """Continue responses; see `continue_all`."""
        continued = await continue_all(continuation, self._engine, self._renderer)
        self._num_sampled_tokens += sum(item.num_new_tokens for item in continued)
        return continued

    async def begin_update(self, version: int) -> None:
        """Hold generation and prepare for the weights of `version`."""
        await self._engine.start_update(version)

    async def join(self, meeting: dict[str, Any]) -> None:
        """Meet the sender of the weights."""
        await self._engine.join(meeting)

    async def receive(self, chunk: Any, merge: Callable[[Any], Any] | None = None, *handles: Any) -> None:
        """Load one chunk: a list of (name, tensor) under checkpoint names, or the announcement of one."""
        if merge is not None:
            chunk = {**chunk, "ipc_handles": merge(handles)}
        await self._engine.load_chunk(chunk)

    async def finish_update(self, version: int) -> None:
        """Serve `version` from the next sampled token on."""
        await self._engine.finish_update(version)

    async def sleep(self) -> None:
        """Give the memory back until the next update."""
        await self._engine.sleep()

    async def start_over(self) -> None:
        """Drop everything under way; the next update may be of an older version."""
        await self._engine.start_over()

    async def version(self) -> int:
        """The version that the engine itself says it serves."""
        return await self._engine.reported_version()

    async def probe(self, token_ids: TokenLists) -> list[Float32Array]:
        """For each sequence [L]: log-probability of each token given its prefix, temperature 1; 0 for the first."""
        return await self._engine.probe(token_ids)

    async def stats(self) -> EngineStats:
        return EngineStats(
            version=self._engine.version,
            num_groups=self._num_groups,
            num_sampled_tokens=self._num_sampled_tokens,
            num_prompt_tokens=self._engine.num_prompt_tokens,
            num_cached_tokens=self._engine.num_cached_tokens,
        )


def _write_output_to(log_path: str) -> None:
    """Send everything that this process and its libraries print to a file."""
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


# ------------------------------------------------------------------------------------------------ starting


def start_engines(
    config: RolloutConfig,
    format: FormatConfig,
    model_dir: str,
    *,
    log_dir: str,
    seed: int = 0,
    version: int = 0,
    seats: Sequence[EngineSeat] = (),
) -> EnginePool:
    """Start `config.num_engines` engines at the same time and return when all can serve; Ray must be initialized.

    `version` is the version of the weights in `model_dir`. Engine i samples with seed `seed + i` where a job brings no
    seed. `seats` says where each of them runs; without it Ray finds a place for each, on CUDA with its GPUs. Raises
    ValueError for a model directory that cannot be served and EngineError when a start fails; nothing is left running
    then.
    """
    _check_model_dir(model_dir)
    own_gpu = config.device == "cuda" and config.tensor_parallel == 1  # several GPUs are taken by vLLM's own workers
    anywhere = EngineSeat(options={"num_gpus": 1 if own_gpu else 0})

    def spawn(index: int) -> Member:
        name, seat = f"rollout-{index}", seats[index] if seats else anywhere
        log_path = str(Path(log_dir).absolute() / f"{name}.log")
        remote = ray.remote(RolloutActor).options(
            num_cpus=config.threads_per_engine,
            max_concurrency=MAX_CALLS,
            runtime_env={"env_vars": {**_environment(config), **seat.environment}},
            **seat.options,
        )
        return Member(name, remote.remote(config, format, model_dir, log_path=log_path, gpu=seat.gpu), log_path)

    async def revive(dead: Member) -> Member:
        index = int(dead.name.rpartition("-")[2])
        member = spawn(index)
        try:
            await member.call("start", seed + index, version, timeout_s=config.start_timeout_s)
        except BaseException:
            ray.kill(member.actor)
            raise
        return member

    members = [spawn(index) for index in range(config.num_engines)]
    pool = EnginePool(members, call_timeout_s=config.call_timeout_s, revive=revive, max_restarts=config.max_restarts)
    try:
        _wait_for_start(members, config, seed=seed, version=version)
    except BaseException:
        pool.close()
        raise
    return pool


def _wait_for_start(members: Sequence[Member], config: RolloutConfig, *, seed: int, version: int) -> None:
    refs = [member.actor.start.remote(seed + index, version) for index, member in enumerate(members)]
    for member, ref in zip(members, refs, strict=True):
        try:
            ray.get(ref, timeout=config.start_timeout_s)
        except GetTimeoutError:
            raise EngineTimeoutError(
                f"engine {member.name} was not ready within {config.start_timeout_s:g} s; its log: {member.log_path}. "
                f"It needs {config.threads_per_engine} CPUs{' and 1 GPU' if config.device == 'cuda' else ''}, "
                f"the cluster has {ray.available_resources().get('CPU', 0):g} CPUs free. Lower rollout.num_engines or "
                "rollout.threads_per_engine, or raise rollout.start_timeout_s"
            ) from None
        except (RayActorError, RayTaskError) as error:
            raise member.explain(error, "start") from error


def _check_model_dir(model_dir: str) -> None:
    path = Path(model_dir)
    if not (path / "config.json").is_file():
        raise ValueError(f"a model directory must hold config.json, got {model_dir}; check the path of the model")
    if not any(file.suffix in WEIGHT_SUFFIXES for file in path.iterdir()):
        raise ValueError(
            f"a model directory must hold weights ({', '.join('*' + s for s in WEIGHT_SUFFIXES)}), "
            f"{model_dir} has none; save the model there again"
        )


def _environment(config: RolloutConfig) -> dict[str, str]:
    """What an engine's process is told before it loads vLLM: run in this process, call nobody, use our threads."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(config.threads_per_engine),
    }
