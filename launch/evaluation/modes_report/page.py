"""modes.html: one file with the frontier, the filters and every task's attempts side by side.

It asks for nothing from outside. What a model, a task or a recipe has written reaches the page as JSON in which no tag
can begin, and is put on it as text; a content security policy allows the one script that ships with the page.
Figures travel as columns, texts apart from them, so a page of ten thousand samples opens at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from budgets.evaluation.attempt import Attempt
from budgets.evaluation.per_mode import Measured
from launch.evaluation.modes_report.rows import HEADINGS, table_rows
from rl.report.embed import content_policy, embedded_json, templates
from rollout.schema import Task

MAX_BYTES_OF_TEXTS = 12_000_000  # of all texts together, before escaping
MAX_TEXT = 8_000  # characters of one text
MIN_TEXT = 160
FOLDER = Path(__file__).parent


def render_page(results: Mapping[str, Any], measured: Measured, tasks: Sequence[Task]) -> str:
    """The whole page."""
    script = (FOLDER / "modes.js").read_text(encoding="utf-8")
    attempts = [a for mode in range(len(measured.table.modes)) for a in measured.table.of_mode(mode)]
    limit = text_limit(len(attempts) + len(tasks))
    rows = table_rows(results)
    return (
        templates(FOLDER)
        .get_template("modes.html")
        .render(
            name=results["policy"].get("name") or results["policy"].get("file") or "saved attempts",
            results=results,
            headings=HEADINGS,
            rows=list(zip(results["modes"], rows, strict=True)),
            policy=content_policy([script]),
            style=Markup((FOLDER / "modes.css").read_text(encoding="utf-8")),
            script=Markup(script),
            data=embedded_json(figures(results, measured, tasks, limit)),
            texts=embedded_json(texts(attempts, limit)),
            num_attempts=len(attempts),
            text_limit=limit,
            num_shortened=sum(len(part) > limit for a in attempts for part in (a.thinking_text, a.answer_text)),
        )
    )


def text_limit(num_texts: int) -> int:
    """Characters that each text may have, so that all of them stay within `MAX_BYTES_OF_TEXTS`."""
    return max(MIN_TEXT, min(MAX_TEXT, MAX_BYTES_OF_TEXTS // max(1, 2 * num_texts)))


def shortened(text: str, limit: int) -> str:
    """The beginning and the end of a text that is longer than `limit`, and how much is missing between them."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail]} [... {len(text) - limit:,} characters ...] {text[len(text) - tail :]}"


def figures(results: Mapping[str, Any], measured: Measured, tasks: Sequence[Task], limit: int) -> dict[str, Any]:
    """Everything the script draws from: results, tasks, and the attempts as columns."""
    table = measured.table
    sources = sorted(set(table.sources))
    by_key = {task.key: task for task in tasks}
    columns: dict[str, list[Any]] = {
        name: [] for name in ("m", "t", "k", "ok", "bin", "think", "answer", "finish", "why")
    }
    for mode in range(len(table.modes)):
        for number, row in enumerate(table.attempts[mode]):
            for a in row:
                if a is None:
                    continue
                verdict = -1 if a.correct is None else int(a.correct)
                cells = (mode, number, a.sample, verdict, int(measured.bins[mode, number, a.sample]))
                counts = (a.thinking_tokens, a.answer_tokens) if a.has_response else (None, None)
                why = shortened(a.reason if a.correct is not None else f"{a.status}: {a.reason}", 200)
                for name, value in zip(columns, (*cells, *counts, str(a.finish), why), strict=True):
                    columns[name].append(value)
    return {
        "modes": [_mode_entry(name, report) for name, report in results["modes"].items()],
        "base": results["base"],
        "num_samples": results["num_samples"],
        "sources": sources,
        "bins": results["difficulty_bins"]["names"],
        "tasks": [
            {
                "key": key,
                "source": sources.index(source),
                "prompt": "\n\n".join(shortened(m.content, limit) for m in by_key[key].prompt),
                "reference": shortened(by_key[key].answer, 400),
            }
            for key, source in zip(table.tasks, table.sources, strict=True)
        ],
        "attempts": columns,
    }


def texts(attempts: Sequence[Attempt], limit: int) -> list[list[str | None]]:
    """Thinking and answer of every attempt, in the order of the columns; None where there is none."""
    return [
        [
            None if a.thinking is None else shortened(a.thinking_text, limit),
            None if a.answer is None else shortened(a.answer_text, limit),
        ]
        for a in attempts
    ]


def _mode_entry(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("kind", "promised_thinking_tokens", "pass@1", "pass@k", "majority@k", "thinking_tokens", "by_difficulty")
    return {"name": name, **{key: report[key] for key in kept}}
