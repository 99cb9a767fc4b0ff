"""Every wait of the loop: who waits, for what, since when, and for how long at most.

Two kinds. A wait *outside* is a call into another part of the system (an engine, the judge, the learner); it has a
deadline of its own. A wait *inside* is for a peer loop (a free slot, a settled group, a packed batch); how long it may
last depends on what the peer is waiting for, so it expires only when no outside call is under way and none has
returned for a whole deadline. So the message names the part that hangs, not the loop that happened to notice first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class WaitTimeoutError(TimeoutError):
    """A wait outlived its deadline."""


class Wait(NamedTuple):
    """One wait under way. `since` is in the event loop's seconds."""

    owner: str
    target: str
    since: float
    is_outside: bool


class Waits:
    """The register of waits, shared by all loops of a run."""

    def __init__(self, deadline_s: float) -> None:
        self.deadline_s = deadline_s
        self._waits: dict[int, Wait] = {}
        self._numbers = itertools.count()
        self._last_return = 0.0

    async def outside(self, owner: str, target: str, call: Awaitable[T]) -> T:
        """Await a call into another part of the system. Raises WaitTimeoutError after `deadline_s`."""
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        self._waits[number] = Wait(owner, target, loop.time(), True)
        try:
            async with asyncio.timeout(self.deadline_s) as deadline:
                return await call
        except TimeoutError as error:
            if deadline.expired():
                raise self._expired(owner, target) from error
            raise
        finally:
            self._last_return = loop.time()
            del self._waits[number]

    async def inside(self, owner: str, target: str, peer: Awaitable[T]) -> T:
        """Await a peer loop. Raises WaitTimeoutError when the whole run has stood still for `deadline_s`."""
        task = asyncio.ensure_future(peer)
        with self._registered(owner, target, is_outside=False) as wait:
            try:
                while not task.done():
                    await asyncio.wait({task}, timeout=self._patience(wait))
                    if not task.done() and self._patience(wait) <= 0:
                        raise self._expired(owner, target)
                return task.result()
            finally:
                task.cancel()

    async def held(self, owner: str, target: str, call: Awaitable[T]) -> T:
        """Await something that may take as long as it likes, such as a person. The other waits bear with it."""
        with self._registered(owner, target, is_outside=True):
            try:
                return await call
            finally:
                self._last_return = asyncio.get_running_loop().time()

    def under_way(self) -> list[Wait]:
        """Current waits, oldest first."""
        return list(self._waits.values())

    def _patience(self, wait: Wait) -> float:
        """Seconds an inside wait may still last: a whole deadline while any outside call is under way."""
        if any(other.is_outside for other in self._waits.values()):
            return self.deadline_s
        return max(wait.since, self._last_return) + self.deadline_s - asyncio.get_running_loop().time()

    def _expired(self, owner: str, target: str) -> WaitTimeoutError:
        now = asyncio.get_running_loop().time()
        others = [f"{w.owner} for {w.target} ({now - w.since:.0f} s)" for w in self._waits.values()]
        return WaitTimeoutError(
            f"{owner} waited more than {self.deadline_s:g} s for {target}. Look at the log of that part; if the work "
            f"is only slow, raise loop.wait_deadline_s. All waits under way: {'; '.join(others[:8])}"
            + (f"; and {len(others) - 8} more" if len(others) > 8 else "")
        )

    @contextmanager
    def _registered(self, owner: str, target: str, *, is_outside: bool) -> Iterator[Wait]:
        number = next(self._numbers)
        now = asyncio.get_running_loop().time()
        self._waits[number] = wait = Wait(owner=owner, target=target, since=now, is_outside=is_outside)
        try:
            yield wait
        finally:
            del self._waits[number]
