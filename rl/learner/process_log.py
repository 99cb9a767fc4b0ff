"""Where a process of the learner writes what its libraries print."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def write_output_to(log_path: str) -> None:
    """Send standard output and error to a file. DeepSpeed, gloo and NCCL print from Python and from C, and only the
    file descriptors catch both."""
    Path(log_path).parent.mkdir(parents=True, exist_ok=True)
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
