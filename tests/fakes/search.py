"""A tiny world for search: solutions are strings over a few letters, values are a function of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np

from prm.search.ports import Branch
from rollout.schema import Finish, PolicySpan, Trajectory


def branch_of(text: str, *, ended: bool = False, logprob: float = -1.0) -> Branch:
    """One token a letter, no prompt; every letter is a step."""
    size = len(text)
    trajectory = Trajectory(
        group_id="g",
        sibling=0,
        token_ids=np.asarray([ord(letter) for letter in text], dtype=np.int32),
        sampled=np.ones(size, dtype=np.bool_),
        sampler_logprobs=np.full(size, logprob, dtype=np.float32),
        char_ends=np.arange(1, size + 1, dtype=np.int32),
        prompt_len=0,
        text=text,
        thinking=(0, size),
        answer=None,
        finish=Finish.STOP if ended else Finish.LENGTH,
        policy=PolicySpan(start=0, end=0),
    )
    return Branch(trajectory=trajectory, ended=ended)


class LetterExtender:
    """Adds letters until `length`; `greedy` always adds the first of the alphabet. Different calls draw differently."""

    def __init__(self, alphabet: str, length: int, *, seed: int = 0) -> None:
        self._alphabet, self._length = alphabet, length
        self._rng = random.Random(seed)
        self.num_tokens = 0
        self.calls: list[list[str]] = []

    def root(self) -> Branch:
        return branch_of("")

    async def extend(
        self, branches: Sequence[Branch], *, num_steps: int | None = 1, greedy: bool = False
    ) -> list[Branch]:
        self.calls.append([branch.trajectory.text for branch in branches])
        grown = []
        for branch in branches:
            text = branch.trajectory.text
            for _ in range(0 if branch.ended else num_steps or self._length):
                if len(text) < self._length:
                    text += self._alphabet[0] if greedy else self._rng.choice(self._alphabet)
                    self.num_tokens += 1
            grown.append(branch_of(text, ended=len(text) == self._length))
        return grown


class LetterValuer:
    """`judge` maps a text to its value; the empty text has none."""

    def __init__(self, judge: Callable[[str], float]) -> None:
        self._judge = judge

    async def value(self, branches: Sequence[Branch]) -> list[float]:
        texts = [branch.trajectory.text for branch in branches]
        return [self._judge(text) if text else math.nan for text in texts]
