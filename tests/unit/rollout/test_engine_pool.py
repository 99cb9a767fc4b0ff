"""The pool without engines behind it: routing, deadlines, one cause for every caller."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError

from rollout import pool as pool_module
from rollout.actor import start_engines
from rollout.config import FormatConfig, RolloutConfig
from rollout.engine import EngineDeadError, EngineError, EngineTimeoutError
from rollout.pool import EnginePool, Member, Revive
from rollout.schema import Finish, Group, Job, Message, PolicySpan, Sampling, Task, TokenBudget, Trajectory


def make_job(num_siblings: int) -> Job:
    task = Task(key="k", prompt=(Message(role="user", content="q"),), answer="", verifier="math", source="test")
    budget = TokenBudget(effort="high", max_prompt_tokens=9, max_thinking_tokens=None, max_answer_tokens=9)
    return Job(group_id="g", task=task, num_siblings=num_siblings, budget=budget, sampling=Sampling())


def make_group(job: Job) -> Group:
    none = np.zeros(0, dtype=np.float32)
    trajectories = tuple(
        Trajectory(
            group_id="g", sibling=s, token_ids=none.astype(np.int32), sampled=none.astype(np.bool_),
            sampler_logprobs=none, char_ends=none.astype(np.int32), prompt_len=0, text="", thinking=None, answer=None,
            finish=Finish.ERROR, policy=PolicySpan(start=0, end=0),
        )
        for s in range(job.num_siblings)
    )  # fmt: skip
    return Group(job=job, trajectories=trajectories)


class FakeActor:
    """Answers `method.remote(...)` with a coroutine, as a Ray handle answers with an awaitable reference."""

    def __init__(self, behave: Callable[..., Any]) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self._behave = behave

    def __getattr__(self, method: str) -> Any:
        class Remote:
            @staticmethod
            def remote(*args: Any) -> Any:
                self.calls.append((method, args))
                return later(self._behave(method, *args))

        return Remote


async def later(answer: Any) -> Any:
    """What another process says is never there at once."""
    await asyncio.sleep(0)
    return await answer


def make_pool(
    *behaviors: Callable[..., Any], timeout_s: float = 5.0, revive: Revive | None = None, max_restarts: int = 0
) -> tuple[EnginePool, list[FakeActor]]:
    actors = [FakeActor(behave) for behave in behaviors]
    members = [Member(f"rollout-{i}", fake, f"/logs/rollout-{i}.log") for i, fake in enumerate(actors)]
    return EnginePool(members, call_timeout_s=timeout_s, revive=revive, max_restarts=max_restarts), actors


@pytest.fixture(autouse=True)
def killed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Actors that the pool ended."""
    actors: list[Any] = []
    monkeypatch.setattr(pool_module.ray, "kill", actors.append)
    return actors


async def die(*_: Any) -> None:
    raise RayActorError(error_msg="the process was killed\nlong report")


async def serve(method: str, *args: Any) -> Any:
    await asyncio.sleep(0)
    return make_group(args[0]) if method == "generate" else 3 if method == "version" else []


async def test_jobs_go_to_the_engine_with_the_fewest_siblings_pending() -> None:
    release = asyncio.Event()

    async def hold(_: str, job: Job) -> Group:
        await release.wait()
        return make_group(job)

    pool, (first, second) = make_pool(hold, hold)
    sizes = (8, 2, 2, 2, 2, 4, 1)
    running = []
    for size in sizes:
        running.append(asyncio.create_task(pool.generate(make_job(size))))
        await asyncio.sleep(0)
    assert [args[0].num_siblings for _, args in first.calls] == [8, 4]
    assert [args[0].num_siblings for _, args in second.calls] == [2, 2, 2, 2, 1]
    release.set()
    groups = await asyncio.gather(*running)
    assert [len(g.trajectories) for g in groups] == list(sizes)
    await pool.generate(make_job(1))
    assert len(first.calls) == 3  # both are idle again: the first one wins


async def test_weights_go_to_every_engine_in_order() -> None:
    async def answer(method: str, *_: Any) -> Any:
        return 4 if method == "version" else None

    pool, actors = make_pool(answer, answer)
    await pool.begin_update(4)
    await pool.receive("a reference")
    await pool.finish_update(4)
    assert await pool.versions() == [4, 4]
    expected = [("begin_update", (4,)), ("receive", ("a reference",)), ("finish_update", (4,)), ("version", ())]
    assert all(fake.calls == expected for fake in actors)


async def test_a_late_answer_names_engine_call_and_log(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr(pool_module.ray, "cancel", cancelled.append)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    pool, _ = make_pool(hang, timeout_s=0.02)
    with pytest.raises(EngineTimeoutError, match=r"rollout-0 did not answer generate within 0.02 s; .*rollout-0.log"):
        await pool.generate(make_job(1))
    assert len(cancelled) == 1


async def test_the_last_engine_s_death_is_what_every_later_call_reports() -> None:
    pool, (fake,) = make_pool(die)
    with pytest.raises(EngineDeadError) as first:
        await pool.probe([[1, 2]])
    assert (
        str(first.value) == "engine rollout-0 died during probe: the process was killed; its log: /logs/rollout-0.log"
    )
    num_calls = len(fake.calls)
    for call in (pool.versions(), pool.generate(make_job(1)), pool.begin_update(1)):
        with pytest.raises(EngineDeadError) as second:
            await call
        assert second.value is first.value
    assert len(fake.calls) == num_calls


async def test_of_many_engines_the_one_with_the_fewest_siblings_pending_is_asked() -> None:
    """By the heap as by looking at all of them, whatever ends when."""
    chance = random.Random(0)
    release: dict[int, asyncio.Event] = {}

    async def wait(method: str, job: Job) -> Group:
        await release[job.num_siblings].wait()
        return make_group(job)

    pool, _ = make_pool(*[wait] * 7)
    members = pool._serving
    running: dict[int, asyncio.Task[Group]] = {}
    for size in range(1, 400):
        expected = min(members, key=lambda m: m.num_pending)
        release[size] = asyncio.Event()
        running[size] = asyncio.create_task(pool.generate(make_job(size)))
        await asyncio.sleep(0)
        assert expected.actor.calls[-1][1][0].num_siblings == size
        for done in chance.sample(sorted(running), k=min(len(running), chance.choice((0, 0, 1, 3)))):
            release[done].set()
            await running.pop(done)
    for done, task in running.items():
        release[done].set()
        await task
    assert all(member.num_pending == 0 for member in members) and len(pool._by_load) < 100


async def test_a_dead_engine_s_jobs_are_issued_once_more_elsewhere(killed: list[Any]) -> None:
    pool, (first, second) = make_pool(die, serve)
    told: list[str] = []
    pool.notify = told.append
    groups = await asyncio.gather(*(pool.generate(make_job(2)) for _ in range(4)))
    assert len(groups) == 4 and pool.num_engines == 1
    assert len(second.calls) == 4 and killed == [first]  # ended once, though two jobs died with it
    assert len(told) == 1 and "Its jobs go to the other 1; it is not started again" in told[0]
    found = {metric.name: metric.value for metric in pool.metrics()}
    idle = [found.pop(name) for name in ("engines/idle_mean", "engines/idle_most")]
    assert 0 <= idle[0] == idle[1] <= 1  # of the one that is left
    assert found == {"engines/serving": 1, "engines/lost": 1, "engines/jobs_reissued": 2}
    assert await pool.versions() == [3]


async def test_a_job_that_two_engines_died_of_ends_the_run() -> None:
    pool, (*_, third) = make_pool(die, die, serve)
    with pytest.raises(EngineDeadError, match="rollout-1 died during generate"):
        await pool.generate(make_job(1))
    assert third.calls == []
    with pytest.raises(EngineDeadError, match="rollout-1 died during generate"):
        await pool.versions()


async def test_an_error_that_is_no_death_is_not_tried_again() -> None:
    async def break_(*_: Any) -> None:
        raise RayTaskError("generate", "traceback", KeyError("x"))

    pool, (_, healthy) = make_pool(break_, serve)
    with pytest.raises(EngineError, match="KeyError"):
        await pool.generate(make_job(1))
    assert healthy.calls == []


async def test_an_engine_that_comes_back_serves_after_the_next_publish_and_not_before() -> None:
    fresh = FakeActor(serve)
    is_up = asyncio.Event()

    async def revive(dead: Member) -> Member:
        await is_up.wait()
        return Member(dead.name, fresh, dead.log_path)

    pool, (_, second) = make_pool(die, serve, revive=revive, max_restarts=1)
    told: list[str] = []
    pool.notify = told.append
    await pool.begin_update(4)  # the first engine dies in the middle of an update, and misses the rest of it
    await pool.receive("a chunk")
    await pool.finish_update(4)
    is_up.set()
    await asyncio.sleep(0.01)
    assert pool.num_engines == 1 and fresh.calls == []
    await pool.generate(make_job(1))
    assert [name for name, _ in second.calls][-1] == "generate"
    await pool.begin_update(5)
    assert pool.num_engines == 2 and fresh.calls == [("begin_update", (5,))]
    assert "is being started again" in told[0] and "is back" in told[1]


async def test_restarts_are_counted_and_a_failed_one_is_no_end() -> None:
    tries: list[str] = []

    async def revive(dead: Member) -> Member:
        tries.append(dead.name)
        raise EngineError("no GPU is free")

    pool, _ = make_pool(die, die, serve, revive=revive, max_restarts=1)
    told: list[str] = []
    pool.notify = told.append
    assert len(await pool.versions()) == 1
    await asyncio.sleep(0.01)
    assert tries == ["rollout-0"]
    assert any("could not be started again: no GPU is free" in line for line in told)
    assert any("rollout-1" in line and "not started again" in line for line in told)


@pytest.mark.parametrize(
    ("cause", "expected", "message"),
    [
        (ValueError("the chat template drops it"), ValueError, "engine rollout-0: the chat template drops it"),
        (KeyError("x"), EngineError, "engine rollout-0 failed during start: KeyError: 'x'; its log:"),
        (EngineDeadError("the engine stopped: boom"), EngineDeadError, "rollout-0 failed during start: the engine st"),
    ],
)
def test_errors_inside_an_engine_are_explained(cause: Exception, expected: type[Exception], message: str) -> None:
    member = Member("rollout-0", None, "/logs/rollout-0.log")
    error = member.explain(RayTaskError("start", "traceback", cause), "start")
    assert type(error) is expected
    assert message in str(error)


def test_model_directories_are_checked_before_anything_starts(tmp_path: Path) -> None:
    def start() -> EnginePool:
        return start_engines(RolloutConfig(), FormatConfig(), str(tmp_path), log_dir=str(tmp_path))

    with pytest.raises(ValueError, match=r"a model directory must hold config.json"):
        start()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"a model directory must hold weights \(\*.safetensors"):
        start()


async def test_an_engine_without_a_sibling_to_write_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("rollout.pool.time.monotonic", lambda: now)
    member = Member("rollout-0", None, "log")
    with member.working(4), member.working(2):
        now = 105.0
    now = 107.0
    assert member.num_pending == 0 and member.take_idle_s() == 2.0
    now = 108.0
    with member.working(1):
        now = 120.0
        assert member.take_idle_s() == 1.0 and member.take_idle_s() == 0.0
