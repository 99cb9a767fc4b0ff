"""A run that reaches a ceiling stops in order: the last whole step is saved, what was spent is written down, and a
resumed run that may spend more goes on from there. `tests/invariant/test_end_to_end.py` does it on the real stack."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from budgets.config import CeilingsConfig
from launch.meter import CeilingReached, Meter
from rl.driver import train
from rl.resume import resume
from rl.run import RunFailedError
from tests.fakes.loop import World, make_world, play

STEPS = 6


def metered(directory: Path, ceilings: CeilingsConfig) -> World:
    world = make_world(directory, num_steps=STEPS, checkpoint_every=0)
    clock = asyncio.get_running_loop().time
    meter = Meter(world.engines, world.judge, ceilings, path=directory / "ledger.json", clock=clock)
    world.run.generator = world.run.judge = meter
    world.run.closers = (meter.close,)
    return world


async def run_to(directory: Path, ceilings: CeilingsConfig) -> tuple[World, CeilingReached | None]:
    world = metered(directory, ceilings)
    await resume(world.run)
    world.engines.versions = [world.run.version] * len(world.engines.versions)
    try:
        await train(world.run)
    except CeilingReached as reached:
        return world, reached
    return world, None


def spent_by_a_whole_run(directory: Path) -> dict[str, float]:
    play(run_to(directory, CeilingsConfig()))
    return spent_in(directory)


def spent_in(directory: Path) -> dict[str, float]:
    spent = json.loads((directory / "ledger.json").read_text())
    tokens = sum(spent["tokens"].values())
    return {"max_generated_tokens": tokens, "max_judge_calls": spent["judge_calls"], "max_seconds": spent["seconds"]}


@pytest.mark.parametrize("name", ["max_generated_tokens", "max_judge_calls", "max_seconds"])
def test_a_ceiling_is_an_orderly_end(name: str, tmp_path: Path) -> None:
    whole = spent_by_a_whole_run(tmp_path / "whole")
    half = CeilingsConfig.model_validate({name: type(whole[name])(whole[name] / 2)})
    directory = tmp_path / "capped"
    world, reached = play(run_to(directory, half))
    assert reached is not None and reached.name == name and f"budgets.ceilings.{name} = " in str(reached)
    assert 0 < world.run.step < STEPS and world.run.saved_step == world.run.step and world.run.failure is None
    assert spent_in(directory)[name] >= whole[name] / 2  # on disk, with what came after the last line of the metrics

    again, reached_again = play(run_to(directory, half))
    assert reached_again is not None and again.run.step == world.run.step  # it may still not spend more

    more, end = play(run_to(directory, CeilingsConfig()))
    assert end is None and more.run.step == STEPS
    assert [b.step for b in more.learner.trained] == list(range(world.run.step + 1, STEPS + 1))


def test_a_failure_beside_a_ceiling_is_a_failure(tmp_path: Path) -> None:
    async def both() -> None:
        world = metered(tmp_path, CeilingsConfig(max_judge_calls=9))

        async def broken(*args: object) -> None:
            raise ZeroDivisionError("planted")

        world.learner.fault = broken
        await train(world.run)

    with pytest.raises(RunFailedError, match="planted"):
        play(both())
