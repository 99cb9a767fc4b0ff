"""Whatever a verifier does, the pool answers in time, the next request is served, and no process is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from rewards.sandbox import PoolClosedError, ReplyStatus, SandboxLoadError, WorkerPool
from tests.fakes.rewards import sample

ACT = "tests.fakes.rewards:act"
LIMIT_S = 0.5


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(num_workers=1, max_seconds=LIMIT_S, max_memory_mib=512)
    pool.load(ACT)
    yield pool
    pool.close()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_until_gone(pids: list[int], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still alive: {[pid for pid in pids if is_alive(pid)]}"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("misdeed", "status"),
    [
        ("hang", ReplyStatus.TIMEOUT),
        ("spin", ReplyStatus.TIMEOUT),
        ("exit", ReplyStatus.CRASH),
        ("raise", ReplyStatus.RAISED),
        ("quit", ReplyStatus.RAISED),
        ("memory", ReplyStatus.MEMORY),
        ("huge", ReplyStatus.RAISED),
        ("object", ReplyStatus.RAISED),
        ("print", ReplyStatus.OK),
    ],
)
def test_every_misdeed_has_its_status_and_the_neighbors_are_served(
    pool: WorkerPool, misdeed: str, status: ReplyStatus
) -> None:
    started = time.monotonic()
    replies = pool.call(ACT, [sample("7"), sample(misdeed), sample("8")])
    assert [reply.status for reply in replies] == [ReplyStatus.OK, status, ReplyStatus.OK]
    assert (replies[0].value["score"], replies[2].value["score"]) == (1.0, 0.0)
    assert time.monotonic() - started < LIMIT_S + 10  # the limit, and a new worker on a busy machine


def test_a_kill_from_outside_costs_one_reply(pool: WorkerPool) -> None:
    (future,) = pool.submit(ACT, [sample("hang")])
    pool_pid = next(iter(pool.worker_pids()))
    os.kill(pool_pid, signal.SIGKILL)
    assert future.result(timeout=20)[0].status is ReplyStatus.CRASH
    assert pool.call(ACT, [sample("7")])[0].value["score"] == 1.0


def test_garbage_on_the_wire_is_a_crash(pool: WorkerPool) -> None:
    (reply,) = pool.call("tests.fakes.rewards:forge", [0])
    assert reply.status is ReplyStatus.CRASH
    assert "reply" in reply.detail
    assert pool.call(ACT, [sample("7")])[0].status is ReplyStatus.OK


def test_what_a_worker_started_dies_with_it(pool: WorkerPool) -> None:
    (reply,) = pool.call("tests.fakes.rewards:spawn_child", [60])
    assert is_alive(reply.value)
    pool.call(ACT, [sample("exit")])
    wait_until_gone([reply.value])


def test_requests_that_waited_too_long_are_given_up() -> None:
    pool = WorkerPool(num_workers=1, max_seconds=5, max_memory_mib=512)
    try:
        pool.load(ACT)
        started = time.monotonic()
        replies = pool.call(ACT, [sample("7"), *[sample("hang")] * 20], within_s=0.4)
        assert time.monotonic() - started < 4
        assert replies[0].status is ReplyStatus.OK
        assert {reply.status for reply in replies[1:]} == {ReplyStatus.TIMEOUT}
        assert pool.stats().killed == 1
    finally:
        pool.close()


def test_called_from_threads_and_from_asyncio(pool: WorkerPool) -> None:
    results: list[float] = []

    def ask() -> None:
        results.append(pool.call(ACT, [sample("7")])[0].value["score"])

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)

    async def ask_all() -> list[float]:
        replies = await asyncio.gather(*(pool.acall(ACT, [sample("7"), sample("1")]) for _ in range(8)))
        return [reply.value["score"] for pair in replies for reply in pair]

    assert results == [1.0] * 8
    assert asyncio.run(ask_all()) == [1.0, 0.0] * 8


def test_a_function_that_cannot_be_imported_is_named(pool: WorkerPool) -> None:
    with pytest.raises(SandboxLoadError, match=r"'no_such_module:verify'.*No module named"):
        pool.load("no_such_module:verify")
    with pytest.raises(SandboxLoadError, match="nothing_here"):
        pool.load("tests.fakes.rewards:nothing_here")


def test_a_single_file_can_be_loaded(pool: WorkerPool, tmp_path: object) -> None:
    path = f"{tmp_path}/mine.py"
    with open(path, "w") as file:
        file.write(
            "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\ndef double(x):\n    return A(2 * x)\n"
        )
    assert pool.call(f"{path}:double", [4])[0].value == {"x": 8}


def test_no_descriptor_and_no_process_is_leaked() -> None:
    me = psutil.Process()
    pool = WorkerPool(num_workers=2, max_seconds=LIMIT_S, max_memory_mib=512)
    before = me.num_fds()
    for _ in range(5):
        pool.call(ACT, [sample("exit"), sample("7"), sample("exit")])
    pids = pool.worker_pids()
    assert len(pids) <= 2
    pool.close()
    wait_until_gone(pids)
    assert me.num_fds() <= before
    assert pool.stats().started == pool.stats().killed
    with pytest.raises(PoolClosedError):
        pool.call(ACT, [sample("7")])


def test_closing_ends_a_request_that_hangs() -> None:
    pool = WorkerPool(num_workers=1, max_seconds=60, max_memory_mib=512)
    pool.load(ACT)
    (future,) = pool.submit(ACT, [sample("hang")])
    started = time.monotonic()
    pool.close()
    assert future.result(timeout=1)[0].status is ReplyStatus.CRASH
    assert time.monotonic() - started < 5


def test_workers_die_with_a_killed_owner() -> None:
    """Also one that spins in C code and never looks at its socket."""
    script = (
        "from rewards.sandbox import WorkerPool; import sys, time\n"
        "pool = WorkerPool(num_workers=1, max_seconds=600, max_memory_mib=512)\n"
        "pool.load('math:factorial'); pool.submit('math:factorial', [10**8])\n"
        "time.sleep(0.2); print(*pool.worker_pids(), flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        assert pids and all(is_alive(pid) for pid in pids)
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    wait_until_gone(pids)


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 worker"):
        WorkerPool(num_workers=0, max_seconds=1, max_memory_mib=512)
