"""Worker processes that grow and shrink in number with the queue in front of them: `Lanes`.

A lane is one killable worker (`rewards.sandbox.WorkerPool` of one). Work waits in one queue and goes to the lane that
was used last, so idle ones can be given back. The rule:

    more   when a piece of work has waited `scale_up_wait_s` with every lane busy, and fewer than `max_workers` live
    fewer  when a lane has been idle for `scale_down_idle_s`, and more than `num_workers` live

One lane of the first `num_workers` starts whenever none is free, without a wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from rewards.batching import LatencyHistogram
from rewards.config import SandboxConfig
from rewards.sandbox import PoolStats, Reply, ReplyStatus, WorkerPool

_MAX_CHUNK = 32  # payloads that one lane takes at once: amortizes the round trip, bounds what waits behind a slow one


class QueueTooLongError(TimeoutError):
    """No lane became free in time."""


@dataclass(slots=True, eq=False)
class _Lane:
    pool: WorkerPool
    idle_since: float = 0.0  # monotonic seconds


class Lanes:
    """Between `num_workers` and `max_workers` workers. For one event loop at a time; `load` and `close` block."""

    def __init__(self, limits: SandboxConfig, *, scale_up_wait_s: float = 0.5, scale_down_idle_s: float = 30.0) -> None:
        self._limits = limits
        self._scale_up_wait_s = scale_up_wait_s
        self._scale_down_idle_s = scale_down_idle_s
        self._idle: list[_Lane] = []
        self._busy: set[_Lane] = set()
        self._waiting: deque[asyncio.Future[_Lane]] = deque()
        self._gone = PoolStats(calls=0, started=0, killed=0, timeouts=0, crashes=0)
        self._waits = LatencyHistogram()
        self._most = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def num_lanes(self) -> int:
        return len(self._idle) + len(self._busy)

    async def call(
        self, target: str, payloads: Sequence[Any], *, within_s: float = math.inf, max_seconds: float | None = None
    ) -> list[Reply]:
        """One reply per payload, in order; TIMEOUT for what is not answered `within_s` seconds from now.

        `max_seconds` for one payload is that of the limits unless given.
        """
        expires = time.monotonic() + within_s
        size = min(_MAX_CHUNK, -(-len(payloads) // max(self.num_lanes, self._limits.num_workers)) or 1)
        chunks = [payloads[start : start + size] for start in range(0, len(payloads), size)]
        replies = await asyncio.gather(*(self._answer(target, chunk, expires, max_seconds) for chunk in chunks))
        return [reply for chunk in replies for reply in chunk]

    async def load(self, target: str) -> None:
        """Prove that `target` can be imported inside a worker. Raises SandboxLoadError with the reason."""
        async with self._lane(math.inf) as lane:
            await asyncio.to_thread(lane.pool.load, target)

    def stats(self) -> PoolStats:
        """Counts since the start, those of lanes given back included."""
        return pooled([self._gone, *(lane.pool.stats() for lane in (*self._idle, *self._busy))])

    def take_waits(self) -> tuple[LatencyHistogram, int]:
        """Seconds that work waited for a lane, and the most lanes there were, since the last call."""
        taken = self._waits, max(self._most, self.num_lanes)
        self._waits, self._most = LatencyHistogram(), self.num_lanes
        return taken

    def worker_pids(self) -> list[int]:
        return [pid for lane in (*self._idle, *self._busy) for pid in lane.pool.worker_pids()]

    def close(self) -> None:
        """Kill all workers; work still open gets CRASH replies. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        for lane in (*self._idle, *self._busy):
            lane.pool.close()

    # -------------------------------------------------------------------------------------------- one piece of work

    async def _answer(
        self, target: str, payloads: Sequence[Any], expires: float, max_seconds: float | None
    ) -> list[Reply]:
        try:
            async with self._lane(expires) as lane:
                within_s = expires - time.monotonic()
                return await lane.pool.acall(target, payloads, within_s=within_s, max_seconds=max_seconds)
        except QueueTooLongError:
            return [Reply(status=ReplyStatus.TIMEOUT, detail="longer than it could wait for a worker")] * len(payloads)

    @contextlib.asynccontextmanager
    async def _lane(self, expires: float) -> AsyncIterator[_Lane]:
        since = time.monotonic()
        lane = await self._acquire(since, expires)
        self._waits.add(time.monotonic() - since)
        try:
            yield lane
        finally:
            self._release(lane)

    async def _acquire(self, since: float, expires: float) -> _Lane:
        if self._idle:
            lane = self._idle.pop()
        elif self.num_lanes < self._limits.num_workers:
            lane = self._open()
        else:
            return await self._wait(since, expires)
        self._busy.add(lane)
        return lane

    async def _wait(self, since: float, expires: float) -> _Lane:
        """The next lane that is released, or a new one once the wait says that there are too few."""
        place: asyncio.Future[_Lane] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        patience = since + self._scale_up_wait_s
        try:
            while not place.done():
                may_grow = self.num_lanes < self._limits.most_workers
                until = min(expires, patience if may_grow else math.inf)
                left = until - time.monotonic()
                if left <= 0 and until == expires:
                    raise QueueTooLongError
                if left <= 0:
                    place.set_result(lane := self._open())
                    self._busy.add(lane)
                    break
                # Looks again now and then: a lane may have been given back meanwhile, and growth be possible again.
                await asyncio.wait([place], timeout=min(left, self._scale_up_wait_s))
        except asyncio.CancelledError:
            if place.done():
                self._release(place.result())
            raise
        finally:
            with contextlib.suppress(ValueError):  # taken out by who released a lane to it
                self._waiting.remove(place)
        return place.result()

    def _release(self, lane: _Lane) -> None:
        """Hand the lane to who has waited longest, who now owns it; or keep it idle."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done() and place.get_loop() is asyncio.get_running_loop():
                place.set_result(lane)
                return
        self._busy.discard(lane)
        lane.idle_since = time.monotonic()
        self._idle.append(lane)
        self._shrink_later()

    # ------------------------------------------------------------------------------------------- more and fewer lanes

    def _open(self) -> _Lane:
        limits = self._limits
        pool = WorkerPool(
            num_workers=1,
            max_seconds=limits.max_seconds,
            max_memory_mib=limits.max_memory_mib,
            max_start_seconds=limits.max_start_seconds,
        )
        lane = _Lane(pool)
        self._most = max(self._most, self.num_lanes + 1)
        return lane

    def _shrink_later(self) -> None:
        if self._timer is None and self.num_lanes > self._limits.num_workers:
            self._timer = asyncio.get_running_loop().call_later(self._scale_down_idle_s, self._shrink)

    def _shrink(self) -> None:
        """Give back the lanes that have been idle long enough, the longest first."""
        self._timer = None
        enough = time.monotonic() - self._scale_down_idle_s
        for lane in sorted(self._idle, key=lambda item: item.idle_since):
            if self.num_lanes > self._limits.num_workers and lane.idle_since <= enough:
                self._idle.remove(lane)
                lane.pool.close()
                self._gone = pooled([self._gone, lane.pool.stats()])
        self._shrink_later()


def pooled(stats: Sequence[PoolStats]) -> PoolStats:
    """The counts of several pools, added up."""
    return PoolStats(
        calls=sum(s.calls for s in stats),
        started=sum(s.started for s in stats),
        killed=sum(s.killed for s in stats),
        timeouts=sum(s.timeouts for s in stats),
        crashes=sum(s.crashes for s in stats),
    )
