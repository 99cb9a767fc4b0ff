"""Golden cases: rows that say what a reward function must give to which attempt.

One JSON object a line:

    {"prompt": "3+4=?", "reference": "7", "answer": "7", "score": 1}
    {"prompt": "3+4=?", "reference": "7", "completion": "<think>3+4</think>It is 8", "score": 0}
    {"prompt": "3+4=?", "reference": "7", "answer": null, "score": 0}          the thinking was never closed
    {"prompt": "3+4=?", "reference": "?", "answer": "7", "score": null}        must be left unjudged

`score` is a number, a pair [lowest, highest], or null; a row without it is only run. `prompt` is a text or a list of
messages, `thinking` and `meta` (the task's columns) are optional; rows with the same `group` are siblings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.outcome import Sample
from rollout.schema import Finish, Message, Outcome, task_key

OPEN, CLOSE = "<think>", "</think>"
_TOLERANCE = 1e-6
_FIELDS = frozenset(
    {"prompt", "reference", "answer", "thinking", "completion", "score", "meta", "group", "finish", "effort"}
)
_IGNORED = frozenset({"status", "reason", "note"})  # what a failure file adds, and room for a remark


class CasesError(ValueError):
    """A file of golden cases that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One attempt and the scores that are right for it. `expected` None: anything; `unjudged`: no score at all."""

    line: int
    sample: Sample
    expected: tuple[float, float] | None
    unjudged: bool = False

    @property
    def is_golden(self) -> bool:
        return self.unjudged or self.expected is not None

    def fails(self, outcome: Outcome) -> str | None:
        """How the outcome differs from what is expected; None when it does not."""
        if self.unjudged:
            return None if outcome.score is None else f"got {outcome.score:g}, must be unjudged"
        if self.expected is None:
            return None
        low, high = self.expected
        wanted = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        if outcome.score is None:
            return f"unjudged ({outcome.reason}), must be {wanted}"
        if low - _TOLERANCE <= outcome.score <= high + _TOLERANCE:
            return None
        return f"got {outcome.score:g}, must be {wanted}" + (f" ({outcome.reason})" if outcome.reason else "")


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSONL file. Raises CasesError naming the line of what is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CasesError(f"the cases in {path} cannot be read: {error}") from error
    cases = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                cases.append(_case(number, json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CasesError(f"{path}, line {number}: {error}; see docs/write_a_reward.md for a row") from error
    if not cases:
        raise CasesError(f"{path} holds no case; write one JSON object a line")
    return cases


def _case(number: int, row: Mapping[str, Any]) -> Case:
    if unknown := sorted(row.keys() - _FIELDS - _IGNORED):
        raise ValueError(f"unknown fields {unknown}; known are {sorted(_FIELDS)}")
    reference = row["reference"]
    text = reference if isinstance(reference, str) else json.dumps(reference)
    prompt = _messages(row.get("prompt", ""))
    thinking, answer = _parts(row)
    closed = answer is not None
    completion = row.get("completion") or (f"{OPEN}{thinking}{CLOSE if closed else ''}" if thinking else "") + (
        answer or ""
    )
    sample = Sample(
        task_key=task_key(prompt, text),
        prompt=prompt,
        reference=text,
        verifier="",
        thinking=thinking,
        answer=answer or "",
        closed=closed,
        text=completion,
        finish=Finish(row.get("finish", "stop" if closed else "length")),
        effort=row.get("effort", "high"),
        meta=dict(row.get("meta", {})),
        group_id=str(row.get("group", f"line {number}")),
    )
    expected = row.get("score")
    return Case(
        line=number,
        sample=sample,
        expected=None if expected is None else _bounds(expected),
        unjudged="score" in row and expected is None,
    )


def _messages(prompt: str | Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (Message(role="user", content=prompt),)
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in prompt)


def _parts(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """Thinking and answer: as the row has them, or cut out of its completion."""
    if "answer" in row:
        return row.get("thinking", ""), row["answer"]
    before, mark, after = row["completion"].rpartition(CLOSE)
    if mark:
        return before.removeprefix(OPEN), after
    is_open = after.startswith(OPEN)
    return (after.removeprefix(OPEN), None) if is_open else ("", after)


def _bounds(expected: Any) -> tuple[float, float]:
    low, high = expected if isinstance(expected, list) else (expected, expected)
    return float(low), float(high)
