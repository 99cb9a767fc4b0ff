"""The process that runs verifiers. Started by `rewards.sandbox`, never imported by it.

Protocol, over one socket whose number is the first argument. The pool sends frames of pickled tuples (it is trusted);
the worker answers in frames of JSON, which the pool treats as hostile data. A frame is a 4-byte big-endian length and
a body.

    ("load", request, target)                          ->  one reply
    ("call", request, target, payloads, max_seconds)   ->  one reply per payload, in order

A reply is {"request": int, "index": int, "status": "ok" | "raised" | "memory", "value": any JSON, "detail": str}.
"""

from __future__ import annotations

import ctypes
import dataclasses
import importlib
import importlib.util
import json
import math
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

HEADER = struct.Struct(">I")
MAX_REPLY_BYTES = 1 << 20
_MAX_DETAIL_CHARS = 500
_MAX_FILE_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1

Target = Callable[[Any], Any]
MAKER_MARK = "!"


def load_target(target: str) -> Target:
    """Import 'package.module:attribute' or 'path/to/file.py:attribute'. Raises whatever the import raises.

    'package.module:maker!text' is what the maker makes of the text: a function bound to its settings.
    """
    maker, mark, text = target.partition(MAKER_MARK)
    if mark and maker.partition(":")[2].isidentifier():
        return load_target(maker)(text)  # type: ignore[no-any-return]
    where, _, attribute = target.rpartition(":")
    if where.endswith(".py"):
        spec = importlib.util.spec_from_file_location("ponder_plugin_" + os.path.basename(where)[:-3], where)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot load the file {where!r}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look up their own module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    found = getattr(module, attribute)
    if not callable(found):
        raise TypeError(f"{target!r} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def _die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the pool's thread ends; leave at once if it ended before we could ask."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


def _limit(max_memory_mib: int) -> None:
    size = max_memory_mib << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_MAX_FILE_BYTES, _MAX_FILE_BYTES))


def _limit_cpu(max_seconds: float) -> None:
    """Processor seconds for one sample: ends a worker that spins in C code even when nobody is left to kill it."""
    allowed = math.ceil(time.process_time() + max_seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.RLIM_INFINITY))


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    raise TypeError(f"a result must be JSON-serializable or a dataclass of such, got {type(value).__name__}")


class _Channel:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._connection.recv(min(size, 1 << 20))
            if not part:  # the pool closed its end
                os._exit(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def receive(self) -> tuple[Any, ...]:
        (size,) = HEADER.unpack(self._read(HEADER.size))
        message: tuple[Any, ...] = pickle.loads(self._read(size))
        return message

    def reply(self, request: int, index: int, status: str, value: Any = None, detail: str = "") -> None:
        body = {"request": request, "index": index, "status": status, "value": value}
        body["detail"] = detail[:_MAX_DETAIL_CHARS]
        encoded = json.dumps(body, default=_as_json).encode()
        if len(encoded) > MAX_REPLY_BYTES:
            raise ValueError(f"a result may take {MAX_REPLY_BYTES} bytes as JSON, got {len(encoded)}")
        self._connection.sendall(HEADER.pack(len(encoded)) + encoded)


def _attempt(channel: _Channel, request: int, index: int, action: Callable[[], Any]) -> None:
    """Run one action and reply with its result or with what it raised."""
    try:
        channel.reply(request, index, "ok", action())
    except MemoryError:
        channel.reply(request, index, "memory", detail="out of memory")
    # The boundary around foreign code: SystemExit and timeout exceptions derived from BaseException are results here.
    except BaseException as error:  # noqa: BLE001
        channel.reply(request, index, "raised", detail=f"{type(error).__name__}: {error}")


def _serve(channel: _Channel) -> None:
    targets: dict[str, Target] = {}

    def load(target: str) -> None:
        if target not in targets:
            targets[target] = load_target(target)

    while True:
        kind, request, target, *rest = channel.receive()
        if kind == "load":
            _attempt(channel, request, 0, lambda target=target: load(target))  # type: ignore[misc]
            continue
        payloads, max_seconds = rest
        for index, payload in enumerate(payloads):
            _limit_cpu(max_seconds)
            run = targets[target]
            _attempt(channel, request, index, lambda run=run, payload=payload: run(pickle.loads(payload)))  # type: ignore[misc]


def main() -> None:
    """Entry point: `python -P -m rewards.worker <socket fd> <parent pid> <MiB>`."""
    descriptor, parent, max_memory_mib = (int(argument) for argument in sys.argv[1:4])
    _die_with_parent(parent)
    _limit(max_memory_mib)
    channel = _Channel(socket.socket(fileno=descriptor))
    channel.reply(0, 0, "ok", os.getpid())
    # Nothing a verifier prints may reach the terminal or fill a pipe. stderr was open until now to explain a failed
    # start.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    _serve(channel)


if __name__ == "__main__":
    main()
