"""One attempt as evaluation keeps it, and the attempts of all modes as arrays.

Axes here: M modes, N tasks, K samples. An entry that does not exist or was not judged is NaN: it is counted apart and
leaves every mean, it is never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rollout.schema import CharSpan, Finish

FloatArray = npt.NDArray[np.float64]
WITHOUT_RESPONSE = frozenset({Finish.PROMPT_TOO_LONG, Finish.ABORTED, Finish.ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """Sample number `sample` of a task in a mode. `correct` and `score` are None where there is no verdict.

    Token counts are of sampled tokens: `thinking_tokens` inside the marks, `answer_tokens` after the closing mark,
    `response_tokens` all of them. `is_estimated` says that the server gave no tokens, so that the split between
    thinking and answer is in proportion to characters.
    """

    task: str
    source: str
    mode: str
    sample: int
    text: str
    thinking: CharSpan | None
    answer: CharSpan | None
    thinking_tokens: int
    answer_tokens: int
    response_tokens: int
    finish: Finish
    status: str
    score: float | None
    correct: bool | None
    reason: str = ""
    is_estimated: bool = False

    @property
    def has_response(self) -> bool:
        return self.finish not in WITHOUT_RESPONSE

    @property
    def thinking_text(self) -> str:
        return "" if self.thinking is None else self.text[self.thinking[0] : self.thinking[1]]

    @property
    def answer_text(self) -> str:
        return "" if self.answer is None else self.text[self.answer[0] : self.answer[1]]

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in FIELDS}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Attempt:
        """Raises KeyError or ValueError for what is no attempt."""
        parts: dict[str, Any] = {name: value[name] for name in FIELDS}
        for name in ("thinking", "answer"):
            parts[name] = None if value[name] is None else (value[name][0], value[name][1])
        return cls(**(parts | {"finish": Finish(value["finish"])}))


FIELDS = tuple(field.name for field in fields(Attempt))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttemptTable:
    """Attempts of all modes on all tasks, in fixed order."""

    modes: tuple[str, ...]
    tasks: tuple[str, ...]
    sources: tuple[str, ...]  # [N]
    attempts: tuple[tuple[tuple[Attempt | None, ...], ...], ...]  # [M][N][K]
    correct: FloatArray  # [M, N, K] 1 right, 0 wrong, NaN unjudged or absent
    thinking: FloatArray  # [M, N, K] tokens, NaN without a response
    answer: FloatArray  # [M, N, K]
    response: FloatArray  # [M, N, K]

    @classmethod
    def of(cls, attempts: Sequence[Attempt], modes: Sequence[str], tasks: Mapping[str, str]) -> AttemptTable:
        """`tasks` maps keys to sources, in order. Attempts of other tasks or modes are left out."""
        mode_at, task_at = {m: i for i, m in enumerate(modes)}, {t: i for i, t in enumerate(tasks)}
        chosen = [a for a in attempts if a.mode in mode_at and a.task in task_at]
        depth = max((a.sample + 1 for a in chosen), default=0)
        cells: list[list[list[Attempt | None]]] = [[[None] * depth for _ in task_at] for _ in mode_at]
        shape = (len(mode_at), len(task_at), depth)
        correct, thinking, answer, response = (np.full(shape, np.nan) for _ in range(4))
        for a in chosen:
            place = mode_at[a.mode], task_at[a.task], a.sample
            cells[place[0]][place[1]][place[2]] = a
            if a.correct is not None:
                correct[place] = a.correct
            if a.has_response:
                thinking[place], answer[place], response[place] = a.thinking_tokens, a.answer_tokens, a.response_tokens
        return cls(
            modes=tuple(modes),
            tasks=tuple(tasks),
            sources=tuple(tasks.values()),
            attempts=tuple(tuple(map(tuple, rows)) for rows in cells),
            correct=correct,
            thinking=thinking,
            answer=answer,
            response=response,
        )

    def of_mode(self, mode: int) -> list[Attempt]:
        """Every attempt that exists in a mode, by task and sample."""
        return [a for row in self.attempts[mode] for a in row if a is not None]
