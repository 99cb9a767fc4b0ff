"""Tasks from a Hugging Face data set: a name on the hub, a `save_to_disk` directory, or a directory of data files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rollout.config import HuggingFaceSource
from rollout.schema import Task
from rollout.tasks.rows import tasks_from_rows

SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves in a directory


def load_huggingface(source: HuggingFaceSource) -> list[Task]:
    """Read one split. Raises ValueError when there is no such data set or split, and naming the row that is wrong."""
    rows = ((f"{source.path}[{source.split}], row {i}", row) for i, row in enumerate(_split(source), start=1))
    return tasks_from_rows(rows, source, label=f"huggingface:{source.path}")


def _split(source: HuggingFaceSource) -> Iterable[dict[str, Any]]:
    import datasets

    try:
        if any((Path(source.path) / name).is_file() for name in SAVED):
            loaded = datasets.load_from_disk(source.path)
        else:
            loaded = datasets.load_dataset(source.path, source.name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(
            f"the data set {source.path!r} cannot be loaded: {error}. Check tasks.*.path; without a network it must "
            "be a directory"
        ) from error
    if not isinstance(loaded, dict):  # save_to_disk of a single split
        return loaded  # type: ignore[no-any-return]
    if source.split not in loaded:
        raise ValueError(
            f"the data set {source.path!r} has no split {source.split!r}, only {sorted(map(str, loaded))}; "
            "set tasks.*.split"
        )
    return loaded[source.split]  # type: ignore[no-any-return]
