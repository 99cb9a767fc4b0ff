"""Killed at any moment and resumed, a run consumes exactly the tasks that an undisturbed one consumes, each once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from rl.batch import TrainingBatch
from rl.config import SamplingConfig
from rl.driver import train
from rl.record_reader import LedgerEntry, ledger
from rl.resume import resume
from tests.fakes.loop import World, make_world, play

NUM_STEPS, GROUPS = 6, 3


def world_at(directory: Path, **more: object) -> World:
    return make_world(
        directory,
        num_steps=NUM_STEPS,
        groups_per_step=GROUPS,
        max_lag=2,
        num_tasks=60,
        checkpoint_every=2,
        **more,  # type: ignore[arg-type]
    )


def run_to_the_end(directory: Path, *, kill_at: int | None = None) -> list[LedgerEntry]:
    """Train, resuming whatever is in `directory`; with `kill_at`, end the process at once in that step's update."""

    async def go() -> None:
        world = world_at(directory)
        await resume(world.run)
        world.engines.versions = [world.run.version] * 2

        async def kill(batch: TrainingBatch) -> None:
            if batch.step == kill_at:
                await asyncio.sleep(0.5)  # meanwhile groups of later steps are finished
                os._exit(9)

        world.learner.fault = kill
        await train(world.run)

    play(go())
    return ledger(directory / "groups")


def killed(directory: Path, kill_at: int) -> None:
    """Run in a process of its own that dies without a word, as under kill -9."""
    program = (
        "import sys; from pathlib import Path; from tests.invariant.test_resume_ledger import run_to_the_end\n"
        "run_to_the_end(Path(sys.argv[1]), kill_at=int(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, str(directory), str(kill_at)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2], check=False).returncode == 9


def test_ledger_is_exact_after_a_kill(tmp_path: Path) -> None:
    undisturbed = run_to_the_end(tmp_path / "whole")
    killed(tmp_path / "broken", 4)  # steps 1-3 recorded, step 2 saved: step 3 is set aside
    assert {e.step for e in ledger(tmp_path / "broken" / "groups")} == {1, 2, 3}
    resumed = run_to_the_end(tmp_path / "broken")
    assert resumed == undisturbed
    assert [p.name for p in (tmp_path / "broken" / "groups" / "set-aside-1").iterdir()] == ["step-000003.parquet"]
    keys = [entry.task_key for entry in resumed]
    assert len(keys) == len(set(keys)) == NUM_STEPS * GROUPS


def test_ledger_after_a_kill_before_the_first_checkpoint(tmp_path: Path) -> None:
    undisturbed = run_to_the_end(tmp_path / "whole")
    killed(tmp_path / "broken", 2)
    assert run_to_the_end(tmp_path / "broken") == undisturbed


def test_replaced_groups_are_consumed_once(tmp_path: Path) -> None:
    """Tasks that were dropped and replaced count too; an interruption between drop and training loses none."""

    def run(directory: Path, interrupt_at: float | None) -> list[LedgerEntry]:
        async def go() -> None:
            world = world_at(directory, sampling=SamplingConfig(on_drop="replace", max_refills=2))
            world.judge.verdict = lambda job, sibling: float(sibling % 2 and int(job.task.prompt[0].content[0]) % 3 > 0)
            await resume(world.run)
            world.engines.versions = [world.run.version] * 2
            training = asyncio.ensure_future(train(world.run))
            if interrupt_at is not None:
                await asyncio.sleep(interrupt_at)
                training.cancel()
                await asyncio.wait({training})
                assert training.cancelled()
            else:
                await training

        play(go())
        return ledger(directory / "groups")

    for number, moment in enumerate((2.5, 4.0, 7.3)):
        directory = tmp_path / str(number)
        first = run(directory, moment)
        assert max((e.step for e in first), default=0) < NUM_STEPS
        entries = run(directory, None)
        keys = [entry.task_key for entry in entries]
        issued = int(max(entry.group_id for entry in entries)[1:]) + 1
        assert len(keys) == len(set(keys)) == issued, "a task was lost or consumed twice"
        assert {e.fate for e in entries} == {"trained", "dropped"}


def test_resumed_jobs_keep_seed_and_budget(tmp_path: Path) -> None:
    whole, first, second = (world_at(tmp_path / name) for name in ("whole", "cut", "cut"))
    play(train(whole.run))

    async def interrupted() -> None:
        training = asyncio.ensure_future(train(first.run))
        await asyncio.sleep(8.0)
        training.cancel()
        await asyncio.wait({training})

    async def resumed() -> None:
        await resume(second.run)
        second.engines.versions = [second.run.version] * 2
        await train(second.run)

    play(interrupted())
    play(resumed())
    expected = {job.group_id: job for job in whole.engines.jobs}
    done = {job.group_id: job for job in first.engines.jobs + second.engines.jobs}
    assert done == expected
    assert second.run.version == NUM_STEPS
