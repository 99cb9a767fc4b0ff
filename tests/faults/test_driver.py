"""Parts of the loop hang, raise, starve and are interrupted: one clear error, nothing lost, everything closed."""

from __future__ import annotations

import asyncio
import math
import signal
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rl.batch import TrainingBatch
from rl.checkpoint import CheckpointError
from rl.config import EvaluateConfig, SamplingConfig
from rl.driver import train
from rl.record_reader import ledger, recorded_steps
from rl.resume import resume
from rl.run import DroughtError, RunFailedError
from rl.waits import WaitTimeoutError
from rollout.schema import Float32Array, Group, Outcome, ScoredGroup
from tests.fakes.loop import World, make_world, play


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


async def crash(*_: object) -> None:
    raise ZeroDivisionError("planted")


def after(count: int, fault: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """The fault from call number `count` on."""
    calls = 0

    async def later(*args: object) -> None:
        nonlocal calls
        calls += 1
        if calls > count:
            await fault(*args)

    return later


class BrokenScorer:
    def __init__(self, fault: Callable[..., Awaitable[None]]) -> None:
        self.fault = fault

    async def score(self, group: Group) -> tuple[None, ...]:
        await self.fault()
        return (None,) * len(group.trajectories)


PLANT: dict[str, Callable[[World, Any], None]] = {
    "the generator": lambda w, f: setattr(w.engines, "fault", after(4, f)),
    "the judge": lambda w, f: setattr(w.judge, "fault", after(4, f)),
    "the step scorer": lambda w, f: setattr(w.run, "step_scorer", BrokenScorer(after(4, f))),
    "the learner at step 2": lambda w, f: setattr(w.learner, "fault", after(1, f)),
    "the engines to serve version 2": lambda w, f: setattr(w.engines, "publish_fault", after(2, f)),
}
LOOP = {"the generator": "roll", "the judge": "roll", "the step scorer": "roll"}


def fail(world: World) -> RunFailedError:
    with pytest.raises(RunFailedError) as caught:
        play(train(world.run))
    return caught.value


@pytest.mark.parametrize("target", PLANT)
def test_a_hang_ends_the_run_and_names_what_hangs(target: str, tmp_path: Path) -> None:
    world = make_world(tmp_path, wait_deadline_s=60)
    PLANT[target](world, hang)
    error = fail(world)
    assert isinstance(error.__cause__, WaitTimeoutError)
    assert f"waited more than 60 s for {target}" in str(error)
    assert f"run failed in {LOOP.get(target, 'learn')} (" in str(error)


@pytest.mark.parametrize("target", PLANT)
def test_an_exception_ends_the_run_and_is_printed_last(target: str, tmp_path: Path) -> None:
    world = make_world(tmp_path)
    PLANT[target](world, crash)
    error = fail(world)
    assert isinstance(error.__cause__, ZeroDivisionError)
    last_line = traceback.format_exception(error)[-1]
    assert last_line.startswith(f"rl.run.RunFailedError: run failed in {LOOP.get(target, 'learn')} (")
    assert "ZeroDivisionError: planted" in last_line
    if target in LOOP:
        assert "group g0000" in last_line and "effort" in last_line


def test_feed_and_pack_name_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = make_world(tmp_path / "feed", num_tasks=2)
    monkeypatch.setattr(feed.run.jobs.sampler, "next", lambda: 1 / 0)
    assert "run failed in feed (admission) after step 0: ZeroDivisionError" in str(fail(feed))

    class Faulty:
        name = "faulty"
        needs_greedy_baseline = False

        def __init__(self, sampled: float, prompt: float) -> None:
            self.values = sampled, prompt

        def __call__(self, groups: Sequence[ScoredGroup]) -> list[tuple[Float32Array | None, ...]]:
            return [
                tuple(np.where(t.sampled, *self.values).astype(np.float32) for t in scored.group.trajectories)
                for scored in groups
            ]

    for name, credit in {"nan": Faulty(math.nan, 0.0), "prompt": Faulty(1.0, 1.0)}.items():
        pack = make_world(tmp_path / name)
        pack.run.credit = credit
        assert "run failed in pack (step 1)" in str(error := fail(pack))
        assert "credit 'faulty' must be finite" in str(error) and "g00000000/0" in str(error)
        assert not pack.learner.trained


def test_nan_from_a_shaper_stops_before_training(tmp_path: Path) -> None:
    class NanShaper:
        name = "length"

        def __call__(self, group: Group, outcomes: object) -> dict[str, Float32Array]:
            return {"length": np.full(len(group.trajectories), math.nan, np.float32)}

    world = make_world(tmp_path)
    world.run.shapers = (NanShaper(),)
    assert "shaper 'length' must give finite numbers" in str(fail(world))


def test_a_dead_inside_peer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug of ours, slots that are never freed: no outside call is to blame, so the waiting loop itself speaks up."""
    world = make_world(tmp_path, max_lag=0, wait_deadline_s=60)
    monkeypatch.setattr("rl.buffer.Buffer.release", lambda self, count: None)
    assert "waited more than 60 s for" in str(error := fail(world))
    assert "feed for a free buffer slot" in str(error)


def test_slow_is_not_stuck(tmp_path: Path) -> None:
    """Loops wait far longer than a deadline for peers whose every single call is within it."""
    world = make_world(tmp_path, wait_deadline_s=60, evaluate=EvaluateConfig(max_concurrent=1), eval_every=1)
    world.engines.delay = world.judge.delay = world.learner.delay = lambda: 50.0
    play(train(world.run))
    assert world.run.step == 4


def test_finished_steps_are_saved_when_a_loop_dies(tmp_path: Path) -> None:
    world = make_world(tmp_path, max_lag=0)
    world.engines.fault = after(7, crash)
    assert "after step 2" in str(error := fail(world)) and "resume goes on from step 2" in str(error)
    again = make_world(tmp_path, max_lag=0)

    async def go_on() -> None:
        await resume(again.run)
        again.engines.versions = [again.run.version] * 2
        await train(again.run)

    play(go_on())
    assert again.run.version == 4
    assert sorted({e.step for e in ledger(tmp_path / "groups")}) == [1, 2, 3, 4]


def test_a_half_done_step_is_not_saved(tmp_path: Path) -> None:
    """Weights that were never proven to be live must not become a checkpoint."""
    world = make_world(tmp_path)
    world.engines.publish_fault = after(2, crash)
    fail(world)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert any("half done" in warning for warning in world.reporter.warnings)


@pytest.mark.parametrize("moment", [0.5, 5.6, 6.4, 9.9])
def test_an_interruption_finishes_the_step_saves_and_closes(moment: float, tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=50)
    closed: list[str] = []

    async def close(name: str) -> None:
        closed.append(name)
        if name == "second":
            raise RuntimeError("does not close")

    world.run.closers = (lambda: close("first"), lambda: close("second"))

    async def interrupted() -> None:
        training = asyncio.ensure_future(train(world.run))
        await asyncio.sleep(moment)
        training.cancel()
        with pytest.raises(asyncio.CancelledError):
            await training

    play(interrupted())
    assert closed == ["second", "first"]
    assert any("does not close" in warning for warning in world.reporter.warnings)
    assert world.run.step == len(world.learner.trained) == world.run.saved_step
    saved = [p.name for p in (tmp_path / "checkpoints").iterdir()]
    assert saved == ([f"step-{world.run.step:06d}"] if world.run.step else [])


@pytest.fixture
def listens_to_ctrl_c() -> Iterator[None]:
    """Tests that a shell started in the background ignore SIGINT, as `ponder` itself does not."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_ctrl_c_on_the_real_clock(tmp_path: Path) -> None:
    """SIGINT while a step is trained: the step is finished and saved, then the interruption goes on its way."""
    world = make_world(tmp_path, num_steps=20, max_lag=0)
    world.engines.delay = world.engines.publish_delay = world.judge.delay = lambda: 0.001
    world.learner.delay = lambda: 0.4  # room for the interrupt on a busy machine

    async def press(batch: TrainingBatch) -> None:
        if batch.step == 3:
            asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)

    world.learner.fault = press
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(train(world.run))
    assert world.run.step == 3
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    assert recorded_steps(tmp_path / "groups") == [1, 2, 3]


def test_a_failed_checkpoint_does_not_stop_the_run(tmp_path: Path) -> None:
    """The disk is full at steps 2 and 3; the save is tried again after every step until it succeeds."""
    world = make_world(tmp_path, checkpoint_every=2)

    async def full(path: str) -> None:
        if world.run.step in (2, 3):
            Path(path).mkdir(parents=True)
            raise OSError(28, "No space left on device")

    world.learner.save_fault = full
    play(train(world.run))
    warnings = [w for w in world.reporter.warnings if "No space left on device" in w]
    assert len(warnings) == 2 and "step 2" in warnings[0] and "Earlier checkpoints are untouched" in warnings[0]
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-000004"]


def test_a_finished_run_that_cannot_be_saved_says_so(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.learner.save_fault = crash
    with pytest.raises(CheckpointError, match="step 4 could not be written"):
        play(train(world.run))
    assert world.run.step == 4


def test_drought_ends_the_run_with_the_reasons_counted(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=50, drought_limit=7)
    world.judge.verdict = lambda job, sibling: [0.0, 1.0, None][int(job.group_id[1:]) % 3]
    error = fail(world)
    assert isinstance(error.__cause__, DroughtError)
    assert "9 groups in a row gave no training signal" in str(error)
    assert all(f"{reason} 3" in str(error) for reason in ("all_wrong", "all_right", "too_few_judged"))
    assert world.run.version == 0 and not world.learner.trained
    assert [(step, result) for step, result in world.reporter.steps] == [(1, None), (2, None), (3, None)]


def test_drought_is_broken_by_one_good_group(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=10, drought_limit=7)
    world.judge.verdict = lambda job, sibling: float(sibling % 2 and int(job.group_id[1:]) % 6 == 5)
    play(train(world.run))
    assert world.run.step == 10 and world.run.version == 5


def test_replacement_gives_up_after_max_refills(tmp_path: Path) -> None:
    sampling = SamplingConfig(on_drop="replace", max_refills=2)
    world = make_world(tmp_path, num_steps=1, sampling=sampling)
    world.judge.verdict = lambda job, sibling: 0.0
    play(train(world.run))
    assert len(world.engines.jobs) == 3 * 3 and world.run.version == 0


def test_unjudged_siblings_do_not_train(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=1)
    world.run.jobs._num_siblings = 3
    world.judge.verdict = lambda job, sibling: [0.0, 1.0, None][sibling]
    play(train(world.run))
    assert {s.sibling for batch in world.learner.trained for s in batch.samples} == {0, 1}


def test_a_judge_that_loses_a_sibling_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(tmp_path)

    async def short(group: Group) -> tuple[Outcome, ...]:
        return ()

    monkeypatch.setattr(world.judge, "judge", short)
    assert "expected 2 outcomes" in str(fail(world))
