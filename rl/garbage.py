"""The cyclic garbage collector looks seldom while the loop runs.

A step allocates many objects that all live until it is recorded and then go by their counts; in search of cycles
among them the collector took a tenth of the driver's time. What was there before the loop is not searched at all.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

ALLOCATIONS = 50_000
"""Objects that may be allocated between two looks at the youngest; some ten MB if all of them were garbage."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Inside, collections are rarer and leave out what exists now; outside, everything is as it was."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
