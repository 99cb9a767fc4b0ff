"""Arrays in a state: written beside the JSON as plain .npy files, never pickled, and put back where they stood.

In the JSON an array is `{"__array__": "arrays/0003.npy"}`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

MARK = "__array__"
FOLDER = "arrays"


def write_arrays(state: Any, directory: Path) -> Any:
    """`state` with every array replaced by its place, after writing it below `directory`."""
    count = 0

    def put(value: Any) -> Any:
        nonlocal count
        if isinstance(value, np.ndarray):
            place = f"{FOLDER}/{count:04d}.npy"
            count += 1
            (directory / FOLDER).mkdir(exist_ok=True)
            np.save(directory / place, value, allow_pickle=False)
            return {MARK: place}
        if isinstance(value, dict):
            return {key: put(entry) for key, entry in value.items()}
        return [put(entry) for entry in value] if isinstance(value, list | tuple) else value

    return put(state)


def read_arrays(state: Any, directory: Path) -> Any:
    """The reverse of `write_arrays`."""
    if isinstance(state, dict):
        if set(state) == {MARK}:
            return np.load(directory / state[MARK], allow_pickle=False)
        return {key: read_arrays(entry, directory) for key, entry in state.items()}
    return [read_arrays(entry, directory) for entry in state] if isinstance(state, list) else state
