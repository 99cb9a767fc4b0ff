"""Group size and effort from a task's history, in the real loop: they follow what the groups showed, and a run that is
killed and resumed issues the jobs that an undisturbed one would have."""

from __future__ import annotations

from pathlib import Path

import pytest

from budgets.allocate import HistoryAllocator, effort_place, group_size
from budgets.config import AllocationConfig, BudgetsConfig, EffortConfig
from rl.batch import TrainingBatch
from rl.driver import train
from rl.record_reader import iter_groups
from rl.resume import resume
from rollout.schema import Job
from tests.fakes.loop import World, make_world, play

NUM_STEPS = 12
CONFIG = AllocationConfig(min_siblings=2, max_siblings=8, effort=True, explore=0.2)
EFFORTS = {name: EffortConfig(max_thinking_tokens=n, max_answer_tokens=8) for name, n in (("high", 8), ("low", 2))}
BUDGETS = BudgetsConfig(efforts=EFFORTS, max_prompt_tokens=8)


def is_easy(job: Job) -> bool:
    return int(job.task.prompt[0].content.split()[0]) % 2 == 0


def world_at(directory: Path) -> tuple[World, HistoryAllocator]:
    """Twelve tasks that come again and again: of the even ones every answer is right but the first, else only that."""
    world = make_world(directory, num_steps=NUM_STEPS, max_lag=1, num_tasks=12, checkpoint_every=2, num_siblings=4)
    allocator = HistoryAllocator(CONFIG, BUDGETS)
    world.run.jobs._allotters = (allocator,)
    world.judge.verdict = lambda job, sibling: float((sibling > 0) == is_easy(job))
    return world, allocator


def issued(directory: Path) -> list[tuple[str, str, str, int]]:
    """Of every group on record: its id, task, effort and how many siblings it had."""
    groups = iter_groups(directory / "groups")
    return sorted((g.group_id, g.task_key, g.effort, len(g.trajectories)) for g in groups)


def test_history_decides_in_the_loop_and_survives_a_kill(tmp_path: Path) -> None:
    whole, allocator = world_at(tmp_path / "whole")
    play(train(whole.run))
    first, second = (world_at(tmp_path / "broken")[0] for _ in range(2))

    async def interrupted() -> None:
        async def fail(batch: TrainingBatch) -> None:
            if batch.step == 7:
                raise RuntimeError("a learner died")

        first.learner.fault = fail
        with pytest.raises(RuntimeError, match="a learner died"):
            await train(first.run)

    async def resumed() -> None:
        await resume(second.run)
        second.engines.versions = [second.run.version] * 2
        await train(second.run)

    play(interrupted())
    play(resumed())
    jobs = issued(tmp_path / "whole")
    assert issued(tmp_path / "broken") == jobs
    assert len({size for *_, size in jobs}) > 1 and {effort for _, _, effort, _ in jobs} == {"high", "low"}

    for key, (right, judged) in allocator._counts.items():
        task = whole.run.jobs._tasks[key]
        p = (right + 1.0) / (judged + 2.0)
        easy = int(task.prompt[0].content.split()[0]) % 2 == 0
        assert (p > 0.5) == easy and effort_place(p, 2) == int(easy)
        assert group_size(p, CONFIG) >= 4  # one of two is wrong or right: it takes more than two to see both
    shown = {m.name: m.value for m in allocator.metrics()}
    assert shown["allocation/known_tasks"] == 12 and 0 < shown["allocation/low"] < 1
