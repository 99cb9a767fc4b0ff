"""A disk without room: what is said, and that the first error stays the first."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from launch.disk import beside, full_disk

RUN = Path("runs/night")


def no_room() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_recognized_behind_other_errors() -> None:
    behind = RuntimeError("run failed")
    behind.__cause__ = ExceptionGroup("loops", [ValueError("other"), no_room()])
    expected = "the disk that holds runs/night has no room left; make some there first"
    assert full_disk(behind, RUN) == full_disk(no_room(), RUN) == expected
    assert full_disk(OSError(errno.EACCES, "denied"), RUN) is None


def test_a_chain_that_returns_to_itself_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one
    assert full_disk(one, RUN) is None


def test_what_cannot_be_written_becomes_a_note_of_the_error_under_way() -> None:
    first = ValueError("first")
    with beside(first):
        raise no_room()
    assert first.__notes__ == ["could not be written either: [Errno 28] No space left on device"]
    with pytest.raises(KeyError), beside(first):
        raise KeyError("a fault of our own is not hidden")
