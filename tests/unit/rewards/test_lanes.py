"""Workers that grow and shrink in number with the queue in front of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import psutil
import pytest

from rewards.config import SandboxConfig
from rewards.lanes import Lanes
from rewards.sandbox import ReplyStatus, SandboxLoadError

NAP = "time:sleep"


@pytest.fixture
async def lanes() -> AsyncIterator[Lanes]:
    limits = SandboxConfig(num_workers=1, max_workers=3, max_seconds=5)
    lanes = Lanes(limits, scale_up_wait_s=0.1, scale_down_idle_s=0.3)
    yield lanes
    lanes.close()


async def test_work_that_waits_brings_more_workers_and_idleness_gives_them_back(lanes: Lanes) -> None:
    await lanes.call(NAP, [0])
    assert lanes.num_lanes == 1
    naps = [lanes.call(NAP, [0.8]) for _ in range(6)]
    replies = await asyncio.gather(*naps)
    assert all(reply.status is ReplyStatus.OK for (reply,) in replies)
    waits, most = lanes.take_waits()
    assert most == 3  # the limit, though six pieces of work were there
    assert waits.quantile(0.5) > 0.1
    started_by_now, workers = lanes.stats().started, [psutil.Process(pid) for pid in lanes.worker_pids()]
    for _ in range(40):
        await asyncio.sleep(0.05)
        if lanes.num_lanes == 1:
            break
    assert lanes.num_lanes == 1 and len(lanes.worker_pids()) == 1
    assert sum(worker.is_running() for worker in workers) == 1
    assert lanes.stats().started == started_by_now and lanes.stats().calls == 7  # those given back still count


async def test_short_work_does_not_bring_more_workers(lanes: Lanes) -> None:
    await lanes.call(NAP, [0])
    await asyncio.gather(*(lanes.call(NAP, [0.005]) for _ in range(6)))
    assert lanes.num_lanes == 1


async def test_work_that_waits_too_long_is_late_and_the_rest_goes_on() -> None:
    lanes = Lanes(SandboxConfig(num_workers=1, max_workers=1, max_seconds=5))
    try:
        await lanes.call(NAP, [0])
        slow, late = await asyncio.gather(lanes.call(NAP, [0.6]), lanes.call(NAP, [0], within_s=0.2))
        assert slow[0].status is ReplyStatus.OK
        assert late[0].status is ReplyStatus.TIMEOUT and "wait for a worker" in late[0].detail
        assert (await lanes.call(NAP, [0]))[0].status is ReplyStatus.OK
    finally:
        lanes.close()


async def test_a_caller_that_gives_up_does_not_take_its_lane_along(lanes: Lanes) -> None:
    await lanes.call(NAP, [0])
    calls = [asyncio.ensure_future(lanes.call(NAP, [0.2])) for _ in range(4)]
    await asyncio.sleep(0.05)
    for call in calls[1:]:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert (await lanes.call(NAP, [0], within_s=5))[0].status is ReplyStatus.OK


async def test_a_lane_handed_to_a_caller_that_gives_up_at_that_moment_goes_on_to_the_next() -> None:
    lanes = Lanes(SandboxConfig(num_workers=1, max_workers=1, max_seconds=5))
    try:
        async with lanes._lane(math.inf):
            waiting = asyncio.ensure_future(lanes.call(NAP, [0]))
            await asyncio.sleep(0.05)
        waiting.cancel()  # the lane is its own already, and it has not run since
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await lanes.call(NAP, [0], within_s=5))[0].status is ReplyStatus.OK
    finally:
        lanes.close()


async def test_what_cannot_be_imported_is_told(lanes: Lanes) -> None:
    with pytest.raises(SandboxLoadError, match="no_such_module"):
        await lanes.load("no_such_module:f")
