"""The console that commands print to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 120  # characters of a line where there is no terminal


def console() -> Console:
    """The terminal, or a stream that is wide enough for the tables. It keeps the stdout of now: a session gives what
    libraries print later to a log file."""
    from rich.console import Console

    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
