"""A last line even for a driver that has no chance to print one: killed, out of memory, or ended by Ray on the spot.

When Ray on the driver's machine dies, its library ends the driver without running another line of Python; so does kill
-9. A small process of its own holds the other end of a pipe. Where the pipe closes without a goodbye, it speaks, and
ends what Ray leaves behind: two of its daemons would look for their dead head for minutes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil

GOODBYE = b"bye"
END_S = 5.0
START_TIME = 19  # field of /proc/PID/stat behind the name: with it a process id means one process for ever
# Standard library alone, without site packages: it takes 20 ms and a few MiB.
PROGRAM = f"""
import os, sys

*lines, last = sys.stdin.buffer.read().split(b"\\n")
if last != {GOODBYE!r}:
    for line in lines:
        pid, began = line.split()
        try:
            with open("/proc/%d/stat" % int(pid), "rb") as stat:
                if stat.read().rpartition(b")")[2].split()[{START_TIME}] == began:
                    os.kill(int(pid), 9)
        except OSError:
            pass  # it is gone
    sys.stderr.write(sys.argv[1] + "\\n")
"""


class Companion:
    """The small process, from this side."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe

    def look_after(self) -> None:
        """What this process has started by now ends with it, however it ends."""
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):  # it is gone
                stat = Path(f"/proc/{child.pid}/stat").read_bytes()
                began = stat.rpartition(b")")[2].split()[START_TIME].decode()
                if child.cmdline()[1:4] != ["-I", "-S", "-c"]:
                    self._pipe.write(f"{child.pid} {began}\n".encode())
        self._pipe.flush()


@contextlib.contextmanager
def kept(root: Path) -> Iterator[Companion]:
    """While the block runs, a sudden end of this process is told, with how to go on."""
    text = (
        f"error: the driver (process {os.getpid()}) ended without a word: it was killed, or Ray on its machine died "
        f"under it; see {root / 'logs'} -- finished work is kept; go on with: ponder train --resume {root}"
    )
    # In a session of its own, so that Ctrl-C is not for it.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        assert child.stdin is not None
        try:
            yield Companion(child.stdin)
        finally:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(GOODBYE)
                child.stdin.close()
            child.wait(timeout=END_S)
