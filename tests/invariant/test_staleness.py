"""No sample is trained on more than `max_lag` batches after it was drawn, whatever the delays (`rl/buffer.py`)."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rl.buffer import Buffer, Slot
from rl.config import SamplingConfig
from rl.control import Control
from rl.driver import train
from rl.metrics import read_metrics
from rl.run import Run, RunFailedError
from tests.fakes.loop import World, make_world, play, random_delay

NUM_STEPS = 8


def random_world(directory: Path, seed: int, max_lag: int, groups_per_step: int, **more: object) -> World:
    world = make_world(
        directory, num_steps=NUM_STEPS, groups_per_step=groups_per_step, max_lag=max_lag, seed=seed, **more
    )
    world.engines.delay = random_delay(seed, 5.0)
    world.engines.publish_delay = random_delay(seed + 1, 2.0)
    world.judge.delay = random_delay(seed + 2, 2.0)
    world.learner.delay = random_delay(seed + 3, 3.0)
    world.learner.optimizer_steps = 1 + seed % 3
    return world


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 3), st.integers(1, 4), st.booleans(), st.booleans())
def test_bound_holds(seed: int, max_lag: int, groups_per_step: int, replaces: bool, in_flight: bool) -> None:
    """Of every token, also where a publish changes the weights in the middle of a response."""
    sampling = SamplingConfig(on_drop="replace", max_refills=2) if replaces else SamplingConfig()
    with tempfile.TemporaryDirectory() as directory:
        world = random_world(Path(directory), seed, max_lag, groups_per_step, sampling=sampling)
        world.engines.in_flight = in_flight
        world.judge.verdict = lambda job, sibling: float(sibling % 2 and int(job.group_id[1:]) % 4 != seed % 4)
        play(train(world.run))
    assert [step for step, _ in world.reporter.steps] == list(range(1, NUM_STEPS + 1))
    assert max(world.learner.lags, default=0) <= max_lag
    ids = [s.group_id for batch in world.learner.trained for s in batch.samples]
    if not replaces:
        assert ids == sorted(ids), "training must follow the order of admission"


def test_bound_is_reached(tmp_path: Path) -> None:
    """A slow learner lets generation run ahead as far as it may: the bound is tight."""
    world = make_world(tmp_path, num_steps=NUM_STEPS, max_lag=2)
    world.learner.delay = lambda: 100.0
    play(train(world.run))
    assert world.learner.lags == [0, 1, 2, 2, 2, 2, 2, 2]


def test_responses_in_flight_say_which_token_is_from_which_weights(tmp_path: Path) -> None:
    world = random_world(tmp_path, seed=5, max_lag=2, groups_per_step=3)
    world.engines.in_flight = True
    play(train(world.run))
    samples = [s for batch in world.learner.trained for s in batch.samples]
    continued = [s for s in samples if s.policy.switches]
    assert continued, "no publish met a response in flight"
    for sample in continued:
        versions = sample.policy.at(np.flatnonzero(sample.loss_mask))
        assert versions[0] == sample.policy.start < sample.policy.end == versions[-1]
    rows = [
        line["metrics"] for line in read_metrics(tmp_path / "metrics.jsonl") if "staleness/continued" in line["metrics"]
    ]
    assert max(row["staleness/continued"] for row in rows) > 0
    for row in rows:
        shares = {n: v for n, v in row.items() if n.startswith("staleness/tokens_lag_")}
        assert sum(shares.values()) == pytest.approx(1)
        assert max(int(n.rpartition("_")[2]) for n in shares) == row["buffer/max_staleness"] <= 2


def test_without_lag_generation_and_training_take_turns(tmp_path: Path) -> None:
    world = make_world(tmp_path, max_lag=0)
    world.learner.optimizer_steps = 3
    play(train(world.run))
    assert all(s.policy.start == batch.version for batch in world.learner.trained for s in batch.samples)


class LastInFirstOut(Buffer):
    """Trains on the newest slots that have come in while it slept."""

    def __init__(self, *, groups_per_step: int, max_lag: int, first_step: int = 1) -> None:
        super().__init__(groups_per_step=groups_per_step, max_lag=max_lag, first_step=first_step)
        self._order = asyncio.LifoQueue()

    async def take(self) -> list[Slot]:
        await asyncio.sleep(100)
        return await super().take()


class EarlyRelease(Buffer):
    """Frees slots as soon as they are taken, before anything is trained."""

    async def take(self) -> list[Slot]:
        slots = await super().take()
        super().release(len(slots))
        return slots

    def release(self, num_slots: int) -> None:
        pass


@pytest.mark.parametrize("planted", [LastInFirstOut, EarlyRelease])
def test_planted_faults_break_the_bound(planted: type[Buffer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes the order or the moment of release is caught by the measurement, and by the loop's own guard."""
    monkeypatch.setattr("rl.run.Buffer", planted)
    guarded = random_world(tmp_path / "guarded", 1, 1, 2)
    with pytest.raises(RunFailedError, match="StalenessError"):
        play(train(guarded.run))
    monkeypatch.setattr(Run, "lags", lambda self, batch: [0] * len(batch.samples))
    unguarded = random_world(tmp_path / "unguarded", 1, 1, 2)
    play(train(unguarded.run))
    assert max(unguarded.learner.lags) > 1


def test_an_engine_that_keeps_old_weights_is_caught(tmp_path: Path) -> None:
    """A sync that lies about one engine: the samples' own versions tell."""
    world = make_world(tmp_path, max_lag=0)

    async def lie(version: int) -> list[object]:
        await asyncio.sleep(0.1)
        world.engines.versions[0] = version
        return []

    world.engines.publish = lie  # type: ignore[method-assign,assignment]
    with pytest.raises(RunFailedError, match="StalenessError: step 2 holds a sample of version 0"):
        play(train(world.run))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10_000), st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_bound_holds_when_it_is_changed(seed: int, first: int, later: list[int]) -> None:
    """A new max_lag after every second step. A batch has the largest bound that a slot of it was admitted under."""
    with tempfile.TemporaryDirectory() as directory:
        world = random_world(Path(directory), seed, first, 2)
        run, bounds = world.run, []
        changes = iter(later)

        async def adopt(settings: object) -> None:
            run.change_lag(next(changes, run.lag.max_lag))

        class EverySecond(Control):
            async def at_boundary(self, step: int) -> None:
                bounds.append(run.buffer.bound(step))
                if step % 2 == 0:
                    await self.adopt({})

        run.control = EverySecond(adopt=adopt, log=Path(directory) / "control.jsonl")
        play(train(run))
    assert [step for step, _ in world.reporter.steps] == list(range(1, NUM_STEPS + 1))
    assert len(bounds) == len(world.learner.lags) == NUM_STEPS
    assert all(lag <= bound for lag, bound in zip(world.learner.lags, bounds, strict=True))
    assert bounds[-1] in (first, *later)


async def test_a_smaller_buffer_admits_nothing_until_it_fits() -> None:
    """Six slots at lag 2; at lag 0 there is room for two again only when five are released."""
    buffer = Buffer(groups_per_step=2, max_lag=2)
    for _ in range(6):
        (await buffer.admit()).is_settled.set()
    buffer.resize(0)
    waiting = asyncio.create_task(buffer.admit())
    for _ in range(2):
        buffer.release(len(await buffer.take()))
        await asyncio.sleep(0)
        assert not waiting.done() and buffer.num_held > 0
    buffer.release(len(await buffer.take()))
    slot = await waiting
    assert (slot.index, slot.step, buffer.capacity) == (6, 4, 2)
    assert [buffer.bound(step) for step in (1, 2, 3, 4, 9)] == [2, 2, 2, 0, 0]
    buffer.resize(1)
    assert [buffer.bound(step) for step in (3, 4, 5)] == [2, 1, 1], "one slot of step 4 is still to come"
    await asyncio.gather(*(asyncio.wait_for(buffer.admit(), 1) for _ in range(3)))
