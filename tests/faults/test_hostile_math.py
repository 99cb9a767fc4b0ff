"""Whatever an answer holds, the math verifier is done in time, nothing is written, and the next answer is judged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rewards.config import RewardsConfig, SandboxConfig
from rewards.judge import Judge
from rewards.math_text import judge_text
from rewards.outcome import Sample
from rewards.sandbox import ReplyStatus, WorkerPool
from rewards.verifier import BUILT_IN_VERIFIERS
from rollout.schema import Outcome, Status
from tests.fakes.rewards import sample
from tests.faults.hostile_math import HOSTILE, MARK, REFERENCES

VERIFY = "rewards.math_answer:verify"
LIMIT_S = 0.5
SANDBOX = SandboxConfig(num_workers=1, max_seconds=LIMIT_S, max_memory_mib=1536)
ALGEBRA = (r"\boxed{x^2-1}", "(x-1)(x+1)")  # right, and only a worker can say so


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    monkeypatch.chdir(tmp_path)  # the workers' directory too
    pool = WorkerPool(num_workers=1, max_seconds=LIMIT_S, max_memory_mib=1536)
    pool.load(VERIFY)
    yield pool
    pool.close()


def in_worker(pool: WorkerPool, one: Sample) -> tuple[float | None, bool]:
    """The score that a worker gives, and whether it was killed over it."""
    (reply,) = pool.call(VERIFY, [one])
    ended = reply.status in (ReplyStatus.TIMEOUT, ReplyStatus.MEMORY, ReplyStatus.CRASH)
    assert ended or reply.status is ReplyStatus.OK, (one.answer[:80], reply)
    return (None if ended else reply.value["score"]), ended


def test_two_hundred_hostile_answers_are_contained(pool: WorkerPool, tmp_path: Path) -> None:
    assert len(HOSTILE) >= 200
    for index, text in enumerate(HOSTILE):
        answer = text if index % 2 else rf"\boxed{{{text}}}"
        one = sample(answer, REFERENCES[index % len(REFERENCES)], verifier="math")
        started = time.monotonic()
        quick = judge_text(one)
        assert time.monotonic() - started < LIMIT_S, text[:80]
        score, ended = (quick.score, False) if quick is not None else in_worker(pool, one)
        assert time.monotonic() - started < LIMIT_S + 1, text[:80]
        assert score == (None if ended else 0.0) or text in _HARMLESS, text[:80]
        if ended:
            assert in_worker(pool, sample(*ALGEBRA)) == (1.0, False)
        assert len(pool.worker_pids()) <= 1
    assert in_worker(pool, sample(*ALGEBRA)) == (1.0, False)
    assert list(tmp_path.iterdir()) == [] and not Path(MARK).exists()


# Written as a trick, but the very reference: 8 behind invisible characters or inside many boxes.
_HARMLESS = frozenset(text for text in HOSTILE if text.replace("\u200b", "") in ("8", "1"))


def test_what_the_worker_says_is_what_the_driver_says(pool: WorkerPool) -> None:
    """The part that may run unprotected is the same part inside the worker."""
    samples = [sample(text, "8", verifier="math") for text in HOSTILE if len(text) < 10_000]
    here = [(one, judge_text(one)) for one in samples]
    decided = [(one, outcome) for one, outcome in here if outcome is not None]
    replies = pool.call(VERIFY, [one for one, _ in decided])
    assert [reply.value["score"] for reply in replies] == [outcome.score for _, outcome in decided]


def test_a_kill_in_the_middle_leaves_one_answer_unjudged(pool: WorkerPool) -> None:
    slow = sample("(" * 20 + "x+y+z+1" + ")^{999}" * 20, r"\int_0^1 x dx")
    (future,) = pool.submit(VERIFY, [slow])
    time.sleep(0.1)
    for pid in pool.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert future.result(timeout=20)[0].status is ReplyStatus.CRASH
    assert in_worker(pool, sample(*ALGEBRA)) == (1.0, False)


def test_threads_and_asyncio_give_the_same_verdicts() -> None:
    samples = [sample(*ALGEBRA, verifier="math"), sample(r"\boxed{x^2}", "(x-1)(x+1)", verifier="math")]
    samples += [sample(text, "8", verifier="math") for text in HOSTILE[::20]]
    judge = Judge(RewardsConfig(sandbox=SANDBOX, cache_size=0), BUILT_IN_VERIFIERS)
    try:
        here = asyncio.run(judge.judge(samples))
        found: list[list[Outcome]] = []
        threads = [threading.Thread(target=lambda: found.append(asyncio.run(judge.judge(samples)))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert found == [here] * 3
        assert [outcome.score for outcome in here[:2]] == [1.0, 0.0]
    finally:
        judge.close()


@pytest.mark.parametrize("count", [2_000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_nothing_grows_over_many_requests(count: int) -> None:
    judge = Judge(RewardsConfig(sandbox=SANDBOX, cache_size=256), BUILT_IN_VERIFIERS)

    def requests(start: int, stop: int) -> None:
        for at in range(start, stop, 100):
            numbers = [sample(rf"\boxed{{{n}}}", str(n % 7), verifier="math") for n in range(at, at + 90)]
            algebra = [sample(rf"\boxed{{x^2-1+{n}x-{n}x}}", "(x-1)(x+1)", verifier="math") for n in range(at, at + 10)]
            outcomes = asyncio.run(judge.judge([*numbers, *algebra]))
            assert all(outcome.status is Status.JUDGED for outcome in outcomes)
            assert {outcome.score for outcome in outcomes[90:]} == {1.0}

    try:
        requests(0, 600)  # caches fill
        before = _usage(judge)
        requests(600, 600 + count)
        after = _usage(judge)
    finally:
        judge.close()
    assert after["descriptors"] <= before["descriptors"] and after["processes"] == before["processes"]
    assert after["mib"] - before["mib"] < 24 and after["worker_mib"] - before["worker_mib"] < 48
    assert judge.worker_pids() == []


def _usage(judge: Judge) -> dict[str, float]:
    me = psutil.Process()
    mib = 0.0
    for pid in judge.worker_pids():
        with contextlib.suppress(psutil.NoSuchProcess):
            mib += psutil.Process(pid).memory_info().rss / 2**20
    return {
        "descriptors": me.num_fds(),
        "processes": len(me.children(recursive=True)),
        "mib": me.memory_info().rss / 2**20,
        "worker_mib": mib,
    }
