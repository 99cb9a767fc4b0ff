"""The buffer between generation and training, and the proof that nothing in it grows too old.

A *slot* is a place in the order of training. It is held from admission until the weights trained on its batch are live
on every engine. Slots are numbered 0, 1, 2, ... in the order of admission, and batch k = 1, 2, ... is made of slots
(k-1)B .. kB-1 in that order (first in, first out), where B = groups_per_step. The capacity is C = B * (max_lag + 1).

Claim. Between the admission of a slot and the training of its batch, at most max_lag batches are published.

 1. Let slot i belong to batch k, so (k-1)B <= i < kB, and let r batches be published when it is admitted.
 2. Slots are released a whole batch at a time, oldest first, when the batch is published: rB of them are free again.
 3. Admission needs a free slot, so the slots held before it number i - rB <= C - 1.
 4. Hence rB >= i + 1 - C >= (k-1)B + 1 - (max_lag + 1)B, that is r > k - 1 - (max_lag + 1). As r is a whole number,
    r >= k - 1 - max_lag.
 5. Batches are trained in order, so exactly k - 1 are published when batch k is trained. Those published in between
    number (k - 1) - r <= max_lag. QED

Corollaries
 - Sampling starts after admission, on engines that serve at least the weights live at admission, so no token of a
   trained group is more than max_lag batches behind. A batch may hold several optimizer steps; the bound is in
   batches, because weights are published once per batch.
 - max_lag = 0: slot i of batch k is admitted only once batch k - 1 is live. This *is* the synchronous algorithm.
 - A dropped group keeps its slot until its batch is retired, or passes it on to a fresh task that is sampled later
   than it was: newer weights, same batch. Both leave the bound as it is.
 - A group sampled without a slot (`rl/spares.py`) enters a slot of batch k only if at most max_lag batches were
   published between its own admission and the training of k, which is the claim itself.
 - Steps 2 and 5 are where an error would creep in: training out of order, or releasing before the weights are live.

A change of max_lag while slots are held (`resize`): a slot is admitted while fewer than C are held, with the C of that
moment, so step 3 and the claim hold for it with the max_lag of its admission. After a smaller one nothing is admitted
until enough slots are released; those that are held keep the bound that they were admitted under (`bound`).

On resume no slot is held and nothing sampled survives, so the count starts again from zero and the claim holds afresh.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rollout.schema import Metric, ScoredGroup


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """A place in the order of training. `attempts` fills while it is rolled; only the last one may be admitted."""

    index: int
    step: int  # the batch it belongs to
    attempts: list[ScoredGroup] = field(default_factory=list)
    drop_reasons: list[str | None] = field(default_factory=list)  # per attempt; None: admitted
    num_rolled: int = 0  # attempts that were sampled for this slot
    is_settled: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, scored: ScoredGroup, drop_reason: str | None) -> None:
        """An attempt that was sampled for this slot."""
        self.num_rolled += 1
        self.attach(scored, drop_reason)

    def attach(self, scored: ScoredGroup, drop_reason: str | None) -> None:
        """A group from elsewhere that is settled together with this slot."""
        self.attempts.append(scored)
        self.drop_reasons.append(drop_reason)

    @property
    def admitted(self) -> list[ScoredGroup]:
        """The attempt that may train, if one may."""
        return [s for s, reason in zip(self.attempts, self.drop_reasons, strict=True) if reason is None]


class Buffer:
    """Counts slots; holds each from admission until it is released."""

    def __init__(self, *, groups_per_step: int, max_lag: int, first_step: int = 1) -> None:
        self.groups_per_step = groups_per_step
        self.max_lag = max_lag
        self.capacity = groups_per_step * (max_lag + 1)
        self._first_step = first_step
        self._room = asyncio.Event()  # set whenever there may be room
        self._order: asyncio.Queue[Slot] = asyncio.Queue()
        self._num_admitted = self._num_taken = self._num_released = 0
        self._bounds = [(0, max_lag)]  # from which slot on which max_lag holds, ascending

    @property
    def num_held(self) -> int:
        return self._num_admitted - self._num_released

    async def admit(self) -> Slot:
        """Wait for a free slot and hold it."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()
        return self.admit_now()

    @property
    def has_room(self) -> bool:
        return self.num_held < self.capacity

    def admit_now(self) -> Slot:
        """Hold a free slot. Raises RuntimeError when there is none."""
        if not self.has_room:
            raise RuntimeError(f"a slot is held only while one is free: {self.num_held} of {self.capacity} are held")
        index = self._num_admitted
        self._num_admitted += 1
        slot = Slot(index=index, step=self._first_step + index // self.groups_per_step)
        self._order.put_nowait(slot)
        return slot

    def resize(self, max_lag: int) -> None:
        """From the next admission on at most `max_lag` batches of lag."""
        if max_lag == self.max_lag:
            return
        self.max_lag, self.capacity = max_lag, self.groups_per_step * (max_lag + 1)
        self._bounds.append((self._num_admitted, max_lag))
        self._room.set()

    def bound(self, step: int) -> int:
        """Most batches that may have been published since the admission of any slot of this step."""
        first = (step - self._first_step) * self.groups_per_step
        last = first + self.groups_per_step - 1
        inside = [lag for start, lag in self._bounds if first < start <= last]
        before = [lag for start, lag in self._bounds if start <= first]
        return max(inside + before[-1:])

    async def take(self) -> list[Slot]:
        """Wait until the next `groups_per_step` slots in order of admission are settled; they stay held."""
        slots = [await self._order.get() for _ in range(self.groups_per_step)]
        for slot in slots:
            await slot.is_settled.wait()
        self._num_taken += len(slots)
        return slots

    def release(self, num_slots: int) -> None:
        """Free the oldest `num_slots` slots: the weights trained on them are live."""
        if num_slots > self._num_taken - self._num_released:
            raise RuntimeError(
                f"only slots that were taken can be released: {self._num_taken} taken, {self._num_released} released, "
                f"{num_slots} more asked for"
            )
        self._num_released += num_slots
        self._room.set()

    def metrics(self) -> list[Metric]:
        return [
            Metric(name="buffer/held", value=self.num_held, reduce="last"),
            Metric(name="buffer/capacity", value=self.capacity, reduce="last"),
        ]
