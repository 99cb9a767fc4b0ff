"""The greedy attempt of ReMax, from the job to the record: generated, judged, compared with, never trained on."""

from __future__ import annotations

from pathlib import Path

from rl.config import SamplingConfig
from rl.credit.config import RemaxCredit
from rl.driver import train
from rl.record_reader import iter_groups, ledger
from rollout.schema import Job, Purpose
from tests.fakes.loop import World, make_world, play

OFF = SamplingConfig(judge_on="off")


def remax_world(directory: Path, greedy_score: float | None) -> World:
    world = make_world(directory, num_steps=2, groups_per_step=2, sampling=OFF, credit=RemaxCredit())

    def verdict(job: Job, sibling: int) -> float | None:
        return greedy_score if job.purpose is Purpose.BASELINE else 0.0

    world.judge.verdict = verdict
    return world


def test_every_group_is_compared_with_one_greedy_attempt(tmp_path: Path) -> None:
    world = remax_world(tmp_path, 1.0)
    play(train(world.run))
    siblings = {job.group_id: job for job in world.engines.jobs if job.purpose is Purpose.TRAIN}
    greedy = {job.group_id: job for job in world.engines.jobs if job.purpose is Purpose.BASELINE}
    assert greedy.keys() == {f"{name}-greedy" for name in siblings}
    for name, job in siblings.items():
        baseline = greedy[f"{name}-greedy"]
        assert (baseline.task, baseline.budget, baseline.num_siblings) == (job.task, job.budget, 1)
        assert baseline.sampling.temperature == 0.0 and job.sampling.temperature > 0.0
    samples = [s for batch in world.learner.trained for s in batch.samples]
    assert {s.group_id for s in samples} == siblings.keys()
    assert all(set(s.advantages[s.loss_mask]) == {-1.0} for s in samples)  # all wrong, but the greedy answer is right


def test_the_record_holds_the_baseline_and_the_ledger_does_not_count_it(tmp_path: Path) -> None:
    world = remax_world(tmp_path, 1.0)
    play(train(world.run))
    recorded = list(iter_groups(tmp_path / "groups"))
    fates = [(g.group_id, g.fate.name, g.fate.reason) for g in recorded[:2]]
    assert fates == [("g00000000", "trained", ""), ("g00000000-greedy", "baseline", "g00000000")]
    assert recorded[1].trajectories[0].score == 1.0 and recorded[1].trajectories[0].advantage_mean is None
    assert [entry.group_id for entry in ledger(tmp_path / "groups")] == [f"g{n:08d}" for n in range(4)]
    assert [g.fate.name for g in iter_groups(tmp_path / "groups", fate="baseline")] == ["baseline"] * 4


def test_a_group_without_a_judged_baseline_is_dropped(tmp_path: Path) -> None:
    world = remax_world(tmp_path, None)
    play(train(world.run))
    assert not world.learner.trained
    dropped = list(iter_groups(tmp_path / "groups", fate="dropped"))
    assert [g.fate.reason for g in dropped] == ["baseline_unjudged"] * 4


def test_no_other_estimator_pays_for_a_greedy_attempt(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=1)
    play(train(world.run))
    assert {job.purpose for job in world.engines.jobs} == {Purpose.TRAIN}
