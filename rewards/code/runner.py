"""`Jail`: runs a program against inputs, one after the other, in processes that can reach nothing and outlive nothing.

Two degrees. With namespaces, the program sees a root that holds the interpreter and the system's libraries, read-only,
an empty /tmp in memory, no network, and no process but its own. With limits alone, for kernels that refuse namespaces,
it sees the files that its user sees; sockets, signals and tracing are refused in both. In both, every process has
limits, and what all of them hold is watched from here.

The program is hostile. From the moment it runs, whatever happens to the jail is its doing, and is reported as such.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rewards.code.jail import FIRST_UID, descendants

_ROOT = str(Path(__file__).parents[2])
_START_SECONDS = 20.0
_TICK_SECONDS = 0.05
_MAX_ERROR_BYTES = 65_536
_MAX_PACKET = 65_536
_LAST_UID = (1 << 31) - 1


class JailError(RuntimeError):
    """The jail itself could not be built: nothing was learned about the program."""


class Isolation(enum.StrEnum):
    """What keeps a program in, besides the limits of its processes."""

    NAMESPACES = "namespaces"
    LIMITS = "limits"


class End(enum.StrEnum):
    """How a run ended. Only after EXITED can the jail run more."""

    EXITED = "exited"
    TIME = "time"
    MEMORY = "memory"
    OUTPUT = "output"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Limits of one run. Memory holds for each process and for the sum of all; the output for stdout and the result."""

    max_seconds: float = 6.0
    max_memory_mib: int = 512
    max_processes: int = 16
    max_disk_mib: int = 64
    max_output_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run gave. `code` is the exit status, negative for a signal; the bytes are hostile."""

    end: End
    code: int | None
    stdout: bytes
    stderr: bytes
    result: bytes


class Jail:
    """One program in one jail. A context manager; leaving it ends every process and removes every file."""

    def __init__(
        self,
        program: str,
        bounds: Bounds,
        *,
        isolation: Isolation = Isolation.NAMESPACES,
        python: str = "",
        packages: tuple[str, ...] = (),
        is_privileged: bool | None = None,
    ) -> None:
        """Raises JailError when the kernel refuses. `packages` are directories that the program may import from.

        `is_privileged` says whether to use root's rights to build the jail; None does so where they are held.
        """
        self._bounds = bounds
        self._isolation = isolation
        self._init = 0
        self._directory: str | None = None
        privileged = os.geteuid() == 0 if is_privileged is None else is_privileged
        uid = _foreign_uid() if privileged else os.geteuid()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            order = {
                "parent": os.getpid(),
                "namespaces": isolation is Isolation.NAMESPACES,
                "is_privileged": privileged,
                "uid": uid,
                "packages": [os.path.realpath(path) for path in packages],
                "directory": self._make_directory(uid) if isolation is Isolation.LIMITS else None,
                "max_seconds": bounds.max_seconds,
                "max_memory_mib": bounds.max_memory_mib,
                "max_processes": bounds.max_processes,
                "max_disk_mib": bounds.max_disk_mib,
            }
            command = [python or sys.executable, "-P", "-S", "-X", "utf8", "-m", "rewards.code.jail"]
            self._launcher = subprocess.Popen(
                [*command, str(theirs.fileno()), json.dumps(order)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={"PYTHONPATH": _ROOT, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"},
                pass_fds=(theirs.fileno(),),
                cwd="/",
            )
        try:
            self._hand_over(program)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, stdin: bytes, *, function: str | None = None, max_seconds: float | None = None) -> Run:
        """Run the program once, for at most the limit and a tick. Any end but EXITED closes the jail.

        With `function`, `stdin` is the JSON list of its arguments, and `Run.result` the JSON of what it returned.
        """
        given = _memory_file(stdin)
        pipes = [os.pipe() for _ in range(3)]
        try:
            ends = [given, *(write for _, write in pipes)]
            socket.send_fds(self._control, [json.dumps({"function": function}).encode()], ends)
        except OSError:
            for read, _ in pipes:
                os.close(read)
            return Run(end=End.GONE, code=None, stdout=b"", stderr=b"", result=b"")
        finally:
            os.close(given)
            for _, write in pipes:
                os.close(write)
        seconds = min(self._bounds.max_seconds, max_seconds if max_seconds is not None else self._bounds.max_seconds)
        try:
            run = self._collect([read for read, _ in pipes], time.monotonic() + seconds)
        finally:
            for read, _ in pipes:
                os.close(read)
        if run.end is not End.EXITED:
            self.close()
        return run

    def close(self) -> None:
        """End every process of the jail and reap the launcher. Safe to call twice."""
        self._control.close()
        if self._init and self._isolation is Isolation.LIMITS:
            self._end_descendants()
        if self._init and self._launcher.poll() is None:
            # As the launcher has not ended, init is not reaped yet, and its number can belong to nobody else. The
            # kernel ends the whole process namespace with it.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, signal.SIGKILL)
        elif not self._init:
            self._launcher.kill()
        self._launcher.wait()
        if self._directory is not None:
            shutil.rmtree(self._directory, onerror=_make_removable)
            self._directory = None

    # ---------------------------------------------------------------------------------------------------- parts

    def _make_directory(self, uid: int) -> str:
        self._directory = tempfile.mkdtemp(prefix="ponder-program-")
        os.chown(self._directory, uid, -1)
        return self._directory

    def _hand_over(self, program: str) -> None:
        """Send the program and wait until init has it. Nothing of it has run by then."""
        deadline = time.monotonic() + _START_SECONDS
        source = _memory_file(program.encode(errors="replace"))
        try:
            socket.send_fds(self._control, [b"{}"], [source])
        except OSError as error:
            raise JailError(f"the jail did not start: {error}") from error
        finally:
            os.close(source)
        is_ready = False
        while not (is_ready and self._init):
            self._control.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                message = _decoded(self._control.recv(_MAX_PACKET))
            except TimeoutError as error:
                raise JailError(f"the jail did not start within {_START_SECONDS:g} s") from error
            except OSError as error:
                raise JailError(f"the jail did not start: {error}") from error
            if not message or "error" in message:
                raise JailError(f"the jail could not be built: {message.get('error', 'it ended without a word')}")
            self._init = message.get("init", self._init)
            is_ready = is_ready or "ready" in message
        self._control.setblocking(False)

    def _collect(self, reads: list[int], deadline: float) -> Run:
        """Read until the program and all it started are gone, or a limit is hit."""
        caps = (self._bounds.max_output_bytes, _MAX_ERROR_BYTES, self._bounds.max_output_bytes)
        texts = [bytearray() for _ in reads]
        poller = select.poll()
        for descriptor in (self._control.fileno(), *reads):
            poller.register(descriptor, select.POLLIN)
        open_reads, code, watched = set(reads), None, time.monotonic()
        end = End.EXITED
        while (code is None or open_reads) and end is End.EXITED:
            now = time.monotonic()
            if now >= deadline:
                end = End.TIME
            elif now - watched >= _TICK_SECONDS:
                watched = now
                end = End.MEMORY if self._used_mib() > self._bounds.max_memory_mib else end
            for descriptor, _ in poller.poll(max(0.0, min(_TICK_SECONDS, deadline - now)) * 1000):
                if descriptor == self._control.fileno():
                    code = self._exit_code()
                    poller.unregister(descriptor)
                    end = End.GONE if code is None else end
                    continue
                which = reads.index(descriptor)
                part = os.read(descriptor, 65_536)
                if not part:
                    open_reads.discard(descriptor)
                    poller.unregister(descriptor)
                room = caps[which] - len(texts[which])
                texts[which] += part[:room] if which != 1 else part[: max(0, room)]
                end = End.OUTPUT if which != 1 and len(part) > room else end
        stdout, stderr, result = map(bytes, texts)
        return Run(end=end, code=code, stdout=stdout, stderr=stderr, result=result)

    def _exit_code(self) -> int | None:
        """What init reports; None when it has nothing to say any more."""
        try:
            code = _decoded(self._control.recv(_MAX_PACKET)).get("code")
        except OSError:
            return None
        return code if isinstance(code, int) else None

    def _used_mib(self) -> float:
        """Memory that the processes of the jail hold together, init and files apart."""
        total = 0
        for pid in descendants(self._init):
            with contextlib.suppress(OSError, ValueError), open(f"/proc/{pid}/status") as status:
                held = [line.split()[1] for line in status if line.startswith(("RssAnon:", "RssShmem:"))]
                total += sum(map(int, held))
        return total / 1024

    def _end_descendants(self) -> None:
        """Without a process namespace: stop, then kill, until none is left. New ones cannot come from stopped ones."""
        while self._launcher.poll() is None and (alive := [p for p in descendants(self._init) if _is_running(p)]):
            for number in (signal.SIGSTOP, signal.SIGKILL):
                for pid in alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)


def probe(*, python: str = "") -> tuple[Isolation | None, str]:
    """The strongest isolation that works here, tried out with a real program, and why no stronger one does."""
    refused = []
    for isolation in Isolation:
        try:
            with Jail("print(6 * 7)", Bounds(), isolation=isolation, python=python) as jail:
                run = jail.run(b"")
        except (JailError, OSError) as error:
            refused.append(f"{isolation}: {error}")
            continue
        if run.stdout == b"42\n":
            return isolation, "; ".join(refused)
        refused.append(f"{isolation}: the program ended with {run.end} {run.code}")
    return None, "; ".join(refused)


def _foreign_uid() -> int:
    """A user that owns nothing, another one for each jail: the kernel counts the processes of a user together."""
    last = FIRST_UID
    with open("/proc/self/uid_map") as ranges:
        for line in ranges:
            first, _, count = map(int, line.split())
            last = max(last, min(first + count - 1, _LAST_UID))
    return FIRST_UID + secrets.randbelow(last - FIRST_UID + 1)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("given")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _decoded(packet: bytes) -> dict[str, Any]:
    """A packet's object; {} for the end of the socket and for what is none."""
    try:
        message = json.loads(packet)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _is_running(pid: int) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _make_removable(function: Any, path: str, _: Any) -> None:
    """A program may have taken its own rights to a directory away."""
    os.chmod(os.path.dirname(path), 0o700)
    os.chmod(path, 0o700)
    function(path) if function is not os.scandir and function is not os.open else shutil.rmtree(path)
