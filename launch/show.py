"""`ponder show RUN`: recorded attempts in the terminal, one to a screen, with steps colored by score and its reason.

On a terminal it pages: n next, p previous, j and k scroll, q quit. Anywhere else it prints the first `limit` matches.
"""

from __future__ import annotations

import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.console import Group as Stack
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from launch.screen import visible
from rl.record_reader import RecordedTrajectory
from rl.report.trajectories import Attempt, Filter, Piece, attempts

SHADES = ("#b03a20", "#a84a35", "#96574a", "#7d5f58", "#666455", "#4f6f66", "#3b7a6d", "#288271", "#148a75")
OUTCOME_STYLES = {"right": "bold green", "wrong": "bold red"}
ESCAPES = {b"\x1b[A": "k", b"\x1b[B": "j", b"\x1b[C": "n", b"\x1b[D": "p", b"\x1b[5~": "K", b"\x1b[6~": "J"}
DEFAULT_LIMIT = 10
_KEYS_HINT = "n next   p previous   j/k scroll   q quit"


class Pager:
    """Which attempt is shown and how far it is scrolled; attempts are read from disk as they are reached."""

    def __init__(self, source: Iterator[Attempt]) -> None:
        self._source = source
        self._seen: list[Attempt] = []
        self._index = 0
        self.offset = 0
        self._fetch(1)

    @property
    def current(self) -> Attempt | None:
        """The attempt on the screen; None when nothing matches."""
        return self._seen[self._index] if self._seen else None

    @property
    def number(self) -> int:
        """Position of the current attempt, from 1."""
        return self._index + 1

    def press(self, key: str, *, page: int, num_lines: int) -> bool:
        """Obey a key on a screen of `page` lines showing `num_lines` lines of text; False means quit."""
        furthest = max(num_lines - page, 0)
        match key:
            case "q" | "\x03" | "\x04" | "":
                return False
            case "n" | " " | "\r":
                self._fetch(self._index + 2)
                self._go(min(self._index + 1, len(self._seen) - 1))
            case "p":
                self._go(max(self._index - 1, 0))
            case "j":
                self.offset = min(self.offset + 1, furthest)
            case "k":
                self.offset = max(self.offset - 1, 0)
            case "J":
                self.offset = min(self.offset + page, furthest)
            case "K":
                self.offset = max(self.offset - page, 0)
        return True

    def _go(self, index: int) -> None:
        if index != self._index and index >= 0:
            self._index, self.offset = index, 0

    def _fetch(self, count: int) -> None:
        while len(self._seen) < count and (attempt := next(self._source, None)) is not None:
            self._seen.append(attempt)


def show(directory: Path, wanted: Filter, *, console: Console, limit: int | None = None) -> int:
    """Page through, or print, the attempts of the run in `directory` that `wanted` admits; return how many were shown.

    With a `limit`, and when either end is no terminal, it prints. Raises ValueError when the run has no such attempt.
    """
    found = attempts(directory, wanted)
    first = next(found, None)
    if first is None:
        raise ValueError(f"no recorded attempt of {directory} matches {described(wanted)}; leave out a filter")
    source = _chain(first, found)
    if limit is None and console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty():
        return _page(Pager(source), wanted, console)
    return _print(source, limit or DEFAULT_LIMIT, console)


def described(wanted: Filter) -> str:
    """The filters in words, as they are given on the command line."""
    given = {
        "effort": wanted.effort,
        "outcome": wanted.outcome,
        "step": wanted.step,
        "fate": wanted.fate,
        "task": wanted.task,
    }
    return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None) or "(no filter)"


def attempt_view(attempt: Attempt) -> Stack:
    """One attempt as rich text. Whatever a model or a data set wrote passes through `visible`."""
    group, trajectory = attempt.group, attempt.trajectory
    head = Text.assemble(
        (f" {attempt.outcome} ", OUTCOME_STYLES.get(attempt.outcome, "bold yellow")),
        (f" step {group.fate.step} ", "bold"),
        f" {group.effort} effort   {attempt.fate}   ",
        (visible(f"{group.source} / {group.task_key}, sibling {trajectory.sibling}"), "dim"),
    )
    body = Table.grid(padding=(0, 2))
    body.add_column(width=11, style="dim")
    body.add_column(overflow="fold")
    if group.instruction:
        body.add_row("instruction", _plain(group.instruction))
    for role, content in group.prompt:
        body.add_row(role, _plain(content))
    body.add_row("thinking", colored(attempt.thinking))
    steps = [piece for piece in (*attempt.thinking, *attempt.answer) if piece.step is not None]
    if steps:
        body.add_row("steps", _verdicts(steps, trajectory.scorer or ""))
    none_given = Text("none: thinking was never closed", style="yellow")
    body.add_row("answer", none_given if trajectory.answer is None else colored(attempt.answer))
    body.add_row("reference", _plain(group.reference))
    body.add_row("outcome", _outcome(attempt))
    body.add_row("reward", _reward(attempt))
    body.add_row("tokens", f"{trajectory.num_thinking_tokens} thinking, {attempt.num_response_tokens} response")
    body.add_row("weights", f"{_versions(trajectory)}, finish {trajectory.finish}")
    if trajectory.error:
        body.add_row("error", _plain(trajectory.error))
    return Stack(head, Text(), body)


def _versions(trajectory: RecordedTrajectory) -> str:
    later = [f"{version} from token {place}" for place, version in trajectory.version_switches.items()]
    return f"version {', '.join([str(trajectory.version_start), *later])}"


def colored(pieces: Sequence[Piece]) -> Text:
    """A text with every scored step on the color of its score; a step that could not be judged is underlined."""
    text = Text()
    for piece in pieces:
        style = Style()
        if piece.shade is not None:
            style = Style(color="#ffffff", bgcolor=SHADES[piece.shade])
        elif piece.step is not None:
            style = Style(underline=True)
        text.append(visible(piece.text), style=style)
    text.rstrip()
    return text


def _verdicts(steps: Sequence[Piece], scorer: str) -> Text:
    """Every step's score in order, with its note; readable without color."""
    lines = []
    for piece in steps:
        score = "not judged" if piece.score is None else f"{piece.score:.2f}"
        lines.append(f"{piece.step}: {score}" + (f" ({visible(piece.note)})" if piece.note else ""))
    return Text.assemble(" | ".join(lines), (f"   by {visible(scorer)}", "dim"))


def _outcome(attempt: Attempt) -> Text:
    trajectory = attempt.trajectory
    score = "no score" if trajectory.score is None else f"score {trajectory.score:g}"
    reason = f": {trajectory.outcome_reason}" if trajectory.outcome_reason else ""
    return _plain(f"{trajectory.status}, {score}{reason}")


def _reward(attempt: Attempt) -> Text:
    trajectory = attempt.trajectory
    fields = ["none" if trajectory.reward is None else f"{trajectory.reward:.3f}"]
    fields += [f"{name} {value:g}" for name, value in trajectory.parts.items()]
    fields += [f"{name} {value:+.3f}" for name, value in trajectory.shaped.items()]
    if trajectory.advantage_mean is not None:
        low, mean, high = trajectory.advantage_min, trajectory.advantage_mean, trajectory.advantage_max
        fields.append(f"advantage {mean:+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if low != high else ""))
    return _plain("   ".join(fields))


def _plain(text: str) -> Text:
    return Text(visible(text))


def _print(source: Iterator[Attempt], limit: int, console: Console) -> int:
    number = 0
    for number, attempt in enumerate(source, start=1):
        console.print(attempt_view(attempt), highlight=False)
        console.print()
        if number == limit:
            break
    more = next(source, None) is not None
    console.print(f"{number} shown" + ("; more match, see --limit" if more else ""), style="dim", highlight=False)
    return number


def _page(pager: Pager, wanted: Filter, console: Console) -> int:
    last = 0
    with console.screen(hide_cursor=True), _raw_keys() as read_key:
        while (attempt := pager.current) is not None:
            last = max(last, pager.number)
            lines = console.render_lines(attempt_view(attempt), console.options.update(height=None), pad=False)
            page = max(console.height - 1, 1)
            _draw(console, lines[pager.offset : pager.offset + page], page, f"{pager.number}  {described(wanted)}")
            if not pager.press(read_key(), page=page, num_lines=len(lines)):
                break
    return last


def _draw(console: Console, lines: list[list[Segment]], page: int, status: str) -> None:
    """Fill the screen with `lines`, and its last line with the status."""
    console.clear()
    for line in lines:
        console.print(Segments([*line, Segment.line()]), end="")
    console.print("\n" * (page - len(lines)), end="")
    console.print(Text(f"{status}   {_KEYS_HINT}"[: console.width - 1], style="reverse"), end="")


@contextmanager
def _raw_keys() -> Iterator[Callable[[], str]]:
    """A reader of single keys while the terminal hands them over at once; its settings are restored at the end."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        yield lambda: _key(os.read(handle, 8))
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)


def _key(pressed: bytes) -> str:
    return ESCAPES.get(pressed, pressed[:1].decode(errors="replace"))


def _chain(first: Attempt, rest: Iterator[Attempt]) -> Iterator[Attempt]:
    yield first
    yield from rest
