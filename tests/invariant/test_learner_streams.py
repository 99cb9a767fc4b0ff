"""On a real learner: fresh, replayed and taught samples in one batch, and the cosine of two gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rl.batch import Stream, TrainingSample
from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.engine import LearnerEngine, Rendezvous
from rl.learner.result import RankResult, combine
from rl.learner.scratch import build_model
from rl.losses.config import PpoClip
from rl.losses.estimator_config import Estimator, Mask, StreamEstimators
from rl.packing import PackedBatch, pack
from tests.fakes.learner import training_sample

pytestmark = [pytest.mark.stack, pytest.mark.usefixtures("rank_environment")]
SPEC = ScratchModel(hidden_size=64, num_layers=2, intermediate_size=64, num_heads=2, initializer_range=0.1)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> LearnerEngine:
    root = tmp_path_factory.mktemp("streams")
    build_model(SPEC, str(root / "model"), seed=0)
    return LearnerEngine(
        LearnerConfig(lr=1e-3, micro_batch_tokens=128),
        PpoClip(),
        str(root / "model"),
        Rendezvous(rank=0, num_ranks=1, address="tcp://127.0.0.1:29637"),
        temperature=1.0,
        seed=0,
        total_steps=100,
        dump_dir=str(root),
        streams=StreamEstimators(replay=Estimator(mask=Mask(drift=10.0), denominator="anchor")),
    )


def packed(samples: list[TrainingSample]) -> PackedBatch:
    return pack(
        samples,
        aggregation=PpoClip().aggregation,
        num_ranks=1,
        num_optimizer_steps=1,
        micro_batch_tokens=128,
        layout="buckets",
    )


def samples(stream: Stream, indices: range, *, sign: float = 1.0) -> list[TrainingSample]:
    found = [training_sample(i, length=9 + i % 5, advantage=sign) for i in indices]
    return [replace(s, stream=stream) for s in found]


def test_gradients_of_the_same_samples_agree_and_of_their_opposites_oppose(engine: LearnerEngine) -> None:
    before = {name: tensor.clone() for name, tensor in engine.export_chunk(0)}
    fresh, replayed = samples(Stream.FRESH, range(8)), samples(Stream.REPLAY, range(8))
    against = samples(Stream.REPLAY, range(8), sign=-1.0)
    other = samples(Stream.REPLAY, range(20, 28))
    assert engine.gradient_cosine(packed(fresh), packed(replayed)) == pytest.approx(1.0, abs=1e-5)
    assert engine.gradient_cosine(packed(fresh), packed(against)) == pytest.approx(-1.0, abs=1e-5)
    assert -1.0 < engine.gradient_cosine(packed(fresh), packed(other)) < 0.999
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.export_chunk(0))


def test_a_mixed_batch_teaches_the_demonstration(engine: LearnerEngine) -> None:
    """Its negative log-probability falls; the drift of what is replayed is that of its log-probabilities."""
    replayed, shown = samples(Stream.REPLAY, range(4, 8)), samples(Stream.DEMONSTRATION, range(40, 44))
    batch = packed([*samples(Stream.FRESH, range(4)), *replayed, *shown])

    def train() -> tuple[RankResult, dict[str, float]]:
        result = engine.train(batch)
        return result, {m.name: m.value for m in combine(batch, [result], 1.0, epochs=1)}

    expected = {
        i: float(np.mean(np.abs((engine.probe([s.token_ids.tolist()])[0] - s.sampler_logprobs)[s.loss_mask])))
        for i, s in enumerate(replayed, start=4)
    }
    first, values = train()
    assert first.drift == pytest.approx(expected, abs=1e-4)
    for _ in range(15):
        _, later = train()
    assert later["stream/demonstration/nll"] < values["stream/demonstration/nll"] - 0.5
    shares = [values[f"stream/{name}/share"] for name in ("fresh", "replay", "demonstration", "text")]
    assert sum(shares) == pytest.approx(1.0) and shares[3] == 0.0
