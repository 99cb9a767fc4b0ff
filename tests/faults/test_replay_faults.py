"""A run whose replay store was damaged, or that comes back with another tokenizer: named, refused, and nothing lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rl.driver import train
from rl.record_reader import ledger
from rl.replay.config import ShareReplay
from rl.replay.share import SharePolicy
from rl.replay.store import ReplayStoreError, TrajectoryStore
from rl.resume import resume
from tests.fakes.loop import World, make_world, play
from tests.fakes.replay import FakeComparer

NUM_STEPS = 6
CONFIG = ShareReplay(share=0.5, watch_every=0, max_uses=2, max_age=3)
Samples = list[tuple[int, list[tuple[str, int, int]]]]


def world_at(directory: Path, *, tokenizer: str = "letters") -> World:
    world = make_world(directory, num_steps=NUM_STEPS, num_tasks=40, checkpoint_every=2)
    store = TrajectoryStore(directory / "replay", tokenizer=tokenizer, capacity=64)
    world.run.policies = [SharePolicy(CONFIG, store, FakeComparer([]), seed=0, warn=pytest.fail)]
    return world


def trained(world: World) -> Samples:
    return [(b.step, [(s.group_id, s.sibling, int(s.stream)) for s in b.samples]) for b in world.learner.trained]


def interrupted_after_four_steps(directory: Path) -> None:
    world = world_at(directory)

    async def fail(batch: object) -> None:
        if len(world.learner.trained) == 4:
            raise RuntimeError("a learner died")

    world.learner.fault = fail
    with pytest.raises(RuntimeError, match="a learner died"):
        play(train(world.run))


def go_on(world: World) -> Samples:
    async def work() -> None:
        await resume(world.run)
        world.engines.versions = [world.run.version] * 2
        await train(world.run)

    play(work())
    return trained(world)


def contents(directory: Path) -> dict[str, bytes]:
    files = (path for place in ("replay", "checkpoints") for path in (directory / place).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files if path.name != "index.npy"}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("damage", [cut, Path.unlink], ids=["cut", "removed"])
def test_a_damaged_store_stops_the_resume_and_put_back_it_goes_on(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    whole = world_at(tmp_path / "whole")
    play(train(whole.run))
    place = tmp_path / "broken"
    interrupted_after_four_steps(place)
    file = place / "replay" / "step-000003.parquet"
    before, kept = file.read_bytes(), ledger(place / "groups")
    damage(file)
    damaged = contents(place)
    with pytest.raises(ReplayStoreError, match=r"step-000003\.parquet, which is missing or cut short .* put the file"):
        go_on(world_at(place))
    assert contents(place) == damaged
    assert ledger(place / "groups") == kept
    file.write_bytes(before)
    assert go_on(world_at(place)) == trained(whole)[4:]
    assert ledger(place / "groups") == ledger(tmp_path / "whole" / "groups")


def test_another_tokenizer_is_refused_and_the_right_one_goes_on(tmp_path: Path) -> None:
    interrupted_after_four_steps(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ReplayStoreError, match="made with tokenizer 'letters', and this run has 'words'"):
        go_on(world_at(tmp_path, tokenizer="words"))
    assert contents(tmp_path) == before
    assert [step for step, _ in go_on(world_at(tmp_path))] == [5, 6]


def test_a_damaged_store_can_be_left_behind(tmp_path: Path) -> None:
    """The remedy that the message names: resume without the section."""
    interrupted_after_four_steps(tmp_path)
    cut(tmp_path / "replay" / "step-000003.parquet")
    world = world_at(tmp_path)
    world.run.policies = []
    assert [step for step, _ in go_on(world)] == [5, 6]
