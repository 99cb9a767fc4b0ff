"""Finished searches on disk, one line each: what was found before a kill is never searched again."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from launch.evaluation.store import StoreError, whole_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A finished solution. `answer` is what it is counted under in votes; `scores` are its step scores, NaN unjudged,
    None where the scorer failed; `value` is what the search ranked it by."""

    text: str
    answer: str
    correct: bool | None
    tokens: int
    scores: tuple[float, ...] | None
    value: float

    def as_json(self) -> dict[str, Any]:
        scores = None if self.scores is None else [None if math.isnan(s) else round(s, 6) for s in self.scores]
        value = None if math.isnan(self.value) else round(self.value, 6)
        return {
            "text": self.text,
            "answer": self.answer,
            "correct": self.correct,
            "tokens": self.tokens,
            "scores": scores,
            "value": value,
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Solution:
        scores = found["scores"]
        return cls(
            text=found["text"],
            answer=found["answer"],
            correct=found["correct"],
            tokens=int(found["tokens"]),
            scores=None if scores is None else tuple(math.nan if s is None else float(s) for s in scores),
            value=math.nan if found["value"] is None else float(found["value"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """One strategy on one task: its solutions, the best first, and every token that it sampled. `kind` is that of the
    step scores, "" where there are none; `order` that in which a verifier would look at samples, where it was asked
    for."""

    task: str
    strategy: str
    tokens: int
    kind: str
    solutions: tuple[Solution, ...]
    order: tuple[int, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        head = {"task": self.task, "strategy": self.strategy, "tokens": self.tokens, "kind": self.kind}
        order = {} if self.order is None else {"order": list(self.order)}
        return {**head, **order, "solutions": [solution.as_json() for solution in self.solutions]}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Searched:
        return cls(
            task=found["task"],
            strategy=found["strategy"],
            tokens=int(found["tokens"]),
            kind=found["kind"],
            solutions=tuple(map(Solution.from_json, found["solutions"])),
            order=tuple(map(int, found["order"])) if "order" in found else None,
        )


class SearchStore:
    """`searches.jsonl` of one directory. Use it as a context manager; another process is kept out meanwhile."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.path = directory / "searches.jsonl"
        self._done: dict[str, Searched] = {}
        self._handle: BinaryIO | None = None

    def __enter__(self) -> SearchStore:
        handle = self.path.open("ab")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.close()
            raise StoreError(f"another process is searching into {self.path.parent}; wait for it or stop it") from error
        if (size := whole_size(self.path)) < handle.tell():
            handle.truncate(size)  # a line that a kill tore off
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                found = json.loads(line)
                self._done[str(found["key"])] = Searched.from_json(found)
            except (ValueError, KeyError, TypeError) as error:
                handle.close()
                raise StoreError(
                    f"{self.path}, line {number}, holds no search ({type(error).__name__}: {error}); remove the line"
                ) from error
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._handle is not None
        self._handle.close()

    def get(self, key: str) -> Searched | None:
        return self._done.get(key)

    def add(self, key: str, searched: Searched) -> None:
        """Written and synced before this returns."""
        assert self._handle is not None
        self._handle.write(json.dumps({"key": key, **searched.as_json()}).encode() + b"\n")
        self._handle.flush()
        os.fsync(self._handle.fileno())
        # What is read back later is what is used now: a resumed evaluation must not differ in the seventh digit.
        self._done[key] = Searched.from_json(json.loads(json.dumps(searched.as_json())))
