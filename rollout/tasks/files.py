"""Tasks from files of rows: .jsonl, .json (a list of objects), .parquet and .csv (with a header)."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rollout.config import FilesSource
from rollout.schema import Task
from rollout.tasks.rows import Numbered, Row, tasks_from_rows


def load_files(source: FilesSource) -> list[Task]:
    """Read all files in the order they are named. Raises ValueError naming file and row of what is wrong."""
    return tasks_from_rows(_rows(source), source, label="files")


def _rows(source: FilesSource) -> Iterator[Numbered]:
    for path in _expand(source.paths):
        read = READERS.get(path.suffix)
        if read is None:
            raise ValueError(f"a task file must end in one of {sorted(READERS)}, got {path}; convert it")
        try:
            for number, row in read(path):
                if not isinstance(row, dict):
                    raise ValueError(f"a row must be an object with named columns, row {number} is {str(row)[:80]!r}")
                yield f"{path}, row {number}", row
        except OSError as error:
            raise ValueError(f"the task file {path} cannot be read: {error}") from error
        except (json.JSONDecodeError, UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"the task file {path} is not valid {path.suffix}: {error}") from error


def _expand(patterns: tuple[str, ...]) -> list[Path]:
    paths: list[Path] = []
    for pattern in patterns:
        found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
        if not found or not Path(found[0]).is_file():
            raise ValueError(f"a task file must exist, {pattern!r} does not; check tasks.*.paths")
        paths.extend(Path(name) for name in found)
    return paths


def _read_jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"the task file {path} is not valid .jsonl: row {number}: {error}") from error
            yield number, row


def _read_json(path: Path) -> Iterator[tuple[int, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError(f"a .json task file must hold a list of objects, {path} holds a {type(rows).__name__}")
    yield from enumerate(rows, start=1)


def _read_csv(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8", newline="") as lines:
        yield from enumerate(csv.DictReader(lines, strict=True), start=1)


def _read_parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"the task file {path} is not valid .parquet: {error}") from error
    with file:
        rows = (row for batch in file.iter_batches() for row in batch.to_pylist())
        yield from enumerate(rows, start=1)


READERS: dict[str, Callable[[Path], Iterator[tuple[int, Any]]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
