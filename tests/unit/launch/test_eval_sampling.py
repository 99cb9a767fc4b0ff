"""The plan of an evaluation: every sample once, seeds and keys that depend on nothing but the sample."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from budgets.modes import parse_modes
from launch.evaluation.sampling import Plan, blocks, collect
from launch.evaluation.store import AttemptStore
from rollout.schema import Sampling
from tests.fakes.modes import BUDGETS, CountingProgress, FakeJudge, FakePolicy, attempts_by_key, make_tasks

PLAN = Plan(
    tasks=make_tasks(5),
    modes=tuple(parse_modes("low,high,auto", BUDGETS)),
    num_samples=10,
    sampling=Sampling(),
    seed=0,
    context={"format": "x"},
)


def sample(plan: Plan, directory: Path) -> tuple[dict, FakePolicy, CountingProgress]:  # type: ignore[type-arg]
    policy, progress = FakePolicy(delay_s=0.002), CountingProgress()
    with AttemptStore(directory) as store:
        attempts = asyncio.run(collect(plan, policy, FakeJudge(unjudged=7), store, progress))
    return attempts_by_key(attempts), policy, progress


def test_every_sample_is_there_once(tmp_path: Path) -> None:
    found, policy, progress = sample(PLAN, tmp_path)
    assert len(found) == PLAN.total == 150
    assert policy.num_jobs == 5 * 3 * 2  # ten samples are a job of eight and one of two
    assert (progress.made, progress.kept) == (150, 0)
    assert any(a.correct is None for a in found.values())


def test_a_second_run_makes_nothing(tmp_path: Path) -> None:
    first, _, _ = sample(PLAN, tmp_path)
    again, policy, progress = sample(PLAN, tmp_path)
    assert policy.num_jobs == 0 and progress.kept == 150 and again == first


def test_what_is_added_to_a_plan_is_all_that_is_made(tmp_path: Path) -> None:
    first, _, _ = sample(replace(PLAN, tasks=PLAN.tasks[:3], modes=PLAN.modes[:2]), tmp_path)
    whole, _, progress = sample(PLAN, tmp_path)
    assert progress.kept == len(first) == 60
    assert all(whole[key] == attempt for key, attempt in first.items())


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"context": {"format": "y"}}, {"sampling": Sampling(temperature=0.5), "context": {"format": "z"}}],
)
def test_other_settings_are_another_evaluation(tmp_path: Path, change: dict[str, object]) -> None:
    sample(PLAN, tmp_path)
    _, _, progress = sample(replace(PLAN, **change), tmp_path)  # type: ignore[arg-type]
    assert progress.kept == 0


def test_seeds_are_distinct_and_independent_of_the_plan() -> None:
    every = {b.key: b.job.sampling.seed for b in blocks(PLAN, {})}
    assert len(set(every.values())) == len(every) == 30
    part = {b.key: b.job.sampling.seed for b in blocks(replace(PLAN, tasks=PLAN.tasks[3:]), {})}
    assert part.items() <= every.items()


def test_long_modes_come_first() -> None:
    order = [b.mode.name for b in blocks(PLAN, {})]
    assert order[0] in ("high", "auto") and order[-1] == "low"
