"""RIF: the policy's own rollouts say which instances to leave out (after RIF-RFT, arXiv 2507.05386).

A task's last judged group, with s right of n answers, puts it into a class:

    new      no group yet                    later    s = 0: no competent rollout
    kept     0 < s < n: it teaches           solved   s = n

A pick of B tasks holds up to `probe` B new ones, `later` B and `audit` B of the classes later and solved (those whose
last group is longest ago, in a large pool among LOOK tried ones), and kept ones for the rest. What a class cannot give,
kept, new, later and solved give in this order, so that a pool of hopeless tasks is still tried and the run says why it
has no signal.
Assumption: a group of today's size shows whether a task is hopeless; with few siblings a hard one is set aside by
chance, which is what `later` mends.
What it is not: the paper's rule, which none of its public texts states; this is a reconstruction from its idea, filter
by competent rollouts, turned from a pass before training into a running one.
"""

from __future__ import annotations

import numpy as np

from rl.ports import State
from rl.sampling.config import RifSampling
from rl.sampling.known import Known
from rl.sampling.picker import NO_TASKS, Numbers, draw, generator, without
from rl.verdict import Tally
from rollout.schema import Metric

NEW, KEPT, LATER, SOLVED = range(4)
NAMES = ("new", "kept", "later", "solved")
LOOK = 32768
"""Tasks that one look at a class takes in. Where these hold too few of it, all tasks are looked at."""


class Rif:
    """Implements `rl.sampling.picker.Picker`. Per task one byte of class and 4 bytes of the last pick it came from; a
    state holds those of the tasks that were tried."""

    def __init__(self, num_tasks: int, config: RifSampling, *, seed: int) -> None:
        self._config = config
        self._seed = seed
        self._class = np.full(num_tasks, NEW, dtype=np.uint8)
        self._judged_at = np.zeros(num_tasks, dtype=np.uint32)
        self._sizes = [num_tasks, 0, 0, 0]
        self._tried = Known()
        self._num_picks = 0

    def pick(self, count: int, busy: Numbers) -> Numbers:
        rng = generator(self._seed, "rif", self._num_picks)
        self._num_picks += 1
        picked: list[Numbers] = []
        quotas = ((LATER, self._config.later), (SOLVED, self._config.audit), (NEW, self._config.probe))
        for name, share in quotas:
            picked.append(self._some(rng, name, round(share * count), busy))
        for name in (KEPT, NEW, LATER, SOLVED):
            if missing := count - sum(map(len, picked)):
                picked.append(self._some(rng, name, missing, np.concatenate([busy, *picked])))
        return rng.permutation(np.concatenate(picked))

    def update(self, number: int, tally: Tally) -> None:
        if tally.num_judged == 0:
            return
        found = KEPT if tally.is_informative else SOLVED if tally.num_right else LATER
        if self._class[number] == NEW:
            self._tried.add(number)
        self._sizes[self._class[number]] -= 1
        self._sizes[found] += 1
        self._class[number] = found
        self._judged_at[number] = self._num_picks

    def state_dict(self) -> State:
        return {
            "num_picks": self._num_picks,
            "tried": (tried := self._tried.numbers().copy()),
            "class": self._class[tried],
            "judged_at": self._judged_at[tried],
        }

    def load_state_dict(self, state: State) -> None:
        self._num_picks = state["num_picks"]
        tried = state["tried"]
        self._class[:], self._judged_at[:] = NEW, 0
        self._class[tried], self._judged_at[tried] = state["class"], state["judged_at"]
        self._tried.load(tried)
        self._sizes = np.bincount(self._class, minlength=len(NAMES)).tolist()

    def metrics(self) -> list[Metric]:
        shares = [size / self._class.size for size in self._sizes]
        return [
            Metric(name=f"sampler/{name}_share", value=share, reduce="last")
            for name, share in zip(NAMES, shares, strict=True)
        ]

    def _some(self, rng: np.random.Generator, name: int, count: int, taken: Numbers) -> Numbers:
        """`count` tasks of a class, or all that are not taken: the longest untried of those set aside, or any."""
        if not count or not self._sizes[name]:
            return NO_TASKS
        members = self._sample(rng, name, taken)
        if members.size < count:
            free = self._class == name
            free[taken] = False
            members = np.flatnonzero(free)
        if name in (NEW, KEPT) or members.size <= count:
            return draw(rng, members, count)
        oldest: Numbers = members[np.argpartition(self._judged_at[members], count - 1)[:count]]
        return oldest

    def _sample(self, rng: np.random.Generator, name: int, taken: Numbers) -> Numbers:
        """Tasks of a class among at most LOOK that are drawn from all, or from the tried ones; ascending."""
        known = None if name == NEW else self._tried.numbers()
        size = self._class.size if known is None else known.size
        places = np.unique(rng.integers(size, size=LOOK)) if size > LOOK else np.arange(size)
        numbers: Numbers = (places if known is None else np.sort(known[places])).astype(np.int64)
        return without(numbers[self._class[numbers] == name], taken)
