"""Killed without a word in the middle of a refill or of a curriculum stage, a run picks what it would have picked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from rl.config import SamplingConfig
from rl.driver import train
from rl.record_reader import LedgerEntry, ledger
from rl.resume import resume
from rl.sampling.build import build_sampler
from rl.sampling.config import CurriculumSampling, RifSampling, SamplerConfig, VadeSampling
from rollout.schema import Job, Task
from tests.fakes.loop import make_tasks, make_world, play

NUM_STEPS, GROUPS, NUM_TASKS = 8, 4, 24
SAMPLERS: dict[str, SamplerConfig] = {
    "vade": VadeSampling(type="vade"),
    "curriculum": CurriculumSampling(type="curriculum", window=6, upper=0.3, lower=0.1),
    "rif": RifSampling(type="rif"),
}


def number_of(task: Task) -> int:
    return int(task.prompt[0].content.split()[0])


def verdict(job: Job, sibling: int) -> float:
    """A function of the job alone: every third task is hopeless, the others are right half of the time."""
    return float((job.sampling.seed or 0) // 7 % 2 == sibling % 2 and number_of(job.task) % 3 > 0)


def run_to_the_end(directory: Path, sampler: str, kill_at: int = 0) -> tuple[list[LedgerEntry], list[float]]:
    """Train, resuming what is there; with `kill_at`, die when that many groups have been judged in this process."""
    world = make_world(
        directory,
        num_steps=NUM_STEPS,
        groups_per_step=GROUPS,
        max_lag=0,
        sampling=SamplingConfig(on_drop="replace", max_refills=2),
        num_tasks=NUM_TASKS,
        checkpoint_every=2,
    )
    tasks = [replace(task, meta={"difficulty": number_of(task) // 6}) for task in make_tasks(NUM_TASKS)]
    jobs = world.run.jobs
    jobs.sampler = build_sampler(SAMPLERS[sampler], tasks, batch_size=GROUPS, seed=0)
    judged = 0

    def counted(job: Job, sibling: int) -> float:
        nonlocal judged
        judged += sibling == 0
        if judged == kill_at:
            os._exit(9)
        return verdict(job, sibling)

    world.judge.verdict = counted

    async def go() -> None:
        await resume(world.run)
        world.engines.versions = [world.run.version] * 2
        await train(world.run)

    play(go())
    stages = [m.value for metrics in world.reporter.metrics for m in metrics if m.name == "sampler/stage"]
    return ledger(directory / "groups"), stages


def killed(directory: Path, sampler: str, kill_at: int) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.invariant.test_resume_sampling import run_to_the_end\n"
        "run_to_the_end(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    )
    command = [sys.executable, "-c", program, str(directory), sampler, str(kill_at)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 9


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_picks_and_ledger_are_those_of_an_undisturbed_run(sampler: str, tmp_path: Path) -> None:
    undisturbed, stages = run_to_the_end(tmp_path / "whole", sampler)
    assert {e.fate for e in undisturbed} == {"trained", "dropped"}
    assert len({e.task_key for e in undisturbed}) < len(undisturbed), "tasks come back, so what was learned matters"
    sizes = Counter(entry.step for entry in undisturbed)
    step = max(step for step in (3, 4, 5, 6) if sizes[step] > GROUPS)  # one with a refill, after the first checkpoint
    refill = max(int(entry.group_id[1:]) for entry in undisturbed if entry.step == step)
    killed(tmp_path / "broken", sampler, kill_at=refill + 1)
    assert {e.step for e in ledger(tmp_path / "broken" / "groups")} == set(range(1, step))
    resumed, later_stages = run_to_the_end(tmp_path / "broken", sampler)
    assert resumed == undisturbed
    if sampler == "curriculum":
        assert len(set(stages)) > 1
        saved = (step - 1) // 2 * 2
        assert later_stages == stages[saved:], "the stage and its block go on where the checkpoint left them"
