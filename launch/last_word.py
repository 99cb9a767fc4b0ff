"""A last line even for a driver that has no chance to print one: killed, out of memory, or ended by Ray on the spot.

When Ray on the driver's machine dies, its library ends the driver without running another line of Python; so does kill
-9. A small process of its own holds the other end of a pipe. Where the pipe closes without a goodbye, it speaks.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

GOODBYE = b"bye"
END_S = 5.0
# Standard library alone, without site packages: it takes 20 ms and a few MiB.
PROGRAM = f"""
import sys
if sys.stdin.buffer.read() != {GOODBYE!r}:
    sys.stderr.write(sys.argv[1] + "\\n")
"""


@contextlib.contextmanager
def kept(root: Path) -> Iterator[None]:
    """While the block runs, a sudden end of this process is told, with how to go on."""
    text = (
        f"error: the driver (process {os.getpid()}) ended without a word: it was killed, or Ray on its machine died "
        f"under it; see {root / 'logs'} -- finished work is kept; go on with: ponder train --resume {root}"
    )
    # In a session of its own, so that Ctrl-C is not for it.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, text]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        try:
            yield
        finally:
            assert child.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write(GOODBYE)
                child.stdin.close()
            child.wait(timeout=END_S)
