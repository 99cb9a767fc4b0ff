"""Pools that cannot teach: too small, all solved, a source without a signal. Clear messages, and nothing lost."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from launch import recipe
from launch.build import small_pool
from launch.task_splits import left_out, load_task_splits
from rl.driver import train
from rl.record_reader import ledger
from rl.run import RunFailedError
from rl.sampling.build import build_sampler
from rl.sampling.config import RifSampling, SamplerConfig, UniformSampling, VadeSampling
from rl.sampling.domains import PATIENCE, DomainWatch
from rl.verdict import Tally
from rollout.config import TasksConfig
from tests.fakes.loop import make_tasks, make_world, play

ROOT = Path(__file__).parents[2]
SAMPLERS: list[SamplerConfig] = [VadeSampling(type="vade"), RifSampling(type="rif")]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.type)
def test_a_pool_smaller_than_a_batch_is_used_again(sampler: SamplerConfig, tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=4, groups_per_step=5, max_lag=1, num_tasks=3, sampler=sampler)
    play(train(world.run))
    counts = Counter(entry.task_key for entry in ledger(tmp_path / "groups"))
    assert sum(counts.values()) == 20
    assert min(counts.values()) >= 4, "spread over the pool"


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.type)
def test_when_all_tasks_are_solved_the_run_ends_and_keeps_its_work(sampler: SamplerConfig, tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=9, num_tasks=6, groups_per_step=3, drought_limit=9, sampler=sampler)
    world.judge.verdict = lambda job, sibling: float(sibling % 2) if int(job.group_id[1:]) < 6 else 1.0
    with pytest.raises(RunFailedError, match=r"9 groups in a row gave no training signal .*: all_right 9\. All right"):
        play(train(world.run))
    saved = world.run.checkpointer.latest(pytest.fail)
    assert saved is not None
    assert saved.step == 5
    assert {e.step for e in ledger(tmp_path / "groups")} == {1, 2, 3, 4, 5}


def test_a_source_without_a_signal_is_named_once(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=PATIENCE // 2, groups_per_step=5, num_tasks=40)
    tasks = [replace(task, source=f"source {n % 2}") for n, task in enumerate(make_tasks(40))]
    world.run.jobs.sampler = build_sampler(UniformSampling(), tasks, batch_size=5, seed=0)
    world.judge.verdict = lambda job, sibling: float(sibling % 2 and job.task.source == "source 1")
    play(train(world.run))
    told = [warning for warning in world.reporter.warnings if "in a row gave no training signal" in warning]
    assert len(told) == 1
    assert "source 'source 0'" in told[0]
    domains = DomainWatch()
    domains.observe("good", Tally(num_right=1, num_judged=2))
    warnings = [domains.observe("bad", Tally(num_right=0, num_judged=2)) for _ in range(PATIENCE + 9)]
    assert [i for i, warning in enumerate(warnings) if warning] == [PATIENCE - 1]
    assert "source 'bad'" in str(warnings[PATIENCE - 1])
    assert f"(0 all right, {PATIENCE} all wrong, 0 unjudged)" in str(warnings[PATIENCE - 1])


def test_a_single_source_is_the_droughts_business_and_the_watch_resumes() -> None:
    alone, first, second = DomainWatch(), DomainWatch(), DomainWatch()
    wrong = Tally(num_right=0, num_judged=2)
    assert not any(alone.observe("only", wrong) for _ in range(2 * PATIENCE))
    first.observe("other", wrong)
    for _ in range(PATIENCE - 1):
        first.observe("bad", wrong)
    second.load_state_dict(first.state_dict())
    assert second.observe("bad", wrong)


def test_a_pool_smaller_than_what_is_under_way_is_announced() -> None:
    config = recipe.load(ROOT / "launch/recipes/quickstart.toml", ["loop.groups_per_step=8", "buffer.max_lag=1"])
    assert small_pool(config, 16) == ""
    assert small_pool(config, 15).startswith("15 training tasks are fewer than the 16 groups under way at a time")


def test_duplicate_tasks_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {n % 7}", "answer": "1"} for n in range(20)]
    path = tmp_path / "tasks.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    source = {"type": "files", "paths": [str(path)]}
    splits = load_task_splits(TasksConfig.model_validate({"train": source, "held_out": {"num_tasks": 2}}), seed=0)
    assert len({task.key for task in splits.train}) == len(splits.train) == 5
    assert left_out(splits).startswith("13 tasks are left out because another one has the same question and answer")
    sampler = build_sampler(UniformSampling(), splits.train, batch_size=5, seed=0)
    assert len({sampler.next().key for _ in range(5)}) == 5
    with pytest.raises(ValueError, match="training tasks must have distinct keys"):
        build_sampler(UniformSampling(), [*splits.train, splits.train[0]], batch_size=5, seed=0)
    assert left_out(replace(splits, num_duplicates=0)) == ""
