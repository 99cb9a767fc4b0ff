"""Labels as they are made: one line a finished task, so that a job that was stopped goes on where it was.

A line is whole or it is not there: one that was cut off by a kill is dropped when the file is opened again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from prm.data import StepRow, row_line, row_of
from prm.label.tree import Preference


class LabelStore:
    """Lines of one job below `path`. The first line says which job: another job's file is refused."""

    def __init__(self, path: Path, job: dict[str, Any]) -> None:
        """Raises ValueError when the file is of another job."""
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole_lines(path)
        if lines and lines[0].get("job") != job:
            raise ValueError(
                f"{path} belongs to a job with other settings; remove it, or name another file to write to"
            )
        self._lines = lines[1:]
        if not lines:
            path.write_text(json.dumps({"job": job}) + "\n", encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def done(self) -> set[str]:
        """Keys of the finished tasks."""
        return {line["task"] for line in self._lines}

    @property
    def spent(self) -> dict[str, int]:
        """Completions, tokens and reused completions so far."""
        names = ("completions", "tokens", "reused")
        return {name: sum(line["spent"].get(name, 0) for line in self._lines) for name in names}

    def add(self, task: str, rows: Sequence[StepRow], pairs: Sequence[Preference], spent: dict[str, int]) -> None:
        """Record a finished task, on the disk when this returns."""
        line = {
            "task": task,
            "rows": [json.loads(row_line(row)) for row in rows],
            "pairs": [dataclasses.asdict(pair) for pair in pairs],
            "spent": spent,
        }
        self._file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._lines.append(line)

    def rows(self) -> list[StepRow]:
        """All rows, in the order of the tasks' keys; a solution that came twice is there once."""
        found = [
            row_of(value, f"{self._path}, task {line['task']}")
            for line in sorted(self._lines, key=lambda line: line["task"])
            for value in line["rows"]
        ]
        return list({row.id: row for row in found}.values())

    def pairs(self) -> list[dict[str, Any]]:
        """All preference pairs, likewise."""
        found = [pair for line in sorted(self._lines, key=lambda line: line["task"]) for pair in line["pairs"]]
        return list({(p["question"], p["past"], p["chosen"], p["rejected"]): p for p in found}.values())


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file; a last one without its end is cut away from the file."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) != len(content):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.decode().splitlines()]
