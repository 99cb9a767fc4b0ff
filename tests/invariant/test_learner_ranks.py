"""The learner as Ray actors: the same batch gives the same weights on any number of ranks and at any ZeRO stage."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import ray

from rl.batch import StepResult, TrainingBatch
from rl.learner.actor import LearnerClient, build_scratch_model, start_learner
from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.errors import LearnerDiedError, NonFiniteError
from rl.losses.config import PpoClip
from rl.losses.term_config import AdaptiveEntropy, KlCov
from rollout.schema import Float32Array
from tests.fakes.learner import training_batch, training_sample

pytestmark = pytest.mark.stack
# With the parts of a loss for which ranks talk to each other: a choice of tokens, and a coefficient that adapts.
LOSS = PpoClip(covariance=KlCov(fraction=0.1), entropy=AdaptiveEntropy(target=9.0, initial=0.01))
SPEC = ScratchModel(hidden_size=64, num_layers=1, intermediate_size=64, num_heads=2, initializer_range=0.1)
# Eight equal lengths of 12 positions: with 24 tokens a micro-batch, two ranks take two micro-batches of two each.
EQUAL = TrainingBatch(
    step=1, version=0, num_groups=2, samples=tuple(training_sample(i, length=13, advantage=i - 3.0) for i in range(8))
)
MIXED = training_batch(13, seed=1)  # an odd number: one rank runs short
POISONED = training_batch(8, seed=3)
POISONED.samples[6].advantages[-1] = np.nan


@dataclass(frozen=True)
class Outcome:
    weights: dict[str, Float32Array]
    probes: list[Float32Array]
    results: list[StepResult]

    def values(self, name: str) -> list[float]:
        return [m.value for result in self.results for m in result.metrics if m.name == name]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("model"))
    asyncio.run(build_scratch_model(SPEC, path, seed=0))
    return path


def start(model_dir: str, **settings: Any) -> LearnerClient:
    config = LearnerConfig(**{"lr": 1e-3, "micro_batch_tokens": 24, **settings})
    return start_learner(config, LOSS, model_dir, temperature=1.0, log_dir=f"{model_dir}_log", seed=0, total_steps=50)


async def observe(client: LearnerClient, batches: list[TrainingBatch]) -> Outcome:
    results = [await client.step(batch) for batch in batches]
    assert await client.version() == results[-1].version == len(batches)
    chunks = [await chunk async for chunk in client.export()]  # type: ignore[misc]
    weights = {name: tensor.float().numpy() for chunk in chunks for name, tensor in chunk}
    return Outcome(weights, await client.probe([[8, 9, 10], [11, 12]]), results)


def assert_same(a: Outcome, b: Outcome, tolerance: float = 1e-5) -> None:
    assert a.weights.keys() == b.weights.keys()
    assert max(float(np.abs(a.weights[n] - b.weights[n]).max()) for n in a.weights) <= tolerance
    for name in ("learner/grad_norm", "loss/policy", "loss/entropy", "mismatch/k3", "mismatch/max_abs"):
        assert a.values(name) == pytest.approx(b.values(name), rel=1e-4, abs=1e-6), name


def restart(client: LearnerClient, model_dir: str, **settings: Any) -> LearnerClient:
    """The same rank processes with a fresh engine: starting a process costs more than all that is tested in it."""
    count = len(client._ranks)
    config = LearnerConfig(**{"lr": 1e-3, "micro_batch_tokens": 24, "num_ranks": count, **settings})
    options = {
        "config": config,
        "loss": LOSS,
        "model_dir": model_dir,
        "temperature": 1.0,
        "seed": 0,
        "total_steps": 50,
        "dump_dir": f"{model_dir}_log",
    }
    started = [rank.start.remote(i, count, "met already", options) for i, rank in enumerate(client._ranks)]
    return LearnerClient(client._ranks, started, config, LOSS, log_dir=f"{model_dir}_log")


async def test_ranks_accumulation_and_stages_agree_and_stop_together(model_dir: str) -> None:
    """(ranks, accumulation, micro-batch) of (1, 1, 8) against (2, 2, 2), at ZeRO 0 to 3; then mixed lengths."""
    batches = [EQUAL, EQUAL, MIXED, training_batch(12, seed=2), training_batch(9, seed=4)]
    one = start(model_dir, micro_batch_tokens=96)
    two = start(model_dir, num_ranks=2)
    try:
        reference, *others = await asyncio.gather(observe(one, batches), observe(two, batches))
        for stage in (0, 1, 2, 3):
            if stage > 0:
                two = restart(two, model_dir, zero_stage=stage)
                others = [await observe(two, batches)]
            for other in others:
                assert_same(reference, other)
                assert all(np.abs(p - q).max() < 1e-5 for p, q in zip(reference.probes, other.probes, strict=True))

            before = await two.checksums()
            assert before.keys() == reference.weights.keys()
            # The poisoned sample lies on one rank; both must stop, by the error's own type.
            with pytest.raises(NonFiniteError, match=r"step 6 .* non-finite loss in g1/2; the batch is in .*_log/"):
                await two.step(POISONED)
            assert await two.version() == 5
            assert before == await two.checksums()

        ray.kill(two._ranks[1])
        with pytest.raises(LearnerDiedError, match=r"learner rank 1 died: .*; its log: .*_log/learner_rank1.log"):
            for _ in range(100):  # the process ends a moment after the call returns
                await two.version()
                await asyncio.sleep(0.1)
    finally:
        for client in (one, two):
            client.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_all_stages_on_one_and_two_ranks_agree(model_dir: str, dtype: str) -> None:
    batches = [training_batch(12, seed=seed) for seed in range(5)]
    stages = [0, 1, 2, 3] if dtype == "float32" else [1, 2, 3]
    outcomes: list[Outcome] = []
    clients = [start(model_dir, num_ranks=ranks, zero_stage=stages[0], dtype=dtype) for ranks in (1, 2)]
    try:
        for stage in stages:
            if outcomes:
                clients = [restart(client, model_dir, zero_stage=stage, dtype=dtype) for client in clients]
            outcomes += await asyncio.gather(*(observe(client, batches) for client in clients))
    finally:
        for client in clients:
            client.close()
    for other in outcomes[1:]:
        if dtype == "float32":
            assert_same(outcomes[0], other, tolerance=2e-5)
        else:  # bfloat16 rounds at 1 part in 256, in weights and in each rank's activations
            assert other.values("loss/entropy") == pytest.approx(outcomes[0].values("loss/entropy"), rel=5e-3)
            assert other.values("learner/grad_norm") == pytest.approx(outcomes[0].values("learner/grad_norm"), rel=0.1)


def test_the_driver_side_loads_no_torch() -> None:
    code = (
        "import sys, rl.learner.actor, rl.learner.result, rl.learner.errors, rl.packing, rl.sync; "
        "sys.exit(sorted({'torch', 'deepspeed', 'transformers'} & set(sys.modules)) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
