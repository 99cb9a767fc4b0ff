"""The buffer's counting, and who is blamed when a wait expires."""

from __future__ import annotations

import asyncio

import pytest

from rl.buffer import Buffer
from rl.waits import Waits, WaitTimeoutError
from tests.fakes.loop import play


def test_capacity_order_and_release() -> None:
    async def go() -> None:
        buffer = Buffer(groups_per_step=2, max_lag=1, first_step=5)
        slots = [await buffer.admit() for _ in range(4)]
        assert [s.step for s in slots] == [5, 5, 6, 6] and buffer.num_held == 4
        fifth = asyncio.ensure_future(buffer.admit())
        taking = asyncio.ensure_future(buffer.take())
        for slot in reversed(slots[:3]):
            await asyncio.sleep(1)
            assert not taking.done() and not fifth.done()
            slot.is_settled.set()
        assert await taking == slots[:2]
        assert not fifth.done(), "taken is not yet free"
        buffer.release(2)
        assert (await fifth).step == 7 and buffer.num_held == 3

    play(go())


def test_a_slot_is_held_at_once_only_while_one_is_free() -> None:
    async def go() -> None:
        buffer = Buffer(groups_per_step=2, max_lag=0)
        assert buffer.has_room and [buffer.admit_now().index, (await buffer.admit()).index] == [0, 1]
        assert not buffer.has_room
        with pytest.raises(RuntimeError, match="only while one is free: 2 of 2 are held"):
            buffer.admit_now()

    play(go())


def test_only_what_was_taken_can_be_released() -> None:
    async def go() -> None:
        buffer = Buffer(groups_per_step=1, max_lag=1)
        await buffer.admit()
        with pytest.raises(RuntimeError, match="0 taken, 0 released, 1 more asked for"):
            buffer.release(1)

    play(go())


def test_an_outside_wait_expires_by_itself_and_an_inside_wait_yields_to_it() -> None:
    async def go() -> None:
        waits = Waits(10.0)
        inside = asyncio.ensure_future(waits.inside("pack", "groups", asyncio.Event().wait()))
        await asyncio.sleep(5)
        with pytest.raises(WaitTimeoutError, match=r"learn waited more than 10 s for the learner\. .*pack for groups"):
            await waits.outside("learn", "the learner", asyncio.Event().wait())
        assert not inside.done(), "the call outside was under way, so the inside wait must not speak first"
        assert [w.owner for w in waits.under_way()] == ["pack"]
        started = asyncio.get_running_loop().time()
        with pytest.raises(WaitTimeoutError, match="pack waited more than 10 s for groups"):
            await inside
        assert asyncio.get_running_loop().time() - started == pytest.approx(10, abs=6)

    play(go())


def test_results_errors_and_foreign_timeouts_pass_through() -> None:
    async def give(value: int) -> int:
        return value

    async def time_out() -> None:
        raise TimeoutError("the engine's own")

    async def go() -> None:
        waits = Waits(10.0)
        assert await waits.outside("a", "b", give(1)) + await waits.inside("a", "b", give(2)) == 3
        for wait in (waits.outside, waits.inside):
            with pytest.raises(TimeoutError, match="the engine's own") as caught:
                await wait("a", "b", time_out())
            assert not isinstance(caught.value, WaitTimeoutError)
        assert waits.under_way() == []

    play(go())
