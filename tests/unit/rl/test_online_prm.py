"""A step scorer that learns from the run, and one that breaks its contract."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from rl.credit.config import RlooCredit
from rl.credit.process_config import LeaveOneOutReturns
from rl.driver import train
from rl.learning_scorer import OnlinePrm
from rl.online_prm import lessons
from rl.resume import resume
from rl.step_guard import StepGuard
from rollout.schema import Group, ScoreKind, StepScores, StepSpan, Trajectory
from tests.fakes.loop import PROMPT_LEN, World, make_job, make_scored, make_trajectory, make_world, play

Order = Literal["before", "after"]


def steps_of(trajectory: Trajectory, values: Sequence[float], *, version: int = 0) -> StepScores:
    spans = tuple(StepSpan(start=PROMPT_LEN + i, end=PROMPT_LEN + i + 1) for i in range(len(values)))
    scores = np.asarray(values, dtype=np.float32)
    return StepScores(spans=spans, scores=scores, kind=ScoreKind.LOGRATIO, scorer="fake", version=version)


@dataclass
class LearningScorer:
    """Scores grow with the updates made; remembers which group was scored by which version."""

    version: int = 0
    learned: list[tuple[int, list[str], list[float]]] = field(default_factory=list)  # version before, groups, labels
    scored: dict[str, int] = field(default_factory=dict)

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        self.scored[group.job.group_id] = self.version
        return tuple(
            steps_of(t, [0.1 * self.version * (t.sibling + 1)] * 2, version=self.version) for t in group.trajectories
        )

    async def update(self, trajectories: Sequence[Trajectory], labels: Sequence[float]) -> bool:
        self.learned.append((self.version, sorted({t.group_id for t in trajectories}), list(labels)))
        self.version += 1
        return True

    async def save(self, path: str) -> None:
        Path(path).mkdir()
        (Path(path) / "version").write_text(str(self.version))

    async def load(self, path: str) -> None:
        self.version = int((Path(path) / "version").read_text())


def world_with(scorer: LearningScorer, directory: Path, order: Order, **settings: Any) -> World:
    credit = RlooCredit(process=LeaveOneOutReturns(type="leave_one_out"))
    world = make_world(directory, credit=credit, max_lag=0, **settings)
    world.run.step_scorer = StepGuard(scorer, world.reporter.warning)
    world.run.online_prm = OnlinePrm(scorer=scorer, order=order)
    return world


@pytest.mark.parametrize(("order", "versions"), [("after", [0, 1, 2]), ("before", [1, 2, 3])])
def test_each_batch_is_scored_by_one_version_and_then_or_before_learned_from(
    tmp_path: Path, order: Order, versions: list[int]
) -> None:
    scorer = LearningScorer()
    world = world_with(scorer, tmp_path, order, num_steps=3, groups_per_step=2)
    play(train(world.run))
    assert [version for version, _, _ in scorer.learned] == [0, 1, 2]
    assert all(labels == [0.0, 1.0] * 2 for _, _, labels in scorer.learned)
    for (_, groups, _), version in zip(scorer.learned, versions, strict=True):
        assert [scorer.scored[group] for group in groups] == [version] * 2
    trained = [sample.advantages for batch in world.learner.trained for sample in batch.samples]
    first, last = trained[1][PROMPT_LEN], trained[-1][PROMPT_LEN]  # right siblings of the first and the last batch
    assert last > first >= 1.0 and (first == 1.0) == (order == "after")  # version 0 scores 0: plain outcome credit


@pytest.mark.parametrize("order", ["after", "before"])
def test_a_resumed_run_goes_on_as_if_nothing_had_happened(tmp_path: Path, order: Order) -> None:
    def advantages(world: World) -> list[list[float]]:
        return [s.advantages.tolist() for batch in world.learner.trained for s in batch.samples]

    whole = world_with(LearningScorer(), tmp_path / "whole", order, num_steps=4)
    play(train(whole.run))
    first = world_with(LearningScorer(), tmp_path / "parts", order, num_steps=2)
    play(train(first.run))
    scorer = LearningScorer()
    second = world_with(scorer, tmp_path / "parts", order, num_steps=4)

    async def go_on() -> None:
        await resume(second.run)
        assert scorer.version == 2
        await train(second.run)

    play(go_on())
    assert advantages(first) + advantages(second) == advantages(whole)
    assert scorer.version == 4


def test_an_update_that_ran_ahead_of_its_checkpoint_is_not_made_twice(tmp_path: Path) -> None:
    """With "before", packing step 2 may train the scorer while the checkpoint of step 1 is being written."""
    scorer = LearningScorer()
    world = world_with(scorer, tmp_path, "before", num_steps=3, checkpoint_every=1, keep_checkpoints=9)

    async def slow_save(path: str) -> None:
        await asyncio.sleep(100.0)

    world.learner.save_fault = slow_save
    play(train(world.run))
    assert scorer.version == 3
    again = LearningScorer()
    resumed = world_with(again, tmp_path, "before", num_steps=3)
    for step in (2, 3):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:06d}")

    async def go_on() -> None:
        await resume(resumed.run)
        assert (resumed.run.step, again.version) == (1, 2)  # the scorer had learned from step 2 already
        await train(resumed.run)

    play(go_on())
    assert again.version == 3 and [version for version, _, _ in again.learned] == [2]


def test_only_judged_answers_of_mixed_groups_teach() -> None:
    groups = [make_scored([1.0, 0.0, None]), make_scored([1.0, 1.0]), make_scored([0.0, None])]
    trajectories, labels = lessons(groups)
    assert labels == [1.0, 0.0]
    assert [t.sibling for t in trajectories] == [0, 1]


# ------------------------------------------------------------------------------------------------ broken scorers


@dataclass
class BrokenScorer:
    answer: Callable[[Group], tuple[StepScores | None, ...]]
    calls: int = 0

    async def score(self, group: Group) -> tuple[StepScores | None, ...]:
        self.calls += 1
        return self.answer(group)


def _raise(group: Group) -> tuple[StepScores | None, ...]:
    raise KeyError("logits")


FAULTS: dict[str, tuple[Callable[[Group], tuple[StepScores | None, ...]], str]] = {
    "short": (lambda g: (None,), "gave 1 answers for 2 trajectories"),
    "infinite": (lambda g: tuple(steps_of(t, [np.inf, 0.0]) for t in g.trajectories), "gave an infinite score"),
    "outside": (lambda g: tuple(steps_of(t, [0.0] * 9) for t in g.trajectories), r"put steps at tokens \[2, 11\)"),
    "raises": (_raise, "raised KeyError: 'logits'"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_scorer_is_named_once_and_costs_its_credit_but_not_the_run(tmp_path: Path, name: str) -> None:
    answer, message = FAULTS[name]
    scorer = BrokenScorer(answer)
    world = make_world(tmp_path, credit=RlooCredit(process=LeaveOneOutReturns(type="leave_one_out")))
    world.run.step_scorer = StepGuard(scorer, world.reporter.warning)
    play(train(world.run))
    assert world.run.step == 4
    named = [warning for warning in world.reporter.warnings if "outcome credit" in warning]
    assert len(named) == 1
    assert re.search(message, named[0]) and "in group" in named[0]
    assert all(
        set(np.abs(s.advantages[PROMPT_LEN:]).tolist()) == {1.0} for b in world.learner.trained for s in b.samples
    )


def test_a_service_that_is_down_for_a_while_is_asked_again_and_a_stopped_one_says_why() -> None:
    group = Group(job=make_job(), trajectories=tuple(make_trajectory("g", i) for i in range(2)))
    warnings: list[str] = []
    down = BrokenScorer(lambda g: (None,) * 2)
    guard = StepGuard(down, warnings.append)
    for _ in range(3):
        assert play(guard.score(group)) == (None, None)
    assert down.calls == 3 and not warnings
    stopped = BrokenScorer(lambda g: (None,) * 2)
    stopped.fault = "step scorer 'implicit': score 3 is NaN, for sibling 0 of group g"  # type: ignore[attr-defined]
    guard = StepGuard(stopped, warnings.append)
    for _ in range(3):
        assert play(guard.score(group)) == (None, None)
    assert stopped.calls == 1 and len(warnings) == 1 and "is NaN" in warnings[0]
