"""Surplus groups replace dropped ones, serve the next step, keep the bound on staleness, and lose no task."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launch.recipe import RecipeError, load
from rl.buffer import Slot
from rl.config import SamplingConfig
from rl.driver import train
from rl.record_reader import LedgerEntry, ledger
from rl.resume import resume
from rl.spares import TOO_OLD, Spare, Spares
from tests.fakes.loop import World, make_scored, make_world, play, random_delay

NUM_STEPS, GROUPS = 8, 4
SURPLUS = SamplingConfig(on_drop="replace", max_refills=2, surplus=3)


def world_at(directory: Path, *, max_lag: int = 1, seed: int = 0) -> World:
    world = make_world(
        directory,
        num_steps=NUM_STEPS,
        groups_per_step=GROUPS,
        max_lag=max_lag,
        num_tasks=400,
        sampling=SURPLUS,
        seed=seed,
        checkpoint_every=2,
    )
    world.engines.delay = random_delay(seed, 5.0)
    world.learner.delay = random_delay(seed + 1, 3.0)
    world.judge.verdict = lambda job, sibling: float(sibling % 2 and int(job.task.prompt[0].content.split()[0]) % 3 > 0)
    return world


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_bound_holds_and_each_task_is_settled_once(seed: int, max_lag: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        world = world_at(Path(directory), max_lag=max_lag, seed=seed)
        play(train(world.run))
        entries = ledger(Path(directory) / "groups")
    assert [step for step, _ in world.reporter.steps] == list(range(1, NUM_STEPS + 1))
    assert max(world.learner.lags) <= max_lag
    keys = [entry.task_key for entry in entries]
    assert len(keys) == len(set(keys))
    issued = {job.task.key for job in world.engines.jobs}
    assert issued - set(keys) == {job.task.key for job in world.run.jobs._out.values()}


def test_what_was_not_needed_serves_the_next_step(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    world.judge.verdict = lambda job, sibling: float(sibling % 2)
    world.engines.delay = lambda: 1.0
    play(train(world.run))
    metrics = {m.name: m.value for m in world.reporter.metrics[-1]}
    assert metrics["spares/used_so_far"] >= 3
    steps = {e.group_id: e.step for e in ledger(tmp_path / "groups")}
    spare = sorted(steps)[GROUPS]  # the first group after those of step 1
    assert steps[spare] == 2


def test_a_group_is_carried_as_far_as_the_bound_allows() -> None:
    spares = Spares(4)
    for _ in range(4):
        spares.begin()
    assert not spares.may_begin()
    kept, old, bad, more = (make_scored([1.0, 0.0]) for _ in range(4))
    spares.finish(Spare(scored=old, born=3, drop_reason=None))
    spares.finish(Spare(scored=kept, born=4, drop_reason=None))
    spares.finish(Spare(scored=bad, born=4, drop_reason="all_wrong"))
    spares.finish(Spare(scored=more, born=4, drop_reason=None))
    slot = Slot(index=0, step=6)
    assert spares.fill(slot, max_lag=1)
    assert slot.attempts == [bad, old, kept]
    assert slot.drop_reasons == ["all_wrong", TOO_OLD, None]
    assert slot.num_rolled == 0, "they do not count as refills"
    assert spares.may_begin()


def test_killed_in_the_middle_of_a_refill_each_task_is_settled_once(tmp_path: Path) -> None:
    def run(directory: Path, interrupt_at: float | None) -> list[LedgerEntry]:
        async def go() -> None:
            world = world_at(directory, seed=3)
            await resume(world.run)
            world.engines.versions = [world.run.version] * 2
            training = asyncio.ensure_future(train(world.run))
            if interrupt_at is not None:
                await asyncio.sleep(interrupt_at)
                training.cancel()
                await asyncio.wait({training})
                return
            await training

        play(go())
        return ledger(directory / "groups")

    for number, moment in enumerate((6.0, 13.0, 21.0)):
        directory = tmp_path / str(number)
        first = run(directory, moment)
        assert max((e.step for e in first), default=0) < NUM_STEPS
        keys = [entry.task_key for entry in run(directory, None)]
        assert len(keys) == len(set(keys))
        assert {e.task_key for e in first} <= set(keys)


def test_surplus_needs_replacement_and_lag() -> None:
    with pytest.raises(ValueError, match="surplus = 2 needs on_drop = 'replace'"):
        SamplingConfig(surplus=2)
    recipe = Path(__file__).parents[2] / "launch/recipes/quickstart.toml"
    refill = ["sampling.on_drop=replace", "sampling.max_refills=1", "sampling.surplus=8"]
    with pytest.raises(RecipeError, match=r"buffer\.max_lag = 0 forbids it"):
        load(recipe, refill)
    assert load(recipe, [*refill, "buffer.max_lag=1"]).sampling.surplus == 8
