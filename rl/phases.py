"""Where the time of a step goes: seconds in which at least one call of a phase was under way.

Many groups are generated and judged at once, so their durations must not be added up; the union of them is what a
clock on the wall would show. Phases of different names may overlap, and with max_lag > 0 they are meant to: their sum
may exceed the step.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from rl.trace import ROLES, Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """What happened since the lap before. A phase that did not run is absent from `busy_s`."""

    seconds: float
    busy_s: Mapping[str, float]
    num_sampled_tokens: int


class PhaseClock:
    """Busy time per phase, and the tokens that were sampled in it."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.trace: Trace | None = None  # told of every phase
        self._now = now
        self._lap_started = now()
        self._active: Counter[str] = Counter()
        self._since: dict[str, float] = {}
        self._busy_s: defaultdict[str, float] = defaultdict(float)
        self._num_sampled_tokens = 0

    @contextmanager
    def phase(self, name: str, subject: str = "") -> Iterator[None]:
        """Count the time inside as busy in `name`; may be entered many times at once. The trace shows the subject."""
        if not self._active[name]:
            self._since[name] = self._now()
        self._active[name] += 1
        span = self.trace.span(ROLES.get(name, "driver"), name, subject) if self.trace else nullcontext()
        try:
            with span:
                yield
        finally:
            self._active[name] -= 1
            if not self._active[name]:
                self._busy_s[name] += self._now() - self._since.pop(name)

    def sampled(self, num_tokens: int) -> None:
        self._num_sampled_tokens += num_tokens

    def lap(self) -> Lap:
        """Everything since the last lap; a phase that is still under way is split between the two."""
        now = self._now()
        for name, since in self._since.items():
            self._busy_s[name] += now - since
            self._since[name] = now
        lap = Lap(
            seconds=now - self._lap_started, busy_s=dict(self._busy_s), num_sampled_tokens=self._num_sampled_tokens
        )
        self._lap_started, self._num_sampled_tokens = now, 0
        self._busy_s.clear()
        return lap
