"""Sleeping engines, engines over two GPUs, and weights that never leave the GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from launch.gpu_publish import by_ipc, by_nccl
from rl.learner.actor import LearnerClient, start_learner
from rl.learner.config import LearnerConfig
from rl.losses.config import PpoClip
from rl.sync import PublishAndProve
from rollout import weight_sides
from rollout.actor import start_engines
from rollout.config import FormatConfig, RolloutConfig
from rollout.pool import EnginePool
from rollout.seat import EngineSeat, GpuUse
from tests.fakes.learner import training_batch
from tests.tiny_model import build_tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.stack,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
PROBES = [[8, 9, 10, 11], [12, 13]]
TOLERANCE = 2e-2  # bfloat16
two_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def model_dir(tmp_path: Path) -> str:
    return str(build_tiny_model(tmp_path / "model", tied=False))


def engines(model_dir: str, *seats: EngineSeat, **settings: Any) -> EnginePool:
    config = RolloutConfig(device="cuda", dtype="bfloat16", kv_cache_gib=0.2, num_engines=len(seats), **settings)
    log_dir = str(Path(model_dir).parent / "logs")
    return start_engines(config, FormatConfig(prefill_thinking=True), model_dir, log_dir=log_dir, seats=seats)


def learner(model_dir: str, *, gpu_share: float) -> LearnerClient:
    config = LearnerConfig(device="cuda", dtype="bfloat16", zero_stage=3, lr=1e-3, micro_batch_tokens=256)
    return start_learner(
        config,
        PpoClip(),
        model_dir,
        temperature=1.0,
        log_dir=str(Path(model_dir).parent / "logs"),
        seed=0,
        total_steps=20,
        seats=[{"num_gpus": gpu_share}],
    )


async def train_and_publish(ends: Any, client: LearnerClient, pool: EnginePool, *, rounds: int = 3) -> None:
    """Every publish is proved; weights differ from round to round by more than the tolerance."""
    sync, before = PublishAndProve(ends.source, ends.sink, PROBES, TOLERANCE), None
    for number in range(rounds):
        if number:
            await pool.sleep() if number == 2 else None
            await client.step(training_batch(12, seed=number))
            await client.give_back()
        await sync.publish(await client.version())
        probe = (await pool.probe(PROBES))[0][0]
        assert before is None or float(np.abs(probe - before).max()) > 0
        before = probe


async def test_an_engine_that_sleeps_gives_its_memory_back_and_wakes_with_the_next_publish(model_dir: str) -> None:
    use = GpuUse(memory_share=0.4, sleeps=True, transfer="ipc")
    pool = engines(model_dir, EngineSeat(options={"num_gpus": 0.5}, gpu=use))
    client = learner(model_dir, gpu_share=0.5)
    try:
        await client.ready()
        awake = torch.cuda.mem_get_info()[0]
        await pool.sleep()
        assert torch.cuda.mem_get_info()[0] - awake > 0.15 * 2**30, "keys and values alone are 0.2 GiB"
        ends = by_ipc(client, pool, share=weight_sides.share_by_ipc, merge=weight_sides.merge_ipc)
        await train_and_publish(ends, client, pool)
    finally:
        pool.close()
        client.close()


@two_gpus
async def test_a_broadcast_reaches_an_engine_on_another_gpu(model_dir: str) -> None:
    pool = engines(model_dir, EngineSeat(options={"num_gpus": 1}, gpu=GpuUse(transfer="nccl")))
    client = learner(model_dir, gpu_share=1)
    try:
        ends = by_nccl(client, pool, make_sender=weight_sides.make_nccl_sender, width=1)
        sync = PublishAndProve(ends.source, ends.sink, PROBES, TOLERANCE)
        for number in range(3):
            await client.step(training_batch(12, seed=number))
            await sync.publish(await client.version())
    finally:
        pool.close()
        client.close()


@two_gpus
async def test_an_engine_on_two_gpus_says_what_one_on_one_says(model_dir: str) -> None:
    from launch import cluster as ray_cluster

    one = engines(model_dir, EngineSeat(options={"num_gpus": 1}))
    alone = (await one.probe(PROBES))[0]
    one.close()
    group = ray_cluster.reserve(2, cpus_each=1, deadline_s=60)
    seat = EngineSeat(
        options={"num_gpus": 0, "scheduling_strategy": ray_cluster.seat_in(group, 0, takes_children=True)},
        environment={"VLLM_RAY_BUNDLE_INDICES": "0,1", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"},
    )
    both = engines(model_dir, seat, tensor_parallel=2)
    try:
        together = (await asyncio.wait_for(both.probe(PROBES), 60))[0]
        assert all(np.abs(a - b).max() < TOLERANCE for a, b in zip(alone, together, strict=True))
    finally:
        both.close()
