"""Groups that are sampled ahead of need, and carried over to the next step when they were not needed.

With `sampling.surplus = S`, up to S groups are under way or finished without a slot. When a slot's group is dropped, or
a new slot opens, a finished one takes the place at once; only then is a fresh task sampled. What the gate drops among
them goes into the record with the next slot, like any dropped attempt.

The bound on staleness holds: a spare that was admitted when batch r was the last one trained enters a slot of batch k
only if k - 1 - r <= max_lag, which is the number of batches published in between (step 5 of the proof in
`rl/buffer.py`). One that has grown too old is dropped with the reason `too_old`.
State: none. Jobs of spares are out like any other, so a resumed run issues them again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from rl.buffer import Slot
from rollout.schema import Metric, ScoredGroup

TOO_OLD = "too_old"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spare:
    """A finished group without a slot. `born` is the last batch trained when it was admitted."""

    scored: ScoredGroup
    born: int
    drop_reason: str | None


class Spares:
    """At most `size` groups under way or finished."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._num_rolling = self._num_used = self._num_too_old = 0
        self._finished: deque[Spare] = deque()
        self._dropped: list[Spare] = []

    def may_begin(self) -> bool:
        return self._num_rolling + len(self._finished) < self._size

    def begin(self) -> None:
        """One more is under way."""
        self._num_rolling += 1

    def finish(self, spare: Spare) -> None:
        self._num_rolling -= 1
        if spare.drop_reason is None:
            self._finished.append(spare)
        else:
            self._dropped.append(spare)

    def fill(self, slot: Slot, *, max_lag: int) -> bool:
        """Give the slot the oldest finished group that is young enough; whether there was one."""
        for dropped in self._dropped:
            slot.attach(dropped.scored, dropped.drop_reason)
        self._dropped.clear()
        while self._finished:
            spare = self._finished.popleft()
            if slot.step - 1 - spare.born <= max_lag:
                slot.attach(spare.scored, None)
                self._num_used += 1
                return True
            slot.attach(spare.scored, TOO_OLD)
            self._num_too_old += 1
        return False

    def metrics(self) -> list[Metric]:
        """Nothing where there are no spares."""
        if not self._size:
            return []
        found = {"finished": len(self._finished), "used_so_far": self._num_used, "too_old_so_far": self._num_too_old}
        return [Metric(name=f"spares/{name}", value=value, reduce="last") for name, value in found.items()]
