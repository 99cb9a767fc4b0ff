"""A run that is controlled while it goes on: exactly at step boundaries, for all parts, and again after a resume."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from launch import recipe
from launch.build import build_sampler
from launch.live import branches
from launch.live.cli import _ask
from launch.live.control import ControlService
from launch.live.settings import LiveSettings
from launch.rundir import RunDirectory
from launch.task_splits import load_task_splits
from rl import driver
from rl.config import EvaluateConfig
from rl.control import Control, ControlLogError, read_changes, read_log
from rl.jobs import JobSource
from rl.resume import resume
from rl.trace import Trace
from rollout.schema import Sampling
from tests.fakes.loop import FakeEfforts, World, make_world, play

RECIPE = Path(__file__).parents[2] / "launch/recipes/quickstart.toml"
LR = {"learner.lr": 3e-5}


def controlled(directory: Path, **settings: Any) -> tuple[World, LiveSettings, Control]:
    """A run among fakes with the control of a real one. With `max_lag` 0 unless said otherwise."""
    directory.mkdir(exist_ok=True)
    world = make_world(directory, **{"max_lag": 0, **settings})
    live = LiveSettings(recipe.load(RECIPE, ["budgets.shaping.type=none"]), world.run)
    control = Control(adopt=live.adopt, log=directory / "control.jsonl")
    world.run.control = control
    return world, live, control


async def when(world: World, step: int) -> None:
    while world.run.step < step:
        await asyncio.sleep(0.05)


def test_a_setting_holds_from_the_next_step_on_and_for_every_job_of_it(tmp_path: Path) -> None:
    world, live, control = controlled(tmp_path, num_steps=4)

    async def story() -> None:
        training = asyncio.create_task(driver.train(world.run))
        await when(world, 1)
        wanted = {**LR, "rollout.group_size": 6}
        live.check(wanted)
        control.ask(wanted)
        await training

    play(story())
    assert [(version, lr) for version, lr, _ in world.learner.adopted] == [(2, 3e-5)]  # step 2 was under way
    sizes = {batch.step: len(batch.samples) for batch in world.learner.trained}
    assert sizes == {1: 6, 2: 6, 3: 18, 4: 18}
    assert [(c.after_step, c.settings["learner.lr"]) for c in read_changes(control.log)] == [(2, 3e-5)]
    assert live.now()["rollout.group_size"] == 6


def test_a_resumed_run_and_a_repeated_one_change_at_the_same_steps(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    lines = [
        {"time": 0, "after_step": 1, "action": "set", "settings": {"learner.lr": 1e-5}},
        {"time": 0, "after_step": 1, "action": "pause"},
        {"time": 0, "after_step": 3, "action": "set", "settings": {"learner.lr": 2e-5}},
    ]
    log = "".join(json.dumps(line) + "\n" for line in lines)

    def learning_rates(directory: Path, num_steps: int, *, going_on: bool = False) -> list[tuple[int, float]]:
        world, _, control = controlled(directory, num_steps=num_steps, checkpoint_every=2)
        control.log.write_text(log)

        async def story() -> None:
            await resume(world.run)
            await control.resume(world.run.step)
            await driver.train(world.run)

        play(story())
        assert (world.run.step == num_steps) and (not going_on or len(world.learner.trained) == 3)
        return [(version, lr) for version, lr, _ in world.learner.adopted]

    assert learning_rates(tmp_path / "whole", 5) == [(1, 1e-5), (3, 2e-5)]
    assert learning_rates(tmp_path / "cut", 2) == [(1, 1e-5)]
    assert learning_rates(tmp_path / "cut", 5, going_on=True) == [(2, 1e-5), (3, 2e-5)]  # the first one at once
    assert read_log(tmp_path / "cut/control.jsonl") == lines  # repeating a change does not write it again


def test_a_paused_run_still_saves_and_evaluates_and_outlasts_the_deadline(tmp_path: Path) -> None:
    world, _, control = controlled(
        tmp_path, num_steps=3, evaluate=EvaluateConfig(at_start=False, at_end=False), wait_deadline_s=50.0
    )

    async def story() -> None:
        training = asyncio.create_task(driver.train(world.run))
        await when(world, 1)
        control.order("pause", world.run.step)
        await asyncio.sleep(5000)  # a hundred deadlines
        held = world.run.step
        assert held <= 2 and not training.done()
        control.order("checkpoint", held)
        control.order("evaluate", held)
        await asyncio.sleep(60)
        assert world.run.step == held == world.run.saved_step == world.run.evaluated_step
        control.order("evaluate", held)  # done already: nothing to do, and nothing left over
        await asyncio.sleep(60)
        control.order("resume", held)
        await training

    play(story())
    assert world.run.step == 3 and len(world.reporter.evaluations) == 1
    assert [entry["action"] for entry in read_log(control.log)] == [
        "pause",
        "checkpoint",
        "evaluate",
        "evaluate",
        "resume",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run.seed": 1}, "run.seed cannot change while a run goes on"),
        ({"learner.lr": -1.0}, "learner.lr"),
        ({"learner.lr": "1; import os"}, "is a number"),
        ({"learner.lr": True}, "is a number"),
        ({"loss.kl.coefficient": 0.1}, "is no setting of this run"),
        ({"rollout.group_size": 1}, "rollout.group_size must be at least 2"),
        ({"budgets.efforts.high.weight": 0.5}, "decided by this run's allocator"),
    ],
)
def test_what_cannot_change_is_refused_with_the_rule(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    _, live, _ = controlled(tmp_path)
    before = live.now()
    with pytest.raises(ValueError, match=message):
        live.check(settings)
    assert live.now() == before


def test_the_temperature_changes_only_where_no_group_is_left_from_before(tmp_path: Path) -> None:
    world, live, _ = controlled(tmp_path)
    live.check({"rollout.temperature": 0.7})
    ahead = LiveSettings(recipe.load(RECIPE, ["buffer.max_lag=1"]), world.run)
    with pytest.raises(ValueError, match=r"only with buffer\.max_lag = 0"):
        ahead.check({"rollout.temperature": 0.7})


def test_a_torn_last_line_is_no_entry_and_a_broken_one_is_named(tmp_path: Path) -> None:
    log = tmp_path / "control.jsonl"
    whole = json.dumps({"after_step": 2, "action": "set", "settings": LR})
    log.write_text(whole + "\n" + whole[:20])
    assert [change.after_step for change in read_changes(log)] == [2]
    log.write_text("[]\n" + whole + "\n")
    with pytest.raises(ControlLogError, match="line 1 is no entry"):
        read_changes(log)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[World, RunDirectory]]:
    """A real server beside a run that stands still."""
    config = recipe.load(RECIPE, [f"run.dir={tmp_path}", "run.name=live"])
    directory = RunDirectory.create(config)
    world, live, _ = controlled(directory.root, num_steps=7)
    loop = asyncio.new_event_loop()
    server = ControlService(world.run, live, place=directory.control, loop=loop)
    server.start()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield world, directory
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert not directory.control.exists()


def test_the_service_answers_its_owner_alone(service: tuple[World, RunDirectory]) -> None:
    world, directory = service
    found = json.loads(directory.control.read_text())
    assert directory.control.stat().st_mode & 0o077 == 0
    assert found["url"].startswith("http://127.0.0.1:")
    assert httpx.get(found["url"] + "/status").status_code in (401, 403)
    stranger = {"Authorization": "Bearer " + "0" * 64}
    for method, path in (("GET", "/status"), ("POST", "/pause"), ("POST", "/set"), ("GET", "/log")):
        assert httpx.request(method, found["url"] + path, headers=stranger, json={}).status_code == 401
    assert world.run.control is not None and not world.run.control.is_paused

    status = _ask(directory.root, "GET", "/status")
    assert status["num_steps"] == 7 and status["settings"]["learner.lr"] > 0
    assert _ask(directory.root, "POST", "/set", json=LR) == {"accepted": LR, "after_step": 1}
    assert _ask(directory.root, "POST", "/pause")["accepted"] == "pause"
    assert world.run.control.is_paused
    with pytest.raises(ValueError, match="cannot change while a run goes on"):
        _ask(directory.root, "POST", "/set", json={"run.seed": 3})
    with pytest.raises(ValueError, match="this run has no evaluation"):
        _ask(directory.root, "POST", "/evaluate")
    with pytest.raises(ValueError, match="is no order"):
        _ask(directory.root, "POST", "/explode")
    assert [entry["action"] for entry in _ask(directory.root, "GET", "/log")] == ["pause"]


def test_a_run_that_is_over_says_so(tmp_path: Path) -> None:
    directory = RunDirectory.create(recipe.load(RECIPE, [f"run.dir={tmp_path}"]))
    with pytest.raises(ValueError, match="is not training now"):
        _ask(directory.root, "GET", "/status")


def test_a_branch_goes_on_from_its_checkpoint_and_leaves_the_run_alone(tmp_path: Path) -> None:
    config = recipe.load(RECIPE, [f"run.dir={tmp_path}", "run.name=trunk"])
    directory = RunDirectory.create(config)
    world, _, control = controlled(directory.root, num_steps=4, checkpoint_every=2, keep_checkpoints=5)
    directory.start_model.mkdir()
    (directory.start_model / "weights").write_text("w")
    play(driver.train(world.run))
    control.ask(LR)
    control.note("set", 1, settings=LR)
    control.note("set", 3, settings={"learner.lr": 9e-5})
    before = {p: p.read_bytes() for p in directory.root.rglob("*") if p.is_file()}

    made = branches.branch(directory.root, "twig", step=2)
    assert sorted(p.name for p in (made / "checkpoints").iterdir()) == ["step-000002"]
    assert recipe.read(made / "config.json")["run"]["name"] == "twig"
    assert [change.after_step for change in read_changes(made / "control.jsonl")] == [1]
    again, _, _ = controlled(made, num_steps=4)
    play(_go_on(again))
    assert again.run.step == 4 and len(again.learner.trained) == 2
    assert {p: p.read_bytes() for p in directory.root.rglob("*") if p.is_file()} == before
    with pytest.raises(ValueError, match="exists already"):
        branches.branch(directory.root, "twig", step=None)
    with pytest.raises(ValueError, match="has no checkpoint of step 3; it has: 2, 4"):
        branches.branch(directory.root, "other", step=3)


async def _go_on(world: World) -> None:
    await resume(world.run)
    await driver.train(world.run)


def test_rewards_and_lag_change_at_a_boundary_and_again_after_a_resume(tmp_path: Path) -> None:
    world, live, control = controlled(tmp_path, num_steps=4, checkpoint_every=2)
    wanted = {"rewards.components.answer.weight": 2.5, "buffer.max_lag": 2}

    async def story() -> None:
        training = asyncio.create_task(driver.train(world.run))
        await when(world, 1)
        live.check(wanted)
        control.ask(wanted)
        await training

    play(story())
    assert world.judge.weights == [{"answer": 2.5}]
    assert world.run.buffer.capacity == 9 and live.now()["buffer.max_lag"] == 2
    assert max(world.learner.lags[:2]) == 0 and world.learner.lags[3] >= 1, "a slot of step 4 did not wait for step 3"

    again, _, control = controlled(tmp_path, num_steps=6, checkpoint_every=2)

    async def go_on() -> None:
        await resume(again.run)
        await control.resume(again.run.step)
        await driver.train(again.run)

    play(go_on())
    assert again.judge.weights == [{"answer": 2.5}] and again.run.buffer.capacity == 9


def test_a_component_or_a_sampler_number_that_is_not_there_is_refused(tmp_path: Path) -> None:
    _, live, _ = controlled(tmp_path)
    for name in ("rewards.components.format.weight", "sampling.sampler.uniform_share"):
        with pytest.raises(ValueError, match="is no setting of this run"):
            live.check({name: 0.5})
    with pytest.raises(ValueError, match="cannot change while a run goes on"):
        live.check({"sampling.sampler.candidates": 2048})


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ({"type": "vade"}, "uniform_share", 0.5),
        ({"type": "curriculum"}, "review", 0.4),
        ({"type": "rif"}, "probe", 0.3),
        ({"type": "stat"}, "memory", 0.2),
        (
            {"type": "quotas", "by": "skill", "shares": {"4_terms": 1.0, "5_terms": 1.0, "6_terms": 2.0}},
            "shares.4_terms",
            3,
        ),
    ],
)
def test_a_sampler_goes_on_with_what_it_knows_under_other_numbers(
    tmp_path: Path, section: dict[str, Any], name: str, value: float
) -> None:
    plain = recipe.dump(recipe.load(RECIPE, ["budgets.shaping.type=none", "tasks.train.num_tasks=500"]))
    config = recipe.check({**plain, "sampling": {**plain["sampling"], "sampler": section}}, where="test")
    tasks = load_task_splits(config.tasks, seed=0).train
    world = make_world(tmp_path, num_steps=3, max_lag=0, sampler=None)
    run = world.run
    run.jobs = JobSource(
        build_sampler(config, tasks), FakeEfforts(), tasks=tasks, num_siblings=2, sampling=Sampling(), seed=0
    )
    live = LiveSettings(config, run)
    run.control = Control(adopt=live.adopt, log=tmp_path / "control.jsonl")
    settings = {f"sampling.sampler.{name}": value}

    async def story() -> None:
        training = asyncio.create_task(driver.train(run))
        await when(world, 1)
        before = run.jobs.sampler
        live.check(settings)
        run.control.ask(settings)
        await training
        assert run.jobs.sampler is not before
        assert run.jobs.sampler.state_dict()["observed"][1] == 9, "groups of before and after the change"

    play(story())
    assert live.now()[f"sampling.sampler.{name}"] == value


def test_a_timeline_that_is_asked_for_is_that_of_the_next_whole_step(tmp_path: Path) -> None:
    """Asked for while step 2 is under way: step 3 is the first that can be seen from its beginning. Once, not again."""
    world, _, control = controlled(tmp_path, num_steps=5)
    world.run.clock.trace = Trace(tmp_path / "traces", warn=pytest.fail)

    async def story() -> None:
        training = asyncio.create_task(driver.train(world.run))
        await when(world, 1)
        control.order("trace", world.run.step)
        await training

    play(story())
    assert [path.name for path in (tmp_path / "traces").iterdir()] == ["step-000003.json"]
    assert [(entry["action"], entry["after_step"]) for entry in read_log(control.log)] == [("trace", 1)]
