"""What a person may do to a run while it goes on: pause, save, evaluate, change a setting. Always between two steps.

A setting changes after the weights of a step are live and before its slots are freed, so with max_lag = 0 every job of
the next step is made under it; with more lag, jobs that are out keep what they were made with. Every action goes into
control.jsonl, one line each. A resumed run adopts the changes up to its checkpoint at once and the later ones at the
steps where they were made, so an interruption does not lose them; another run can be given the file to repeat them.

The file knows no sections of settings: what a change means is a callable that `launch` hands in.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rl.ports import State

Action = Literal["set", "pause", "resume", "checkpoint", "evaluate", "trace"]
Adopt = Callable[[Mapping[str, Any]], Awaitable[None]]


class ControlLogError(ValueError):
    """A control.jsonl that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings that hold from the step after `after_step` on, by dotted name."""

    after_step: int
    settings: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Control:
    """The orders that wait for the next boundary. Used from the event loop's thread alone."""

    adopt: Adopt  # make these settings those of the running parts
    log: Path
    scheduled: list[Change] = field(default_factory=list)  # of the log, not reached yet
    wants_checkpoint: bool = False
    wants_evaluation: bool = False
    wants_trace: bool = False  # of the step after the next boundary
    is_paused: bool = False
    _asked: dict[str, Any] = field(default_factory=dict)
    _order: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self, settings: Mapping[str, Any]) -> None:
        """Settings for the next boundary, checked by the caller; a later wish for the same setting replaces it."""
        self._asked |= settings

    def order(self, action: Action, step: int) -> None:
        """Carry it out at the next boundary; at once where the run is paused. Raises ValueError for no such action."""
        match action:
            case "pause":
                self.is_paused = True
            case "resume":
                self.is_paused = False
            case "checkpoint":
                self.wants_checkpoint = True
            case "evaluate":
                self.wants_evaluation = True
            case "trace":
                self.wants_trace = True
            case _:
                raise ValueError(f"{action!r} is no order; give settings to `ask`")
        self.note(action, step)
        self._order.set()

    async def next_order(self) -> None:
        """Return when somebody gave an order since the last call."""
        await self._order.wait()
        self._order.clear()

    def orders_done(self) -> None:
        """What was wanted at this boundary is done, or could not be."""
        self.wants_checkpoint = self.wants_evaluation = False

    async def resume(self, step: int) -> None:
        """Adopt what was changed up to `step`; call when the run was put back there, before it trains."""
        past: dict[str, Any] = {}
        changes = read_changes(self.log)
        for change in changes:
            if change.after_step <= step:
                past |= change.settings
        self.scheduled = [change for change in changes if change.after_step > step]
        if past:
            await self.adopt(past)

    async def at_boundary(self, step: int) -> None:
        """Adopt what was asked for since the last boundary, and what the log says of this one."""
        settings: dict[str, Any] = {}
        for change in self.scheduled:
            if change.after_step == step:
                settings |= change.settings
        self.scheduled = [change for change in self.scheduled if change.after_step > step]
        asked, self._asked = self._asked, {}
        if settings or asked:
            await self.adopt(settings | asked)
        if asked:
            self.note("set", step, settings=asked)

    def note(self, action: Action, step: int, **details: Any) -> None:
        """One line of the log."""
        entry = {"time": round(time.time(), 3), "after_step": step, "action": action, **details}
        with self.log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(entry) + "\n")


def read_log(path: Path) -> list[State]:
    """Every action so far, oldest first. A last line that a crash cut off is no entry.

    Raises ControlLogError naming the line that is none.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            int(entry["after_step"]), str(entry["action"])
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ControlLogError(f"{path} line {number} is no entry of a control log: {error}; remove it") from error
        entries.append(entry)
    return entries


def read_changes(path: Path) -> list[Change]:
    """The changes of settings in a log, in the order in which they were made."""
    return [
        Change(after_step=int(entry["after_step"]), settings=dict(entry["settings"]))
        for entry in read_log(path)
        if entry["action"] == "set"
    ]
