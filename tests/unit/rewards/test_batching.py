from __future__ import annotations

import asyncio
import time

import pytest

from rewards.batching import BatchedCalls, LatencyHistogram


async def test_a_burst_shares_one_call_and_answers_keep_their_order() -> None:
    sizes: list[int] = []

    async def send(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return [item * 10 for item in items]

    calls = BatchedCalls(send, max_pending=100, deadline_s=5)
    assert await asyncio.gather(*(calls.ask(item) for item in range(20))) == [item * 10 for item in range(20)]
    assert sizes == [20]


async def test_no_more_questions_are_open_than_allowed() -> None:
    open_now = most = 0

    async def send(items: list[int]) -> list[int]:
        nonlocal open_now, most
        open_now += len(items)
        most = max(most, open_now)
        await asyncio.sleep(0.005)
        open_now -= len(items)
        return items

    calls = BatchedCalls(send, max_pending=3, deadline_s=5)
    assert await asyncio.gather(*(calls.ask(item) for item in range(12))) == list(range(12))
    assert most == 3
    metrics = {metric.name: metric.value for metric in calls.metrics("judge")}
    assert metrics["judge/pending_max"] == 3
    assert 0.005 <= metrics["judge/latency_p50_s"] <= metrics["judge/latency_p99_s"] < 1


async def test_silence_ends_at_the_deadline_and_frees_the_place() -> None:
    silent = True

    async def send(items: list[int]) -> list[int]:
        await asyncio.sleep(60 if silent else 0)
        return items

    calls = BatchedCalls(send, max_pending=1, deadline_s=0.05)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await calls.ask(1)
    assert time.monotonic() - started < 5
    silent = False
    assert await calls.ask(2) == 2


async def test_a_failing_call_fails_those_who_asked_and_nobody_else() -> None:
    async def send(items: list[int]) -> list[int]:
        if 13 in items:
            raise ConnectionError("gone")
        return items[:1] if len(items) == 2 else items

    calls = BatchedCalls(send, max_pending=9, deadline_s=5)
    first = await asyncio.gather(calls.ask(13), calls.ask(1), return_exceptions=True)
    assert [type(error) for error in first] == [ConnectionError, ConnectionError]
    assert await calls.ask(5) == 5
    wrong_count = await asyncio.gather(calls.ask(1), calls.ask(2), return_exceptions=True)
    assert all(isinstance(error, RuntimeError) and "1 answers to 2" in str(error) for error in wrong_count)


def test_quantiles_are_upper_bucket_bounds() -> None:
    histogram = LatencyHistogram()
    assert histogram.quantile(0.5) == 0.0
    for milliseconds in range(1, 101):
        histogram.add(milliseconds / 1000)
    assert 0.050 <= histogram.quantile(0.5) <= 0.050 * 1.19
    assert 0.099 <= histogram.quantile(0.99) <= 0.099 * 1.19
