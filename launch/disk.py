"""A disk without room: the error that was first stays the one that is shown, with the remedy beside it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def beside(error: BaseException) -> Iterator[None]:
    """For what is written while `error` is on its way up: that it cannot be written does not take the error's place."""
    try:
        yield
    except OSError as second:
        error.add_note(f"could not be written either: {second}")


def full_disk(error: BaseException, directory: Path) -> str | None:
    """What to do about a disk without room, if that is what is behind `error`; else None."""
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        cause = behind.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"the disk that holds {directory} has no room left; make some there first"
        inside = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        behind += [cause.__cause__, cause.__context__, *inside]
    return None
