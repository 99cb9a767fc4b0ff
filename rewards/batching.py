"""`BatchedCalls`: many small concurrent questions to a service, sent as few large ones."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from rollout.schema import Metric

Item = TypeVar("Item")
Result = TypeVar("Result")

_LINGER_S = 0.002  # a remote call costs about half a millisecond of processor time, so a burst is worth waiting for
_MAX_BATCH = 128
_BUCKETS_PER_OCTAVE = 4


class LatencyHistogram:
    """Logarithmic buckets, 19 % wide. Quantiles are upper bucket bounds, in seconds."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, seconds: float) -> None:
        self._counts[math.ceil(math.log2(max(seconds, 1e-6)) * _BUCKETS_PER_OCTAVE)] += 1

    def quantile(self, fraction: float) -> float:
        """0.0 while empty."""
        needed = fraction * self._counts.total()
        seen = 0
        for bucket in sorted(self._counts):
            seen += self._counts[bucket]
            if seen >= needed:
                return math.exp2(bucket / _BUCKETS_PER_OCTAVE)
        return 0.0

    def merge(self, other: LatencyHistogram) -> None:
        """Add what another histogram has counted."""
        self._counts.update(other._counts)

    def clear(self) -> None:
        self._counts.clear()


class BatchedCalls(Generic[Item, Result]):
    """Coalesces concurrent `ask`s into calls of `send`, with a bound on what is open and a deadline for each.

    At most `max_pending` questions are open; a further caller waits for a place (and each place is free again within
    `deadline_s`, so the wait is bounded too). Questions that arrive within two milliseconds share one call. Belongs
    to one event loop.
    """

    def __init__(
        self,
        send: Callable[[list[Item]], Awaitable[Sequence[Result]]],
        *,
        max_pending: int,
        deadline_s: float,
    ) -> None:
        self._send = send
        self._deadline_s = deadline_s
        self._places = asyncio.Semaphore(max_pending)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._latency = LatencyHistogram()
        self._open = 0
        self._most_open = 0

    async def ask(self, item: Item) -> Result:
        """The service's answer. Raises TimeoutError at the deadline, and whatever `send` raised for the whole call."""
        async with self._places:
            self._open += 1
            self._most_open = max(self._most_open, self._open)
            started = time.monotonic()
            try:
                return await asyncio.wait_for(self._enqueue(item), self._deadline_s)
            finally:
                self._open -= 1
                self._latency.add(time.monotonic() - started)

    def metrics(self, prefix: str) -> list[Metric]:
        """Latency quantiles and the largest number of open questions since the last call."""
        metrics = [
            Metric(name=f"{prefix}/latency_p50_s", value=self._latency.quantile(0.5), reduce="max"),
            Metric(name=f"{prefix}/latency_p99_s", value=self._latency.quantile(0.99), reduce="max"),
            Metric(name=f"{prefix}/pending_max", value=float(self._most_open), reduce="max"),
        ]
        self._latency.clear()
        self._most_open = self._open
        return metrics

    def _enqueue(self, item: Item) -> asyncio.Future[Result]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Result] = loop.create_future()
        if not self._waiting:
            loop.call_later(_LINGER_S, self._flush)
        self._waiting.append((item, answer))
        return answer

    def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MAX_BATCH):
            call = asyncio.get_running_loop().create_task(self._exchange(waiting[start : start + _MAX_BATCH]))
            self._calls.add(call)  # the loop itself keeps only a weak reference
            call.add_done_callback(self._calls.discard)

    async def _exchange(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._send([item for item, _ in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"a service gave {len(results)} answers to {len(batch)} questions")
        # The boundary to the service: the failure belongs to those who asked, not to this task.
        except Exception as error:  # noqa: BLE001
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            return
        for (_, answer), result in zip(batch, results, strict=True):
            if not answer.done():
                answer.set_result(result)
