"""The tasks that have been tried, in the order of their first time: a look at these instead of at all tasks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

ROOM = 1024


class Known:
    """A list of task numbers that only grows, 4 bytes a task."""

    def __init__(self) -> None:
        self._room = np.empty(ROOM, dtype=np.int32)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, number: int) -> None:
        """The caller knows that it is not in the list yet."""
        if self._size == self._room.size:
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        self._room[self._size] = number
        self._size += 1

    def numbers(self) -> npt.NDArray[np.int32]:
        """A view, valid until the next `add`."""
        return self._room[: self._size]

    def load(self, numbers: npt.NDArray[np.int32]) -> None:
        self._size = numbers.size
        self._room = np.concatenate([numbers, np.empty(ROOM, dtype=np.int32)])
