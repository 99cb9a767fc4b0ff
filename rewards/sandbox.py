"""Killable worker processes for code that may hang, explode or lie: `WorkerPool`.

Each worker is a spawned (never forked) process with its own address-space limit. One thread of the pool owns one
worker: it starts it, hands it requests, waits for each reply no longer than the limit, and kills and replaces it when
it is late, dies, or answers anything but the expected frame. Callers only see futures, so the pool works alike from a
thread, from asyncio and from a Ray actor, and no signal handler is used.

No worker outlives its owner: closing kills; a worker dies with the thread that started it (PR_SET_PDEATHSIG), hence
with the process, even one ended by kill -9. What a worker starts itself is killed with its process group. This
contains faulty and hostile *text*; it is not a jail for hostile *programs*, which could leave the group or use the
network.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import math
import os
import pickle
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rewards.worker import HEADER, MAX_REPLY_BYTES

_MAX_CHUNK = 32  # samples in one request: amortizes the round trip, bounds what waits behind a slow sample
_MAX_DETAIL_CHARS = 500
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")


class ReplyStatus(enum.StrEnum):
    """How one call ended. RAISED and MEMORY were reported by the worker; TIMEOUT and CRASH ended it."""

    OK = "ok"
    RAISED = "raised"
    MEMORY = "memory"
    TIMEOUT = "timeout"
    CRASH = "crash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Result of one call. `value` is plain JSON data from an untrusted process, None unless the status is OK."""

    status: ReplyStatus
    value: Any = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """Counts since the pool was made."""

    calls: int
    started: int
    killed: int
    timeouts: int
    crashes: int


class SandboxLoadError(ValueError):
    """A function could not be imported inside a worker."""


class PoolClosedError(RuntimeError):
    """The pool was used after `close`."""


class _LateError(Exception):
    """The worker did not answer in time."""


class _BrokenWorkerError(Exception):
    """The worker died or did not follow the protocol."""


class _Process:
    """One worker process and the pool's end of its socket. Used by one thread only, except for `kill`."""

    def __init__(self, max_memory_mib: int) -> None:
        ours, theirs = socket.socketpair()
        arguments = [str(theirs.fileno()), str(os.getpid()), str(max_memory_mib)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rewards.worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        ours.setblocking(False)
        self._socket = ours
        self._lock = threading.Lock()
        self._ended = False
        self.loaded: set[str] = set()
        self.pid = self._process.pid

    def wait_ready(self, max_seconds: float) -> None:
        """Return when the worker serves. Raises with its last words on stderr when it does not come up."""
        stderr = self._process.stderr
        assert stderr is not None
        with stderr:
            try:
                self.receive(0, 0, time.monotonic() + max_seconds)
            except (_LateError, _BrokenWorkerError) as error:
                self.kill()
                words = stderr.read(65_536).decode(errors="replace").strip()[-500:] or "it said nothing"
                raise _BrokenWorkerError(f"a worker did not start: {words}") from error

    def send(self, message: tuple[Any, ...], deadline: float) -> None:
        body = pickle.dumps(message)
        data = memoryview(HEADER.pack(len(body)) + body)
        while data:
            self._wait(select.POLLOUT, deadline)
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise _BrokenWorkerError("the worker died") from error

    def receive(self, request: int, index: int, deadline: float) -> Reply:
        """The reply with these numbers. Raises when it is late, malformed, too large, or another one."""
        (size,) = HEADER.unpack(self._read(HEADER.size, deadline))
        if size > MAX_REPLY_BYTES:
            raise _BrokenWorkerError(f"a reply of {size} bytes, more than {MAX_REPLY_BYTES}")
        body = self._read(size, deadline)
        try:
            reply = json.loads(body)
            if (reply["request"], reply["index"]) != (request, index):
                raise ValueError("unexpected reply")
            detail = str(reply["detail"])[:_MAX_DETAIL_CHARS].encode(errors="replace").decode()
            return Reply(status=ReplyStatus(reply["status"]), value=reply["value"], detail=detail)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _BrokenWorkerError(f"a malformed reply ({type(error).__name__})") from error

    def _read(self, size: int, deadline: float) -> bytes:
        parts = []
        while size:
            self._wait(select.POLLIN, deadline)
            try:
                part = self._socket.recv(min(size, 65_536))
            except BlockingIOError:
                continue
            except OSError as error:
                raise _BrokenWorkerError("the worker died") from error
            if not part:
                raise _BrokenWorkerError("the worker died")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _wait(self, event: int, deadline: float) -> None:
        poller = select.poll()
        poller.register(self._socket, event)
        if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise _LateError

    def kill(self) -> None:
        """End the worker and everything in its process group, and reap it. Callable from any thread, more than once."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
            # Before reaping: until then the number cannot belong to anyone else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def discard(self) -> None:
        """Kill and give the socket back. Only for the owning thread."""
        self.kill()
        self._socket.close()


def _environment() -> dict[str, str]:
    """A small environment: no credentials for a verifier to read, one thread for numeric libraries."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    paths = [os.path.abspath(path) for path in sys.path]
    return kept | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(slots=True, eq=False)
class _Request:
    target: str
    payloads: list[bytes]
    answer: Future[list[Reply]]
    expires: float  # monotonic seconds
    max_seconds: float
    load_only: bool = False


class WorkerPool:
    """`num_workers` killable processes running functions named by 'module:attribute'.

    A function takes one picklable payload and returns JSON data or a dataclass of such. It is imported once per worker.
    Every payload has `max_seconds` of wall time and `max_memory_mib` of address space. A payload that breaks its worker
    costs only its own reply: the ones behind it run on a fresh worker. Workers start when first needed.
    """

    def __init__(
        self, *, num_workers: int, max_seconds: float, max_memory_mib: int, max_start_seconds: float = 120.0
    ) -> None:
        if num_workers < 1 or max_seconds <= 0 or max_memory_mib < 64:
            raise ValueError(
                f"a pool needs at least 1 worker, a positive time limit and 64 MiB, got {num_workers} workers, "
                f"{max_seconds} s, {max_memory_mib} MiB"
            )
        self._max_seconds = max_seconds
        self._max_memory_mib = max_memory_mib
        self._max_start_seconds = max_start_seconds
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._processes: set[_Process] = set()
        self._counts = {"calls": 0, "started": 0, "killed": 0, "timeouts": 0, "crashes": 0}
        self._threads = [
            threading.Thread(target=self._serve, name=f"sandbox-{index}", daemon=True) for index in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    # -------------------------------------------------------------------------------------------- for callers

    def submit(
        self, target: str, payloads: Sequence[Any], *, within_s: float = math.inf, max_seconds: float | None = None
    ) -> list[Future[list[Reply]]]:
        """Queue the payloads, spread over the workers. The futures' results, joined, are one reply per payload.

        What is not answered `within_s` seconds from now, waiting included, gets a TIMEOUT reply, so no backlog builds
        up. `max_seconds` for one payload is the pool's own unless given.
        """
        encoded = [pickle.dumps(payload) for payload in payloads]
        size = min(_MAX_CHUNK, -(-len(encoded) // len(self._threads)) or 1)
        expires = time.monotonic() + within_s
        seconds = self._max_seconds if max_seconds is None else max_seconds
        return [self._put(target, encoded[at : at + size], expires, seconds) for at in range(0, len(encoded), size)]

    def call(
        self, target: str, payloads: Sequence[Any], *, within_s: float = math.inf, max_seconds: float | None = None
    ) -> list[Reply]:
        """Replies in payload order. Blocks; for threads."""
        submitted = self.submit(target, payloads, within_s=within_s, max_seconds=max_seconds)
        return [reply for future in submitted for reply in future.result()]

    async def acall(
        self, target: str, payloads: Sequence[Any], *, within_s: float = math.inf, max_seconds: float | None = None
    ) -> list[Reply]:
        """Replies in payload order, for coroutines."""
        submitted = self.submit(target, payloads, within_s=within_s, max_seconds=max_seconds)
        futures = [asyncio.wrap_future(future) for future in submitted]
        return [reply for chunk in await asyncio.gather(*futures) for reply in chunk]

    def load(self, target: str) -> None:
        """Prove that `target` can be imported inside a worker. Raises SandboxLoadError with the reason."""
        (reply,) = self._put(target, [], math.inf, self._max_seconds, load_only=True).result()
        if reply.status is not ReplyStatus.OK:
            raise SandboxLoadError(f"{target!r} cannot be loaded in a worker: {reply.detail}")

    def stats(self) -> PoolStats:
        with self._lock:
            return PoolStats(**self._counts)

    def worker_pids(self) -> list[int]:
        """Process numbers of the workers alive now."""
        with self._lock:
            return [process.pid for process in self._processes]

    def close(self) -> None:
        """Kill all workers and end the threads. Requests still open get CRASH replies. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            processes = list(self._processes)
        for process in processes:
            process.kill()
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()

    def _put(
        self, target: str, payloads: list[bytes], expires: float, max_seconds: float, *, load_only: bool = False
    ) -> Future[list[Reply]]:
        request = _Request(target, payloads, Future(), expires, max_seconds, load_only)
        with self._lock:
            if self._closed:
                raise PoolClosedError("the worker pool is closed")
            self._requests.put(request)
        return request.answer

    # ------------------------------------------------------------------------------ the threads, one per worker

    def _serve(self) -> None:
        process: _Process | None = None
        while (request := self._requests.get()) is not None:
            # False: the caller gave up while the request was waiting.
            if request.answer.set_running_or_notify_cancel():
                replies, process = self._answer(request, process)
                request.answer.set_result(replies)
        if process is not None:
            self._drop(process)

    def _answer(self, request: _Request, process: _Process | None) -> tuple[list[Reply], _Process | None]:
        """One reply per payload (one in all for a load), whatever happens, and the worker that is left."""
        replies: list[Reply] = []
        expected = 1 if request.load_only else len(request.payloads)
        while len(replies) < expected:
            if time.monotonic() >= request.expires:
                late = Reply(status=ReplyStatus.TIMEOUT, detail="longer than the request could wait")
                return replies + [late] * (expected - len(replies)), process
            try:
                process = process or self._start()
                failed = self._load(process, request.target)
                if failed is not None or request.load_only:
                    replies += [failed or Reply(status=ReplyStatus.OK)] * (expected - len(replies))
                else:
                    self._exchange(process, request, replies)
            except _LateError:
                self._count("timeouts")
                replies.append(Reply(status=ReplyStatus.TIMEOUT, detail=f"over {request.max_seconds:g} s"))
            except (_BrokenWorkerError, OSError) as error:
                self._count("crashes")
                replies.append(Reply(status=ReplyStatus.CRASH, detail=str(error)))
            else:
                if replies[-1].status is not ReplyStatus.MEMORY:
                    continue
            # Late, broken, or short of memory: whatever is left of this worker is not used again.
            if process is not None:
                self._drop(process)
                process = None
        return replies, process

    def _exchange(self, process: _Process, request: _Request, replies: list[Reply]) -> None:
        """Append replies for the payloads not yet answered, up to one that asks for a fresh worker."""
        first = len(replies)
        number = self._count("calls", len(request.payloads) - first)
        deadline = time.monotonic() + request.max_seconds
        process.send(("call", number, request.target, request.payloads[first:], request.max_seconds), deadline)
        for index in range(len(request.payloads) - first):
            reply = process.receive(number, index, min(time.monotonic() + request.max_seconds, request.expires))
            replies.append(reply)
            if reply.status is ReplyStatus.MEMORY:
                return

    def _load(self, process: _Process, target: str) -> Reply | None:
        """None once the worker has the function; otherwise why it has not. Imports have their own, longer limit."""
        if target in process.loaded:
            return None
        deadline = time.monotonic() + self._max_start_seconds
        try:
            process.send(("load", 0, target), deadline)
            reply = process.receive(0, 0, deadline)
        except _LateError as error:
            raise _BrokenWorkerError(f"importing {target!r} took over {self._max_start_seconds:g} s") from error
        if reply.status is not ReplyStatus.OK:
            return reply
        process.loaded.add(target)
        return None

    def _start(self) -> _Process:
        with self._lock:  # starting and closing exclude each other, so `close` sees every process there is
            if self._closed:
                raise _BrokenWorkerError("the worker pool is closed")
            process = _Process(self._max_memory_mib)
            self._processes.add(process)
            self._counts["started"] += 1
        try:
            process.wait_ready(self._max_start_seconds)
        except _BrokenWorkerError:
            self._drop(process)
            raise
        return process

    def _drop(self, process: _Process) -> None:
        process.discard()
        with self._lock:
            self._processes.discard(process)
            self._counts["killed"] += 1

    def _count(self, name: str, amount: int = 1) -> int:
        with self._lock:
            self._counts[name] += amount
            return self._counts[name]
