"""What a sampling rule is: an object over task numbers 0 .. N-1 that never sees a task.

So a rule is arrays and arithmetic, as fast for ten million tasks as numpy is, and is tested without a task.
`rl/sampling/pool_sampler.py` stands between the rules and the tasks.
"""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rl.ports import State
from rl.verdict import Tally
from rollout.schema import Metric

Numbers = npt.NDArray[np.int64]
NO_TASKS: Numbers = np.empty(0, dtype=np.int64)


class Picker(Protocol):
    """A sampling rule. All of it must be a function of the seed and the calls so far; state is in `state_dict`."""

    def pick(self, count: int, busy: Numbers) -> Numbers:
        """Between 1 and `count` different tasks, none of which is in `busy`, in the order in which to run them.

        `busy` are tasks with a group under way; the caller guarantees at least `count` others, and `count` >= 1.
        """
        ...

    def update(self, number: int, tally: Tally) -> None:
        """A group of this task was judged."""
        ...

    def state_dict(self) -> State:
        """Arrays in it are copies: they are written while training goes on."""
        ...

    def load_state_dict(self, state: State) -> None: ...

    def metrics(self) -> list[Metric]: ...


def generator(seed: int, *place: object) -> np.random.Generator:
    """Random numbers that are a function of the seed and a place, so that no generator's state can be lost."""
    text = "/".join(map(str, (seed, *place)))
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key)))


def without(numbers: Numbers, busy: Numbers) -> Numbers:
    """`numbers` in their order, those in `busy` left out."""
    return numbers if busy.size == 0 else numbers[~np.isin(numbers, busy)]


def draw(rng: np.random.Generator, numbers: npt.NDArray[np.integer[Any]], count: int) -> Numbers:
    """`count` of them in random order, or all of them if they are fewer."""
    places = rng.permutation(numbers.size) if numbers.size <= count else rng.choice(numbers.size, count, replace=False)
    return numbers[places].astype(np.int64)


def draw_free(rng: np.random.Generator, members: Numbers, count: int, taken: Numbers) -> Numbers:
    """`count` of the members that are not taken, or all of those. Of many members a few are guessed first."""
    num_guesses = 2 * count + 32
    if members.size > num_guesses:
        found = without(rng.choice(members, num_guesses, replace=False), taken)
        if found.size >= count:
            return found[:count]
    return draw(rng, without(members, taken), count)
