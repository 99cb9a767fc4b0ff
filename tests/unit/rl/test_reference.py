"""The reference model's part in the loop: scores before credit, KL as a reward, sync, checkpoints, deadlines."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from rl.config import SamplingConfig
from rl.credit.config import CreditConfig, DrGrpoCredit, ReinforcePlusPlusCredit
from rl.driver import train
from rl.metrics import read_metrics
from rl.resume import resume
from rl.run import RunFailedError
from tests.fakes.loop import FakeReference, World, make_world, play

OFF = SamplingConfig(judge_on="off")


def world_with(
    directory: Path, reference: FakeReference, *, credit: CreditConfig | None = None, kl: float = 0.0, **loop: int
) -> World:
    world = make_world(directory, groups_per_step=2, sampling=OFF, credit=credit, **{"num_steps": 2, **loop})  # type: ignore[arg-type]
    world.run.reference, world.run.kl_in_reward = reference, kl
    return world


def test_samples_carry_what_the_reference_said(tmp_path: Path) -> None:
    reference = FakeReference()
    world = world_with(tmp_path, reference)
    play(train(world.run))
    samples = [s for batch in world.learner.trained for s in batch.samples]
    assert len(samples) == 8 and [len(call) for call in reference.scored] == [4, 4]
    for sample in samples:
        assert sample.reference_logprobs is not None
        np.testing.assert_array_equal(sample.reference_logprobs, np.where(sample.loss_mask, -1.0, 0.0))
        assert set(sample.advantages[sample.loss_mask]) <= {0.5, -0.5}  # no penalty was asked for
    line = read_metrics(tmp_path / "metrics.jsonl")[0]["metrics"]
    assert line["reference/k1"] == pytest.approx(1.0)  # sampler 0, reference -1
    assert line["reference/k3"] == pytest.approx(np.exp(-1.0))


def test_a_penalty_equal_for_all_siblings_leaves_their_baseline_alone(tmp_path: Path) -> None:
    world = world_with(tmp_path, FakeReference(), credit=DrGrpoCredit(), kl=0.1)
    play(train(world.run))
    values = {float(v) for b in world.learner.trained for s in b.samples for v in s.advantages[s.loss_mask]}
    assert sorted(round(value, 6) for value in values) == [-0.5, 0.5]


def test_the_penalty_is_subtracted_before_the_baseline(tmp_path: Path) -> None:
    """Only the wrong sibling strays from the reference: four tokens of k1 = 1 at 0.1 cost it 0.4."""

    class Uneven(FakeReference):
        async def score(self, trajectories):  # type: ignore[no-untyped-def]
            scored = await super().score(trajectories)
            return [s * (t.sibling == 0) for s, t in zip(scored, trajectories, strict=True)]

    world = world_with(tmp_path, Uneven(), credit=DrGrpoCredit(), kl=0.1)
    play(train(world.run))
    found = {(s.sibling, round(float(s.advantages[-1]), 5)) for b in world.learner.trained for s in b.samples}
    assert found == {(0, -0.7), (1, 0.7)}  # rewards -0.4 and 1


def test_token_returns_keep_the_penalty_at_its_token(tmp_path: Path) -> None:
    world = world_with(tmp_path, FakeReference(), credit=ReinforcePlusPlusCredit(), kl=0.1)
    play(train(world.run))
    sample = next(s for b in world.learner.trained for s in b.samples if s.sibling == 1)
    values = sample.advantages[sample.loss_mask]  # returns 1 - 0.4, 1 - 0.3, 1 - 0.2, 1 - 0.1, whitened
    np.testing.assert_allclose(np.diff(values), np.diff(values)[0], rtol=1e-4)
    assert values[0] < values[-1]


def test_a_penalty_without_a_reference_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=1)
    world.run.kl_in_reward = 0.1
    with pytest.raises(RunFailedError, match=r"a KL penalty of 0\.1 in the reward needs a reference model"):
        play(train(world.run))


def test_it_follows_when_due_and_a_checkpoint_remembers(tmp_path: Path) -> None:
    first = FakeReference(sync_every=2)
    world = world_with(tmp_path, first, num_steps=3, max_lag=0)
    play(train(world.run))
    said = [float(b.samples[0].reference_logprobs[-1]) for b in world.learner.trained]  # type: ignore[index]
    assert said == [-1.0, -1.0, -2.0]
    second = FakeReference(sync_every=2)
    again = world_with(tmp_path, second, num_steps=5, max_lag=0)

    async def go_on() -> None:
        await resume(again.run)
        await train(again.run)

    play(go_on())
    assert second.loaded == ["2"] and second.synced_step == 4


def test_a_reference_that_hangs_is_named(tmp_path: Path) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    world = world_with(tmp_path, FakeReference(fault=hang), wait_deadline_s=50)
    with pytest.raises(RunFailedError, match="pack waited more than 50 s for the reference model to score step 1"):
        play(train(world.run))
    assert not world.learner.trained


def test_dropped_groups_are_not_scored(tmp_path: Path) -> None:
    reference = FakeReference()
    world = world_with(tmp_path, reference, num_steps=1)
    world.judge.verdict = lambda job, sibling: None if job.group_id == "g00000000" else 1.0
    play(train(world.run))
    assert [{t.group_id for t in call} for call in reference.scored] == [{"g00000001"}]
