"""`play` runs a coroutine on a virtual clock: a sleep of an hour takes no time, and the order of events is exact."""

from __future__ import annotations

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

TICK = 1e-7  # seconds; larger than the clock's resolution, within which timers go off together


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to the next timer whenever nothing is ready."""

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._timers_at: Counter[float] = Counter()
        super().__init__(_Jumper(self))

    def time(self) -> float:
        return self._elapsed

    def jump(self, seconds: float) -> None:
        self._elapsed += seconds

    def call_at(self, when: float, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        """Timers of one moment go off in the order in which they were set: the heap they lie in keeps no order of
        equals, so what else happens in a test would decide."""
        self._timers_at[when] += 1
        return super().call_at(when + TICK * (self._timers_at[when] - 1), *args, **kwargs)


class _Jumper(selectors.DefaultSelector):
    def __init__(self, loop: VirtualClockLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("every task waits and no timer is set: a deadlock")
        self._loop.jump(max(0.0, timeout))
        return super().select(0)


async def inline(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """What a thread would do, done at once: the virtual clock must not jump while a thread works."""
    return function(*args, **kwargs)


def play(work: Coroutine[Any, Any, T]) -> T:
    """Run on the virtual clock."""
    with patch("asyncio.to_thread", inline), asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(work)
