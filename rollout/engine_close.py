"""Where an engine that closes the thinking by itself has put the mark in: found by place, for it does not say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rollout.reading import Reading


def end_of_cap(reading: Reading, sampled: Sequence[bool], cap: int) -> int | None:
    """The place after token number `cap` of the thinking, where the mark is put in; None: it was not reached."""
    if reading.opened is None:
        return None
    end = len(sampled) if reading.closed is None else reading.closed.first
    drawn = [place for place in range(reading.opened.after, end) if sampled[place]]
    return drawn[cap - 1] + 1 if len(drawn) >= cap else None


def end_of_second_opening(reading: Reading, opening: str) -> int | None:
    """The place after an opening mark in the answer, from which the engine would count once more; None without one."""
    if reading.closed is None:
        return None
    at = reading.text.find(opening, reading.closed.chars[1])
    if at < 0:
        return None
    return int(np.searchsorted(reading.char_ends, at + len(opening), side="left")) + 1
