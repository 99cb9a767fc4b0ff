"""Reads a run's recorded groups back, for `ponder show`, the report and the ledger of consumed tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rl.record import Fate

_LEDGER_COLUMNS = ["step", "fate", "reason", "group_id", "task_key", "effort", "sibling"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedStep:
    """One step of a recorded trajectory. `score` is None where the scorer could not judge it."""

    start: int  # token range [start, end) of the whole trajectory
    end: int
    char_start: int  # character range [char_start, char_end) of the trajectory's text
    char_end: int
    score: float | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedTrajectory:
    """One sibling. `reward` and `score` are None where unjudged; `advantage_*` where it was not trained on."""

    sibling: int
    token_ids: tuple[int, ...]
    prompt_len: int
    text: str
    thinking: tuple[int, int] | None
    answer: tuple[int, int] | None
    num_thinking_tokens: int
    finish: str
    error: str | None
    version_start: int
    version_end: int
    version_switches: dict[int, int]  # token position: the newer version from there on
    status: str
    score: float | None
    outcome_reason: str
    parts: dict[str, float]
    shaped: dict[str, float]
    reward: float | None
    steps: tuple[RecordedStep, ...] | None
    scorer: str | None
    advantage_mean: float | None
    advantage_min: float | None
    advantage_max: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedGroup:
    """All siblings of one job and what became of them."""

    group_id: str
    fate: Fate
    task_key: str
    source: str
    prompt: tuple[tuple[str, str], ...]  # (role, content)
    reference: str
    effort: str
    instruction: str
    max_thinking_tokens: int | None
    trajectories: tuple[RecordedTrajectory, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One consumed task."""

    step: int
    fate: str
    reason: str
    group_id: str
    task_key: str
    effort: str


def recorded_steps(directory: Path, *, evaluations: bool = False) -> list[int]:
    """Steps that have a file, ascending."""
    return [step for step, _ in _files(directory, "eval" if evaluations else "step")]


def iter_groups(
    directory: Path,
    *,
    steps: range | None = None,
    effort: str | None = None,
    fate: str | None = None,
    task_key: str | None = None,
    evaluations: bool = False,
) -> Iterator[RecordedGroup]:
    """Recorded groups in the order of training; every filter that is given must match.

    `fate` is "trained", "dropped", "baseline" or "evaluated"; `evaluations` reads the evaluation files instead of the
    step files.
    """
    wanted = {"effort": effort, "fate": fate, "task_key": task_key}
    filters = [(name, "==", value) for name, value in wanted.items() if value is not None] or None
    for step, path in _files(directory, "eval" if evaluations else "step"):
        if steps is None or step in steps:
            yield from _groups(pq.read_table(path, filters=filters).to_pylist(maps_as_pydicts="strict"))


def ledger(directory: Path) -> list[LedgerEntry]:
    """Every consumed task in the order in which the run settled it."""
    entries: list[LedgerEntry] = []
    for _, path in _files(directory, "step"):
        consumed = [("sibling", "==", 0), ("fate", "!=", "baseline")]
        rows = pq.read_table(path, columns=_LEDGER_COLUMNS, filters=consumed).to_pylist()
        entries.extend(LedgerEntry(**{name: row[name] for name in _LEDGER_COLUMNS[:-1]}) for row in rows)
    return entries


def _files(directory: Path, kind: str) -> list[tuple[int, Path]]:
    matches = [(re.fullmatch(kind + r"-(\d+)\.parquet", path.name), path) for path in directory.glob("*.parquet")]
    return sorted((int(match[1]), path) for match, path in matches if match)


def _groups(rows: list[dict[str, Any]]) -> Iterator[RecordedGroup]:
    """Group consecutive rows with one group id: the writer keeps siblings together and in order."""
    start = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end]["group_id"] != rows[start]["group_id"]:
            yield _group(rows[start:end])
            start = end


def _group(rows: list[dict[str, Any]]) -> RecordedGroup:
    first = rows[0]
    return RecordedGroup(
        group_id=first["group_id"],
        fate=Fate(name=first["fate"], step=first["step"], reason=first["reason"]),
        task_key=first["task_key"],
        source=first["source"],
        prompt=tuple((m["role"], m["content"]) for m in first["prompt"]),
        reference=first["reference"],
        effort=first["effort"],
        instruction=first["instruction"],
        max_thinking_tokens=first["max_thinking_tokens"],
        trajectories=tuple(_trajectory(row) for row in rows),
    )


def _trajectory(row: dict[str, Any]) -> RecordedTrajectory:
    same = ("sibling", "prompt_len", "text", "num_thinking_tokens", "finish", "error", "version_start", "version_end")
    verdict = ("status", "score", "outcome_reason", "parts", "shaped", "reward", "scorer")
    advantage = ("advantage_mean", "advantage_min", "advantage_max")
    return RecordedTrajectory(
        **{name: row[name] for name in same + verdict + advantage},
        version_switches=row.get("version_switches") or {},  # absent in files of earlier versions
        token_ids=tuple(row["token_ids"]),
        thinking=_span(row["thinking"]),
        answer=_span(row["answer"]),
        steps=_steps(row),
    )


def _span(bounds: list[int] | None) -> tuple[int, int] | None:
    return None if bounds is None else (bounds[0], bounds[1])


def _steps(row: dict[str, Any]) -> tuple[RecordedStep, ...] | None:
    if row["step_starts"] is None:
        return None
    ends = row["char_ends"]
    notes = row["step_notes"] or [""] * len(row["step_starts"])
    return tuple(
        RecordedStep(
            start=start,
            end=end,
            char_start=ends[start - 1] if start else 0,
            char_end=ends[end - 1],
            score=score,
            note=note,
        )
        for start, end, score, note in zip(row["step_starts"], row["step_ends"], row["step_scores"], notes, strict=True)
    )
