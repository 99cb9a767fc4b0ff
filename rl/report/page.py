"""The report as one self-contained HTML file: no network, no server, safe against whatever a model has written.

Texts reach the page through jinja2 with autoescape on, figures as JSON in which no tag can begin. A content security
policy allows only the two scripts shipped with it, by their hashes: even markup that slipped through could not run.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup
from plotly.offline import get_plotlyjs

from rl.report.curves import ranked_names
from rl.report.data import MODES, EvalPoint, RunData, load_run
from rl.report.embed import content_policy, embedded_json, templates
from rl.report.plots import accuracy_figures, curve_figures
from rl.report.trajectories import Attempt, Piece, sample

MAX_ATTEMPTS = 240
MAX_TEXT = 6_000  # characters of one text, above which its end is left out
MAX_NOTE = 400  # characters of a note, a reason or a reference
MAX_BYTES_OF_ATTEMPTS = 2_000_000  # of all cards together, escaped
MAX_JSON = 100_000  # characters of the configuration, and of the manifest
FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One attempt with its texts shortened to what the page has room for."""

    attempt: Attempt
    prompt: tuple[tuple[str, str], ...]
    thinking: tuple[Piece, ...]
    answer: tuple[Piece, ...]
    reference: str
    reason: str
    error: str

    @property
    def num_bytes(self) -> int:
        """Size of its texts in the page."""
        pieces = (*self.thinking, *self.answer)
        texts = [content for _, content in self.prompt] + [text for p in pieces for text in (p.text, p.note)]
        markup = 1_200 + 120 * len(pieces)
        return markup + sum(len(html.escape(t).encode()) for t in (*texts, self.reference, self.reason, self.error))


def write_report(directory: Path, target: Path) -> None:
    """Write the report of the run in `directory` to `target`, aside first: a browser never opens half a page."""
    aside = target.with_name(f".{target.name}.part")
    aside.write_text(render(load_run(directory), sample(directory, num_attempts=MAX_ATTEMPTS)), encoding="utf-8")
    aside.replace(target)


def render(run: RunData, attempts: Sequence[Attempt]) -> str:
    """The whole page."""
    environment = templates(FOLDER)
    environment.filters |= {"percent": _percent, "number": _number, "signed": _signed, "duration": _duration}
    # Shipped with the page, not made from a run: the only markup that is not escaped.
    scripts = [get_plotlyjs(), (FOLDER / "report.js").read_text(encoding="utf-8")]
    cards = within_budget(card_of(attempt) for attempt in attempts)
    accuracy = accuracy_figures(run.before, run.after)
    curves = curve_figures(run)
    return environment.get_template("report.html").render(
        run=run,
        name=run.directory.resolve().name,
        policy=content_policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup((FOLDER / "report.css").read_text(encoding="utf-8")),
        figures=embedded_json({f"accuracy-{mode}": figure for mode, figure in accuracy.items()} | _by_slot(curves)),
        accuracy_modes=list(accuracy),
        curve_titles=list(curves),
        rows=comparison(run),
        cards=cards,
        num_left_out=len(attempts) - len(cards),
        choices=_choices(cards),
        total_seconds=sum(run.phases.values()),
        config=_pretty(run.config),
        manifest=_pretty(run.manifest),
        versions=_versions(run.manifest),
    )


def card_of(attempt: Attempt) -> Card:
    """The card of an attempt."""
    return Card(
        attempt=attempt,
        prompt=tuple((role, _shorten(content)) for role, content in attempt.group.prompt),
        thinking=shortened(attempt.thinking),
        answer=shortened(attempt.answer),
        reference=_shorten(attempt.group.reference, MAX_NOTE),
        reason=_shorten(attempt.trajectory.outcome_reason, MAX_NOTE),
        error=_shorten(attempt.trajectory.error or "", MAX_NOTE),
    )


def shortened(pieces: Sequence[Piece], limit: int = MAX_TEXT) -> tuple[Piece, ...]:
    """The first `limit` characters of a text in pieces, and a last piece that says how many were left out."""
    kept: list[Piece] = []
    room = limit
    for piece in pieces:
        if len(piece.text) > room:
            rest = sum(len(p.text) for p in pieces) - limit
            return (*kept, Piece(text=f"{piece.text[:room]} [{rest:,} more characters]"))
        kept.append(replace(piece, note=_shorten(piece.note, MAX_NOTE)))
        room -= len(piece.text)
    return tuple(kept)


def within_budget(cards: Iterable[Card], limit: int = MAX_BYTES_OF_ATTEMPTS) -> list[Card]:
    """The cards that fit into `limit` bytes: all if they do, otherwise as many as fit, evenly over the run."""
    every = list(cards)
    total = sum(card.num_bytes for card in every)
    if total <= limit:
        return every
    kept: list[Card] = []
    room, seen = limit, 0
    for card in every:
        seen += card.num_bytes
        due = limit * seen / total  # bytes that the cards up to here may have taken
        if card.num_bytes <= min(room, due - (limit - room)):
            kept.append(card)
            room -= card.num_bytes
    return kept


def comparison(run: RunData) -> list[tuple[str, str, EvalPoint | None, EvalPoint | None]]:
    """Rows (effort, decoding mode, before, after) of the table."""
    shown = [e for e in (run.before, run.after) if e is not None]
    places = {place for e in shown for place in e.points}
    return [
        (
            effort,
            mode,
            None if run.before is None else run.before.points.get((effort, mode)),
            None if run.after is None else run.after.points.get((effort, mode)),
        )
        for mode in MODES
        for effort in ranked_names([effort for effort, other in places if other == mode])
    ]


def _by_slot(curves: Mapping[str, Any]) -> dict[str, Any]:
    return {f"curve-{number}": figure for number, figure in enumerate(curves.values())}


def _choices(cards: Sequence[Card]) -> dict[str, list[str]]:
    return {
        "effort": ranked_names([card.attempt.group.effort for card in cards]),
        "outcome": ranked_names([card.attempt.outcome for card in cards], ("right", "wrong")),
        "fate": ranked_names([card.attempt.fate for card in cards], ("trained",)),
    }


def _versions(manifest: Mapping[str, Any]) -> dict[str, str]:
    """Library versions of the newest session."""
    sessions = manifest.get("sessions", [])
    return dict(sessions[-1]["versions"]) if sessions else {}


def _pretty(value: Mapping[str, Any]) -> str:
    return _shorten(json.dumps(value, indent=2, ensure_ascii=False), MAX_JSON)


def _shorten(text: str, limit: int = MAX_TEXT) -> str:
    return text if len(text) <= limit else f"{text[:limit]} [{len(text) - limit:,} more characters]"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _number(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and value == int(value) else f"{value:,.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
