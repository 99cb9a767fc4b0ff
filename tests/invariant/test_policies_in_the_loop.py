"""Replay, demonstrations, re-weighting and allocation in the real loop: killed and resumed, it trains on the same."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.batch import StepResult, Stream, TrainingBatch
from rl.driver import train
from rl.hybrid.config import DemonstrationsConfig
from rl.hybrid.policy import Demonstration, DemonstrationPolicy
from rl.record_reader import ledger
from rl.replay.config import ReplayConfig, RoRecomp, ShareReplay
from rl.replay.rorecomp import RoRecompPolicy
from rl.replay.share import SharePolicy
from rl.replay.store import TrajectoryStore
from rl.resume import resume
from rl.reweight.config import RecapConfig
from rl.reweight.policy import RecapPolicy
from tests.fakes.loop import World, make_tasks, make_world, play
from tests.fakes.replay import FakeComparer

NUM_STEPS = 8
SHARE = ShareReplay(share=0.5, watch_every=0, max_uses=2, max_age=3)
ROR = RoRecomp(batch_samples=2)
SHOWN = Demonstration(token_ids=np.arange(6, dtype=np.int32), num_given=2, is_right=True)


def world_at(directory: Path, replay: ReplayConfig) -> World:
    """A third of the tasks is never solved; these learn from demonstrations."""
    world = make_world(directory, num_steps=NUM_STEPS, max_lag=2, num_tasks=60, checkpoint_every=2, drought_limit=20)
    world.run.jobs._num_siblings = 4  # two right, two wrong: one of each is left over
    world.judge.verdict = lambda job, sibling: float(sibling % 2 and int(job.task.prompt[0].content[0]) % 3 > 0)
    store = TrajectoryStore(directory / "replay", tokenizer="t", capacity=64)
    again = (
        RoRecompPolicy(replay, store, num_steps=NUM_STEPS, seed=0)
        if isinstance(replay, RoRecomp)
        else SharePolicy(replay, store, FakeComparer([]), seed=0, warn=lambda message: None)
    )
    shown = {(task.key, "high"): SHOWN for task in make_tasks(60)}
    recap = RecapPolicy(RecapConfig(window=2), {})
    world.run.policies = [again, DemonstrationPolicy(DemonstrationsConfig(), shown), recap]
    return world


def names(batches: Sequence[TrainingBatch]) -> list[tuple[int, str, list[tuple[str, int, int]]]]:
    return [(b.step, b.label, [(s.group_id, s.sibling, int(s.stream)) for s in b.samples]) for b in batches]


def resumed(directory: Path, replay: ReplayConfig) -> World:
    """Train from the newest checkpoint to the end."""
    world = world_at(directory, replay)

    async def go() -> None:
        await resume(world.run)
        world.engines.versions = [world.run.version] * 2
        await train(world.run)

    play(go())
    return world


@pytest.mark.parametrize("replay", [SHARE, ROR], ids=["share", "rorecomp"])
def test_failed_and_resumed_it_trains_on_the_same(tmp_path: Path, replay: ReplayConfig) -> None:
    whole = world_at(tmp_path / "whole", replay)
    play(train(whole.run))
    first = world_at(tmp_path / "broken", replay)

    async def interrupted() -> None:
        async def fail(batch: TrainingBatch) -> None:
            if batch.step == 6:
                raise RuntimeError("a learner died")

        first.learner.fault = fail
        with pytest.raises(RuntimeError, match="a learner died"):
            await train(first.run)

    play(interrupted())
    second = resumed(tmp_path / "broken", replay)
    trained = names(whole.learner.trained)
    saved = [batch for batch in names(first.learner.trained) if batch[0] <= 4]  # step 5 is trained again
    assert saved + names(second.learner.trained) == trained
    everything = [stream for _, _, samples in trained for _, _, stream in samples]
    assert {Stream.FRESH, Stream.REPLAY, Stream.DEMONSTRATION} == set(everything)


def die_at_step(directory: Path, replay: ReplayConfig, step: int) -> None:
    """The process ends without a word while the learner has the mix of this step."""
    world = world_at(directory, replay)

    async def die(batch: TrainingBatch) -> None:
        if batch.step == step:
            os._exit(9)

    world.learner.fault = die
    play(train(world.run))


@pytest.mark.parametrize("name", ["SHARE", "ROR"])
def test_killed_in_the_middle_of_a_mix_it_trains_on_the_same(tmp_path: Path, name: str) -> None:
    replay: ReplayConfig = globals()[name]
    whole = world_at(tmp_path / "whole", replay)
    play(train(whole.run))
    program = (
        "import sys; from pathlib import Path; from tests.invariant import test_policies_in_the_loop as test\n"
        f"test.die_at_step(Path(sys.argv[1]), test.{name}, 6)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "broken")]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 9
    second = resumed(tmp_path / "broken", replay)
    assert names(second.learner.trained) == [batch for batch in names(whole.learner.trained) if batch[0] > 4]
    assert ledger(tmp_path / "broken" / "groups") == ledger(tmp_path / "whole" / "groups")


def test_fresh_samples_keep_their_bound_and_replayed_ones_their_age(tmp_path: Path) -> None:
    world = world_at(tmp_path, SHARE)
    play(train(world.run))
    assert max(world.learner.lags) <= 2
    for batch in world.learner.trained:
        replayed = [s for s in batch.samples if s.stream is Stream.REPLAY]
        assert len(replayed) <= len(batch.fresh)


def test_a_run_that_only_learns_from_demonstrations_is_no_drought(tmp_path: Path) -> None:
    world = world_at(tmp_path, SHARE)
    world.judge.verdict = lambda job, sibling: 0.0
    play(train(world.run))  # 24 groups in a row without a signal of their own, and the limit is 20
    assert all(s.stream is Stream.DEMONSTRATION for b in world.learner.trained for s in b.samples)


def test_a_learner_that_does_not_count_the_second_update_is_refused(tmp_path: Path) -> None:
    world = world_at(tmp_path, ROR)
    step = world.learner.step

    async def stuck(batch: TrainingBatch) -> StepResult:
        result = await step(batch)
        return replace(result, version=result.version - 1) if batch.label else result

    world.learner.step = stuck  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="must raise the version above"):
        asyncio.run(asyncio.wait_for(_train(world), 30))


async def _train(world: World) -> None:
    world.engines.delay = world.engines.publish_delay = world.judge.delay = world.learner.delay = lambda: 0.0
    await train(world.run)
