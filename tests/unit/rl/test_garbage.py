"""The collector is left as it was found, and still collects in between."""

from __future__ import annotations

import gc
import weakref

import pytest

from rl.garbage import ALLOCATIONS, seldom_collected


class Knot:
    def __init__(self) -> None:
        self.me = self


def test_collections_are_rarer_inside_and_as_before_outside() -> None:
    before = gc.get_threshold()
    with pytest.raises(RuntimeError, match="inside"), seldom_collected():
        assert gc.get_threshold() == (ALLOCATIONS, *before[1:]) and gc.get_freeze_count() > 0
        raise RuntimeError("inside")
    assert gc.get_threshold() == before and gc.get_freeze_count() == 0


def test_knots_that_are_tied_inside_are_found_there() -> None:
    with seldom_collected():
        knot = weakref.ref(Knot())
        kept = [[] for _ in range(2 * ALLOCATIONS)]
        assert knot() is None and len(kept) == 2 * ALLOCATIONS
