"""Publish the learner's weights, then prove that every engine serves them.

Weights travel as opaque references to chunks, one at a time: one chunk at most is held besides the models themselves.
A version counter alone proves nothing: an engine may count a publish and still keep an old matrix, such as a tied
output head. So after each publish every engine is asked for the log-probabilities of a few fixed sequences, and these
are compared with the learner's own. A mismatch stops the run.

The file knows neither torch nor ray: source and sink are Protocols, a reference is an `object`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from rollout.schema import Float32Array, Metric

EngineChecksums = Callable[[], Awaitable[Sequence[Mapping[str, str]]]]


class WeightSource(Protocol):
    """The learner: it owns the weights."""

    async def version(self) -> int:
        """Optimizer steps in the weights."""
        ...

    def export(self) -> AsyncIterator[object]:
        """All weights in order, as references to chunks of (name, tensor) pairs."""
        ...

    async def probe(self, token_ids: list[list[int]]) -> list[Float32Array]:
        """Per sequence, [L] log-probability of each token given its prefix, at temperature 1; 0 for the first."""
        ...

    async def checksums(self) -> Mapping[str, str]:
        """Digest of every exported tensor by name, over its shape, dtype and bytes."""
        ...


class WeightSink(Protocol):
    """All engines: they serve the weights. A call returns when every engine has done its part."""

    async def begin_update(self, version: int) -> None: ...

    async def receive(self, chunk: object) -> None: ...

    async def finish_update(self, version: int) -> None: ...

    async def versions(self) -> list[int]: ...

    async def probe(self, token_ids: list[list[int]]) -> list[list[Float32Array]]:
        """Per engine, what `WeightSource.probe` returns."""
        ...


class SyncMismatchError(RuntimeError):
    """At least one engine does not serve the weights that were published. The run cannot go on."""


class PublishAndProve:
    """Weight sync that returns only when every engine has proved what it serves. Implements `rl.ports.WeightSync`.

    Args:
        probe_ids: sequences of at least two tokens, spread over the vocabulary the run uses.
        tolerance: largest absolute log-probability difference between an engine and the learner that still counts as
            equal. It covers different kernels, not different weights: an update changes probes by its own size, so keep
            it as small as the kernels allow.
        engine_checksums: per engine, what `WeightSource.checksums` returns for the tensors it received. With it, a
            mismatch names tensors that were damaged on the way; a mismatch without damage lies in the engine's loading.
    """

    def __init__(
        self,
        source: WeightSource,
        sink: WeightSink,
        probe_ids: Sequence[Sequence[int]],
        tolerance: float,
        *,
        engine_checksums: EngineChecksums | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._probe_ids = [list(ids) for ids in probe_ids]
        self._tolerance = tolerance
        self._engine_checksums = engine_checksums
        if not self._probe_ids or min(len(ids) for ids in self._probe_ids) < 2:
            raise ValueError("the proof of sync needs at least one probe, and at least two tokens in each of them")

    async def publish(self, version: int) -> list[Metric]:
        """Move the weights and prove it.

        Raises:
            SyncMismatchError: the learner is not at `version`, or an engine does not serve it.
        """
        held = await self._source.version()
        if held != version:
            raise SyncMismatchError(f"asked to publish version {version}, but the learner holds version {held}")
        start = time.perf_counter()
        await self._sink.begin_update(version)
        async for chunk in self._source.export():
            await self._sink.receive(chunk)
        await self._sink.finish_update(version)
        moved = time.perf_counter()
        difference = await self._prove(version)
        proved = time.perf_counter()
        return [
            Metric(name="sync/move_s", value=moved - start),
            Metric(name="sync/prove_s", value=proved - moved),
            Metric(name="sync/max_probe_difference", value=difference, reduce="max"),
        ]

    async def _prove(self, version: int) -> float:
        """Largest probe difference over all engines, all of them within tolerance."""
        versions = await self._sink.versions()
        stale = {engine: got for engine, got in enumerate(versions) if got != version}
        if stale or not versions:
            listed = ", ".join(f"engine {engine} serves {got}" for engine, got in stale.items()) or "there is no engine"
            raise SyncMismatchError(f"published version {version}, but {listed}")

        expected = await self._source.probe(self._probe_ids)
        answers = await self._sink.probe(self._probe_ids)
        if len(answers) != len(versions):
            raise SyncMismatchError(f"{len(versions)} engines, but {len(answers)} of them answered the probe")
        differences = [_largest_difference(engine, expected, answer) for engine, answer in enumerate(answers)]
        # NaN must fail, so the comparison asks for "within", never for "beyond".
        wrong = {e: d for e, d in enumerate(differences) if not d <= self._tolerance}
        if wrong:
            listed = ", ".join(f"engine {engine} by {difference:.3g}" for engine, difference in wrong.items())
            raise SyncMismatchError(
                f"after publishing version {version}, probe log-probabilities differ from the learner's by more than "
                f"{self._tolerance:.3g}: {listed}. {await self._damage(list(wrong))}"
            )
        return max(differences)

    async def _damage(self, engines: list[int]) -> str:
        """What checksums say about the engines that failed."""
        if self._engine_checksums is None:
            return "No checksums of the received tensors are at hand; suspect an engine that rebuilds weights on load."
        expected = await self._source.checksums()
        received = await self._engine_checksums()
        damaged = {
            engine: sorted(name for name in expected if received[engine].get(name) != expected[name])
            for engine in engines
        }
        named = "; ".join(f"engine {engine}: {', '.join(names)}" for engine, names in damaged.items() if names)
        return (
            f"Tensors that arrived wrong: {named}" if named else "Every tensor arrived intact: the loading is at fault."
        )


def _largest_difference(engine: int, expected: list[Float32Array], answer: list[Float32Array]) -> float:
    """Largest absolute difference; NaN if either side holds NaN."""
    shapes = [a.shape for a in expected], [a.shape for a in answer]
    if shapes[0] != shapes[1]:
        raise SyncMismatchError(f"engine {engine} answered the probe in shapes {shapes[1]}, expected {shapes[0]}")
    return float(np.abs(np.concatenate(expected) - np.concatenate(answer)).max())
