"""A row of a file or data set becomes a task."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from rollout.config import FilesSource, HuggingFaceSource
from rollout.schema import Message, Task, task_key
from rollout.tasks.worked_solution import demonstrations

Row = Mapping[str, Any]
Numbered = tuple[str, Row]  # where the row stands, for messages, and the row
ROLES = ("system", "user", "assistant")


def tasks_from_rows(rows: Iterable[Numbered], source: FilesSource | HuggingFaceSource, *, label: str) -> list[Task]:
    """Map columns to tasks, at most `source.limit` of them. Raises ValueError naming the row that cannot be a task."""
    tasks: list[Task] = []
    for where, row in rows:
        if source.limit is not None and len(tasks) == source.limit:
            break
        task = _task(where, row, source, label)
        if task is not None:
            tasks.append(task)
    return tasks


def _task(where: str, row: Row, source: FilesSource | HuggingFaceSource, label: str) -> Task | None:
    """The row as a task, or None if its worked solution does not arrive at its answer."""
    columns = source.columns
    prompt = _prompt(where, _cell(where, row, columns.prompt), source)
    answer = _answer(where, _cell(where, row, columns.answer), source)
    meta = {name: _cell(where, row, name) for name in columns.meta}
    if columns.split_key is not None:
        meta["split_key"] = str(_cell(where, row, columns.split_key))
    if source.solutions is not None:
        solution = str(_cell(where, row, source.solutions.field))
        meta["demonstrations"] = demonstrations(source.solutions, solution, answer)
        if meta["demonstrations"] is None:
            return None
    return Task(
        key=task_key(prompt, answer),
        prompt=prompt,
        answer=answer,
        verifier=source.verifier,
        source=label,
        skills=() if columns.skills is None else _skills(where, _cell(where, row, columns.skills)),
        meta=meta,
    )


def _cell(where: str, row: Row, column: str) -> Any:
    if column not in row:
        raise ValueError(
            f"{where}: there is no column {column!r}, only {sorted(map(str, row))}; "
            "name the right one in tasks.*.columns"
        )
    return row[column]


def _prompt(where: str, cell: Any, source: FilesSource | HuggingFaceSource) -> tuple[Message, ...]:
    if isinstance(cell, str):
        turns = [Message(role="user", content=source.prompt_template.replace("{prompt}", cell))]
    else:
        turns = [_message(where, turn) for turn in (cell if isinstance(cell, list | tuple) else [cell])]
    if not turns or not turns[-1].content.strip():
        raise ValueError(f"{where}: the prompt in column {source.columns.prompt!r} is empty; remove or fill the row")
    if source.system:
        turns.insert(0, Message(role="system", content=source.system))
    return tuple(turns)


def _message(where: str, turn: Any) -> Message:
    if not isinstance(turn, Mapping) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
        raise ValueError(
            f"{where}: a prompt must be text or a list of messages with a role of {ROLES} and a text content, "
            f"got {str(turn)[:80]!r}"
        )
    return Message(role=turn["role"], content=turn["content"])


def _answer(where: str, cell: Any, source: FilesSource | HuggingFaceSource) -> str:
    # An object, such as the tests of a program, reaches its verifier as JSON.
    text = json.dumps(cell) if isinstance(cell, dict | list) else "" if cell is None else str(cell).strip()
    if not text:
        raise ValueError(
            f"{where}: a task must have an answer, column {source.columns.answer!r} is empty; remove or fill the row"
        )
    if source.answer_pattern is None:
        return text
    found = re.search(source.answer_pattern, text)
    answer = "" if found is None else (found.group(1) or "").strip()
    if not answer:
        raise ValueError(
            f"{where}: answer_pattern {source.answer_pattern!r} finds no answer in {text[-80:]!r}; mend the pattern or "
            "the row"
        )
    return answer


def _skills(where: str, cell: Any) -> tuple[str, ...]:
    if isinstance(cell, str):
        return (cell,) if cell else ()
    if cell is None:
        return ()
    if not isinstance(cell, list | tuple):
        raise ValueError(f"{where}: skills must be a text or a list of texts, got {type(cell).__name__}")
    return tuple(map(str, cell))
