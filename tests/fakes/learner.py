"""Samples and stand-ins for tests of the learner and of weight sync."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from rl.batch import TrainingBatch, TrainingSample
from rollout.schema import Float32Array, PolicySpan


def training_sample(
    index: int, *, length: int, prompt_len: int = 3, advantage: float = 1.0, vocab: tuple[int, int] = (8, 20)
) -> TrainingSample:
    """One sample whose content depends on `index` alone."""
    rng = np.random.default_rng(index)
    mask = np.arange(length) >= prompt_len
    return TrainingSample(
        group_id=f"g{index // 4}",
        sibling=index % 4,
        effort="high",
        token_ids=rng.integers(*vocab, length).astype(np.int32),
        loss_mask=mask,
        advantages=np.where(mask, advantage, 0.0).astype(np.float32),
        sampler_logprobs=np.where(mask, -2.5 - rng.random(length), 0.0).astype(np.float32),
        policy=PolicySpan(start=0, end=0),
    )


def training_batch(num_samples: int, *, seed: int = 0, min_length: int = 6, max_length: int = 24) -> TrainingBatch:
    """Samples of mixed lengths and advantages of both signs."""
    rng = np.random.default_rng(seed)
    samples = tuple(
        training_sample(
            i, length=int(rng.integers(min_length, max_length + 1)), advantage=float(rng.choice([-1.0, -0.4, 0.6, 1.2]))
        )
        for i in range(num_samples)
    )
    return TrainingBatch(step=1, version=0, samples=samples, num_groups=-(-num_samples // 4))


class FakeSource:
    """A learner whose model is one number: every log-probability of a probe equals it."""

    def __init__(self, value: float, *, version: int = 3) -> None:
        self.value = value
        self.held = version

    async def version(self) -> int:
        return self.held

    async def export(self) -> AsyncIterator[object]:
        for name in ("first", "second"):
            yield (name, self.value)

    async def probe(self, token_ids: list[list[int]]) -> list[Float32Array]:
        return [np.full(len(ids), self.value, np.float32) for ids in token_ids]

    async def checksums(self) -> dict[str, str]:
        return {"first": str(self.value), "second": str(self.value)}


class FakeSink:
    """Engines that serve the last `second` chunk they were given, unless told to break."""

    def __init__(self, num_engines: int) -> None:
        self.num_engines = num_engines
        self.calls: list[str] = []
        self.served = [{"first": 0.0, "second": 0.0} for _ in range(num_engines)]
        self.counted = [0] * num_engines
        self.deaf: set[int] = set()  # engines that keep the old tensors, but count the publish
        self.stuck: set[int] = set()  # engines that do not count the publish
        self.damaged: set[int] = set()  # engines that receive `second` changed

    async def begin_update(self, version: int) -> None:
        self.calls.append(f"begin {version}")

    async def receive(self, chunk: object) -> None:
        assert isinstance(chunk, tuple)
        name, value = chunk
        self.calls.append(f"receive {name}")
        for engine in set(range(self.num_engines)) - self.deaf:
            self.served[engine][name] = value + 1.0 if engine in self.damaged and name == "second" else value

    async def finish_update(self, version: int) -> None:
        self.calls.append(f"finish {version}")
        self.counted = [old if e in self.stuck else version for e, old in enumerate(self.counted)]

    async def versions(self) -> list[int]:
        return self.counted

    async def probe(self, token_ids: list[list[int]]) -> list[list[Float32Array]]:
        return [[np.full(len(ids), held["second"], np.float32) for ids in token_ids] for held in self.served]

    async def checksums(self) -> list[dict[str, str]]:
        return [{name: str(value) for name, value in held.items()} for held in self.served]
