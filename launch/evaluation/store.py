"""Attempts on disk, append-only: what was finished before a kill is never done again.

`attempts.jsonl` holds one line per job: a key, which is a hash of everything that the attempts depend on, and the
attempts. A line is written whole and synced in batches; a line that a kill tore off is cut away at the next start. So
a rerun finds its jobs by key, and jobs of other settings stay in the file without being read as these.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from budgets.evaluation.attempt import Attempt
from rollout.schema import Finish

REPEATED = frozenset({Finish.ERROR, Finish.ABORTED})  # not the policy's doing, so a rerun tries again


class StoreError(ValueError):
    """A file that holds no attempts, or is being written by another process."""


class AttemptStore:
    """The file of one evaluation directory. Use it as a context manager: leaving it means that all is on disk."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "attempts.jsonl"
        self._lock_path = directory / ".lock"
        self._done: dict[str, tuple[Attempt, ...]] = {}
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._stack = contextlib.ExitStack()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> AttemptStore:
        with contextlib.ExitStack() as stack:
            lock = stack.enter_context(self._lock_path.open("a"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StoreError(
                    f"another process is evaluating into {self.path.parent}; wait for it or stop it"
                ) from error
            self._done = {key: attempts for key, attempts in read_jobs(self.path) if not _is_repeated(attempts)}
            handle = stack.enter_context(self.path.open("ab"))
            if (size := whole_size(self.path)) < handle.tell():
                handle.truncate(size)
            self._stack = stack.pop_all()
        self._thread = threading.Thread(target=self._write, args=(handle,), name="attempts", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        assert self._thread is not None
        self._thread.join()
        self._stack.close()
        if kind is None:
            self._raise_failure()

    def get(self, key: str) -> tuple[Attempt, ...] | None:
        """The attempts of a finished job."""
        return self._done.get(key)

    def add(self, key: str, attempts: Sequence[Attempt]) -> None:
        """Keep a finished job; it is on disk shortly after. Raises what an earlier write failed with."""
        self._raise_failure()
        self._done[key] = tuple(attempts)
        self._queue.put(json.dumps({"key": key, "attempts": [a.as_json() for a in attempts]}))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write(self, handle: BinaryIO) -> None:
        """Runs in the thread: whatever waits is written and synced together, so a slow disk makes larger batches."""
        is_open = True
        while is_open:
            lines = [self._queue.get()]
            while not self._queue.empty():
                lines.append(self._queue.get())
            is_open = None not in lines
            try:
                handle.write("".join(f"{line}\n" for line in lines if line is not None).encode())
                handle.flush()
                os.fsync(handle.fileno())
            except OSError as error:
                self._failure = error
                return


def read_jobs(path: Path) -> Iterator[tuple[str, tuple[Attempt, ...]]]:
    """Keys and attempts of all whole lines; a torn last line is passed over. Raises StoreError for any other bad
    line."""
    if not path.is_file():
        return
    size = whole_size(path)
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if lines.tell() > size:
                return
            try:
                value = json.loads(line)
                yield str(value["key"]), tuple(Attempt.from_json(a) for a in value["attempts"])
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    f"{path}, line {number}, holds no attempts ({type(error).__name__}: {error}); remove the line"
                ) from error


def whole_size(path: Path) -> int:
    """Bytes up to and with the last line end."""
    with path.open("rb") as handle:
        size = handle.seek(0, os.SEEK_END)
        while size:
            start = max(0, size - 65_536)
            handle.seek(start)
            at = handle.read(size - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            size = start
    return 0


def digest(value: Mapping[str, Any]) -> str:
    """Hash of a JSON value, 24 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=12).hexdigest()


def _is_repeated(attempts: Sequence[Attempt]) -> bool:
    return any(attempt.finish in REPEATED for attempt in attempts)
