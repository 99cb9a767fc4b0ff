"""The store gives back what it was given, forgets nothing it needs, and says clearly what is wrong with its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.batch import Stream
from rl.replay.store import Kept, ReplayStoreError, TrajectoryStore
from tests.fakes.replay import sample


def store_at(directory: Path, *, capacity: int = 8, tokenizer: str = "letters") -> TrajectoryStore:
    return TrajectoryStore(directory, tokenizer=tokenizer, capacity=capacity)


def kept(step: int, count: int) -> list[Kept]:
    return [Kept(sample=sample(f"g{step}", i, length=3 + i), outcome=float(i % 2), solved=0.5) for i in range(count)]


def names(store: TrajectoryStore) -> list[str]:
    return [f"{s.group_id}/{s.sibling}" for s in store.read(store.held())]


def test_samples_come_back_as_they_were_but_for_the_stream(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    given = kept(1, 3)
    referenced = replace(given[1].sample, reference_logprobs=given[1].sample.sampler_logprobs - 1)
    given[1] = replace(given[1], sample=referenced)
    store.add(1, given)
    found = store.read(store.held())
    for before, after in zip(given, found, strict=True):
        assert after.stream is Stream.REPLAY and after.policy == before.sample.policy
        for name in ("token_ids", "loss_mask", "advantages", "sampler_logprobs"):
            a, b = getattr(before.sample, name), getattr(after, name)
            assert a.dtype == b.dtype and np.array_equal(a, b)
    assert found[0].reference_logprobs is None and found[1].reference_logprobs is not None
    assert store.index["tokens"][store.held()].tolist() == [3, 4, 5]


def test_rows_beyond_the_first_row_group_are_found(tmp_path: Path) -> None:
    store = store_at(tmp_path, capacity=300)
    store.add(1, kept(1, 200))
    chosen = store.held()[[0, 63, 64, 130, 199]]
    assert [s.sibling for s in store.read(chosen[::-1])] == [199, 130, 64, 63, 0]


def test_the_oldest_gives_way(tmp_path: Path) -> None:
    store = store_at(tmp_path, capacity=4)
    store.add(1, kept(1, 3))
    store.add(2, kept(2, 3))
    assert names(store) == ["g1/2", "g2/0", "g2/1", "g2/2"]
    store.add(3, kept(3, 6))  # more than there is room for: the first two are never held
    assert names(store) == ["g3/2", "g3/3", "g3/4", "g3/5"]


def test_a_restored_store_goes_on_as_the_undisturbed_one(tmp_path: Path) -> None:
    whole, broken = store_at(tmp_path / "whole", capacity=5), store_at(tmp_path / "broken", capacity=5)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for store in (whole, broken):
        store.add(1, kept(1, 3))
        store.release(store.held()[:1])
        store.index["drift"][store.held()] = 0.125
    broken.save(checkpoint)
    state = broken.state_dict()
    broken.add(2, kept(2, 2))  # is lost with the kill
    again = store_at(tmp_path / "broken", capacity=5)
    again.restore(checkpoint, state)
    assert [p.name for p in (tmp_path / "broken" / "set-aside-1").iterdir()] == ["step-000002.parquet"]
    for store in (whole, again):
        store.add(2, kept(2, 3))
    assert names(again) == names(whole) and again.sources == whole.sources
    assert np.array_equal(np.asarray(again.index), np.asarray(whole.index), equal_nan=False) or all(
        np.array_equal(again.index[n], whole.index[n], equal_nan=n == "drift") for n in whole.index.dtype.names or ()
    )


def test_another_capacity_keeps_the_newest(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store", capacity=6)
    store.add(1, kept(1, 3))
    store.add(2, kept(2, 3))
    store.save(tmp_path)
    smaller = store_at(tmp_path / "store", capacity=4)
    smaller.restore(tmp_path, store.state_dict())
    assert names(smaller) == ["g1/2", "g2/0", "g2/1", "g2/2"]


def test_without_a_checkpoint_everything_is_set_aside(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    store.add(1, kept(1, 2))
    store_at(tmp_path).restore(None, {})
    assert not list(tmp_path.glob("step-*")) and len(list(tmp_path.glob("set-aside-1/*"))) == 1


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def damage_remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_remove])
def test_a_truncated_store_is_refused_and_left_alone(tmp_path: Path, damage: object) -> None:
    store = store_at(tmp_path / "store")
    store.add(1, kept(1, 2))
    store.add(2, kept(2, 2))
    store.save(tmp_path)
    damage(tmp_path / "store" / "step-000001.parquet")  # type: ignore[operator]
    before = {p: p.read_bytes() for p in (tmp_path / "store").glob("*.parquet")}
    with pytest.raises(ReplayStoreError, match=r"step-000001\.parquet, which is missing or cut short .* put the file"):
        store_at(tmp_path / "store").restore(tmp_path, store.state_dict())
    assert {p: p.read_bytes() for p in (tmp_path / "store").glob("*.parquet")} == before


def test_a_store_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    store.add(1, kept(1, 2))
    store.save(tmp_path)
    with pytest.raises(ReplayStoreError, match="made with tokenizer 'letters', and this run has 'words'"):
        store_at(tmp_path / "store", tokenizer="words").restore(tmp_path, store.state_dict())
    assert (tmp_path / "store" / "step-000001.parquet").is_file()


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "index.npy", np.zeros(3))
    with pytest.raises(ReplayStoreError, match="entries of float64"):
        store_at(tmp_path / "store").restore(tmp_path, {"next": 0})
