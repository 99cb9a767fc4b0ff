"""Publish and prove: a publish returns only if every engine serves what the learner holds."""

import numpy as np
import pytest

from rl.sync import PublishAndProve, SyncMismatchError
from tests.fakes.learner import FakeSink, FakeSource

PROBES = [[1, 2, 3], [4, 5]]


def make(num_engines: int = 3) -> tuple[FakeSource, FakeSink, PublishAndProve]:
    source, sink = FakeSource(-1.5), FakeSink(num_engines)
    return source, sink, PublishAndProve(source, sink, PROBES, tolerance=1e-3)


async def test_a_publish_moves_all_chunks_in_order_and_reports_the_largest_difference() -> None:
    _, sink, sync = make()
    metrics = {m.name: m.value for m in await sync.publish(3)}
    assert sink.calls == ["begin 3", "receive first", "receive second", "finish 3"]
    assert metrics["sync/max_probe_difference"] == 0.0
    assert metrics["sync/move_s"] >= 0.0


async def test_a_difference_within_tolerance_passes_and_is_reported() -> None:
    source, sink, sync = make()
    await sync.publish(3)
    source.value += 5e-4
    sink.deaf = {0, 1, 2}
    metrics = {m.name: m.value for m in await sync.publish(3)}
    assert metrics["sync/max_probe_difference"] == pytest.approx(5e-4, rel=1e-2)


async def test_an_engine_that_keeps_old_weights_but_counts_the_publish_is_named() -> None:
    _, sink, sync = make()
    sink.deaf = {1}
    with pytest.raises(SyncMismatchError, match=r"engine 1 by 1\.5") as caught:
        await sync.publish(3)
    assert "engine 0" not in str(caught.value) and "engine 2" not in str(caught.value)


async def test_a_probe_that_is_not_a_number_is_a_mismatch() -> None:
    source, _, sync = make()
    source.value = float("nan")
    with pytest.raises(SyncMismatchError, match="engine 0 by nan, engine 1 by nan, engine 2 by nan"):
        await sync.publish(3)


async def test_an_engine_at_an_older_version_is_named() -> None:
    _, sink, sync = make()
    sink.stuck = {0, 2}
    with pytest.raises(SyncMismatchError, match="published version 3, but engine 0 serves 0, engine 2 serves 0"):
        await sync.publish(3)


async def test_a_learner_at_another_version_is_refused_before_anything_moves() -> None:
    _, sink, sync = make()
    with pytest.raises(SyncMismatchError, match="asked to publish version 4, but the learner holds version 3"):
        await sync.publish(4)
    assert sink.calls == []


async def test_checksums_name_the_tensor_that_arrived_wrong() -> None:
    source, sink, _ = make()
    sink.damaged = {2}
    sync = PublishAndProve(source, sink, PROBES, tolerance=1e-3, engine_checksums=sink.checksums)
    with pytest.raises(SyncMismatchError, match="Tensors that arrived wrong: engine 2: second"):
        await sync.publish(3)


async def test_checksums_that_agree_put_the_blame_on_loading() -> None:
    source, sink, _ = make()
    sink.deaf = {0}

    async def intact() -> list[dict[str, str]]:
        return [await source.checksums()] * sink.num_engines

    sync = PublishAndProve(source, sink, PROBES, tolerance=1e-3, engine_checksums=intact)
    with pytest.raises(SyncMismatchError, match="Every tensor arrived intact"):
        await sync.publish(3)


async def test_no_engine_and_missing_answers_are_mismatches(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, nobody = make(num_engines=0)
    with pytest.raises(SyncMismatchError, match="there is no engine"):
        await nobody.publish(3)

    _, sink, sync = make()

    async def short(token_ids: list[list[int]]) -> list[list[np.ndarray]]:
        return [[np.zeros(1, np.float32) for _ in token_ids] for _ in range(3)]

    monkeypatch.setattr(sink, "probe", short)
    with pytest.raises(SyncMismatchError, match="engine 0 answered the probe in shapes"):
        await sync.publish(3)


@pytest.mark.parametrize("probes", [[], [[1]], [[1, 2], [3]]])
def test_probes_too_short_to_prove_anything_are_refused(probes: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least two tokens"):
        PublishAndProve(FakeSource(0.0), FakeSink(1), probes, tolerance=1e-3)
