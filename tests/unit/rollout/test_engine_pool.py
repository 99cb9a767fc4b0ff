"""The pool without engines behind it: routing, deadlines, one cause for every caller."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError, RayTaskError

from rollout import actor
from rollout.actor import EnginePool, _Member, start_engines
from rollout.config import FormatConfig, RolloutConfig
from rollout.engine import EngineDeadError, EngineError, EngineTimeoutError
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
                return self._behave(method, *args)

        return Remote


def make_pool(*behaviors: Callable[..., Any], timeout_s: float = 5.0) -> tuple[EnginePool, list[FakeActor]]:
    actors = [FakeActor(behave) for behave in behaviors]
    members = [_Member(f"rollout-{i}", fake, f"/logs/rollout-{i}.log") for i, fake in enumerate(actors)]
    return EnginePool(members, call_timeout_s=timeout_s), actors


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
    monkeypatch.setattr(actor.ray, "cancel", cancelled.append)

    async def hang(*_: Any) -> None:
        await asyncio.sleep(60)

    pool, _ = make_pool(hang, timeout_s=0.02)
    with pytest.raises(EngineTimeoutError, match=r"rollout-0 did not answer generate within 0.02 s; .*rollout-0.log"):
        await pool.generate(make_job(1))
    assert len(cancelled) == 1


async def test_the_first_failure_is_what_every_later_call_reports() -> None:
    async def die(*_: Any) -> None:
        raise RayActorError(error_msg="the process was killed\nlong report")

    async def work(method: str, *_: Any) -> list[Any]:
        return []

    pool, (_, healthy) = make_pool(die, work)
    message = "engine rollout-0 died during probe: the process was killed; its log: /logs/rollout-0.log"
    with pytest.raises(EngineDeadError) as first:
        await pool.probe([[1, 2]])
    assert str(first.value) == message
    num_calls = len(healthy.calls)
    with pytest.raises(EngineDeadError) as second:
        await pool.versions()
    assert second.value is first.value
    assert len(healthy.calls) == num_calls


@pytest.mark.parametrize(
    ("cause", "expected", "message"),
    [
        (ValueError("the chat template drops it"), ValueError, "engine rollout-0: the chat template drops it"),
        (KeyError("x"), EngineError, "engine rollout-0 failed during start: KeyError: 'x'; its log:"),
        (EngineDeadError("the engine stopped: boom"), EngineDeadError, "rollout-0 failed during start: the engine st"),
    ],
)
def test_errors_inside_an_engine_are_explained(cause: Exception, expected: type[Exception], message: str) -> None:
    member = _Member("rollout-0", None, "/logs/rollout-0.log")
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
