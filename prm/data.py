"""Labelled steps on disk: one format for what we label, what we import and what we train on.

A file is JSON lines (`.jsonl`) or Parquet (`.parquet`); a line or row is one solution:

    id           text, unique in the file
    question     text
    steps        list of texts
    labels       list of numbers or null, one a step; null: not labelled (steps after the first error usually are)
    kind         hard (0, 1), soft (share in [0, 1]), three_way (-1, 0, 1) or value ([-1, 1])
    labeller     who says so: completion, search, tree, ensemble, exact, human, outcome, ...
    outcome      is the final answer right: number in [0, 1], or null
    answer       the reference, "" if unknown
    source       where the question is from
    generator    who wrote the steps
    token_ids    the tokens as they were sampled, or null; with prompt_len and
    spans        [[start, end], ...], one token range a step
    meta         anything else, JSON
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from prm.items import ScoreItem
from rollout.schema import Message

LabelKind = Literal["hard", "soft", "three_way", "value"]
_ALLOWED: Mapping[str, Any] = {
    "hard": lambda v: v in (0, 1),
    "soft": lambda v: 0 <= v <= 1,
    "three_way": lambda v: v in (-1, 0, 1),
    "value": lambda v: -1 <= v <= 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """One solution with its step labels."""

    id: str
    question: str
    steps: tuple[str, ...]
    labels: tuple[float | None, ...]
    kind: LabelKind = "hard"
    labeller: str = ""
    outcome: float | None = None
    answer: str = ""
    source: str = ""
    generator: str = ""
    token_ids: tuple[int, ...] | None = None
    prompt_len: int = 0
    spans: tuple[tuple[int, int], ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.steps):
            raise ValueError(f"row {self.id!r}: {len(self.labels)} labels for {len(self.steps)} steps")
        if self.kind not in _ALLOWED:
            raise ValueError(f"row {self.id!r}: kind is one of {', '.join(_ALLOWED)}, got {self.kind!r}")
        bad = [v for v in self.labels if v is not None and not (math.isfinite(v) and _ALLOWED[self.kind](v))]
        if bad:
            raise ValueError(f"row {self.id!r}: a label of kind {self.kind} cannot be {bad[0]}")
        if self.outcome is not None and not 0 <= self.outcome <= 1:
            raise ValueError(f"row {self.id!r}: outcome lies in [0, 1], got {self.outcome}")
        if (self.token_ids is None) != (self.spans is None):
            raise ValueError(f"row {self.id!r}: token_ids and spans come together")
        if self.spans is not None and (
            len(self.spans) != len(self.steps)
            or any(not 0 <= a < b <= len(self.token_ids or ()) for a, b in self.spans)
        ):
            raise ValueError(f"row {self.id!r}: spans must be one token range a step, inside of token_ids")

    @property
    def first_error(self) -> int | None:
        """Index of the first step that is labelled wrong, -1 when all are labelled right, None when it is unknown.

        Wrong: hard 0, soft 0, three-way -1, value -1.
        """
        lowest = -1 if self.kind in ("three_way", "value") else 0
        for index, label in enumerate(self.labels):
            if label is None:
                return None
            if label == lowest:
                return index
        return -1

    def item(self) -> ScoreItem | None:
        """The tokens as they were sampled, or None for a row that is text alone."""
        if self.token_ids is None or self.spans is None:
            return None
        size = len(self.token_ids)
        return ScoreItem(
            token_ids=np.asarray(self.token_ids, np.int32),
            sampled=np.arange(size) >= self.prompt_len,
            spans=self.spans,
            messages=self.messages,
            steps=self.steps,
        )

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message(role="user", content=self.question),)


def content_id(*parts: Any) -> str:
    """16 hexadecimal digits that depend on the content alone: equal solutions get equal ids."""
    text = json.dumps(parts, ensure_ascii=False, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def split_rows(rows: Sequence[StepRow], held_out: float, *, seed: int = 0) -> tuple[list[StepRow], list[StepRow]]:
    """Training and held-out rows; all solutions of a question are on one side."""
    train: list[StepRow] = []
    held: list[StepRow] = []
    for row in rows:
        place = int(content_id(seed, row.question), 16) / 2**64
        (held if place < held_out else train).append(row)
    return train, held


# ------------------------------------------------------------------------------------------------ files


def write_rows(path: Path, rows: Iterable[StepRow]) -> int:
    """Write a file of the format above; returns how many rows. The suffix says which: .jsonl or .parquet."""
    plain = [_plain(row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([p | {"meta": json.dumps(p["meta"])} for p in plain], _SCHEMA), partial)
    elif path.suffix == ".jsonl":
        partial.write_text("".join(json_line(p) for p in plain), encoding="utf-8")
    else:
        raise ValueError(f"step labels are written as .jsonl or .parquet, got {path.name!r}")
    partial.replace(path)
    return len(plain)


def row_line(row: StepRow) -> str:
    """One line of a .jsonl file."""
    return json_line(_plain(row))


def json_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def read_rows(path: Path) -> list[StepRow]:
    """Read a file of the format above. Raises ValueError naming the line that is not of it."""
    if path.suffix == ".parquet":
        plain = [row | {"meta": json.loads(row["meta"])} for row in pq.read_table(path).to_pylist()]
    else:
        plain = list(read_json_lines(path))
    return [row_of(value, f"{path}, row {number}") for number, value in enumerate(plain, start=1)]


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Objects of a file of JSON lines; a file that is one JSON list of objects is read, too."""
    text = path.read_text(encoding="utf-8")
    try:
        values = json.loads(text) if text.lstrip().startswith("[") else [json.loads(t) for t in text.split("\n") if t]
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON lines: {error}") from error
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise ValueError(f"{path}, row {number}: expected an object, got {type(value).__name__}")
        yield value


def row_of(value: Mapping[str, Any], where: str) -> StepRow:
    """A row from plain data. Raises ValueError that begins with `where`."""
    known = {f.name for f in dataclasses.fields(StepRow)}
    if unknown := sorted(set(value) - known):
        raise ValueError(f"{where}: unknown fields {unknown}; known are {', '.join(sorted(known))}")
    try:
        changed = dict(value)
        for name in ("steps", "labels", "token_ids"):
            if changed.get(name) is not None:
                changed[name] = tuple(changed[name])
        if changed.get("spans") is not None:
            changed["spans"] = tuple((int(a), int(b)) for a, b in changed["spans"])
        return StepRow(**changed)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _plain(row: StepRow) -> dict[str, Any]:
    value = {f.name: getattr(row, f.name) for f in dataclasses.fields(StepRow)}
    value |= {name: list(value[name]) for name in ("steps", "labels")}
    value["token_ids"] = None if row.token_ids is None else list(row.token_ids)
    value["spans"] = None if row.spans is None else [list(span) for span in row.spans]
    return value | {"meta": dict(row.meta)}


_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "question")),
        ("steps", pa.list_(pa.string())),
        ("labels", pa.list_(pa.float64())),
        *((name, pa.string()) for name in ("kind", "labeller")),
        ("outcome", pa.float64()),
        *((name, pa.string()) for name in ("answer", "source", "generator")),
        ("token_ids", pa.list_(pa.int32())),
        ("prompt_len", pa.int32()),
        ("spans", pa.list_(pa.list_(pa.int32()))),
        ("meta", pa.string()),
    ]
)
