"""forgetting.json, chain.md, chain.html and the table on the terminal: accuracy on every suite after every stage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from budgets.evaluation.forgetting import Row, forgetting_matrix
from launch.chain.resolve import Chain
from launch.chain.suites import Suites
from launch.evaluation.markdown import markdown_table, plain
from launch.evaluation.modes_report.rows import MISSING, share_interval
from launch.manifest import write_json
from rl.report.embed import content_policy, templates

FOLDER = Path(__file__).parent
DEEPEST = 0.3  # drop or gain of accuracy that has the fullest color


def results_of(chain: Chain, rows: Mapping[str, Row], suites: Suites) -> dict[str, Any]:
    """The forgetting matrix of the rows that are there, with what it was measured under."""
    section = chain.config.chain
    return {
        "chain": section.name,
        "mode": section.mode or next(iter(chain.base.budgets.efforts)),
        "samples": section.samples,
        "temperature": section.temperature,
        "num_tasks": {name: len(tasks) for name, tasks in suites.items()},
        **forgetting_matrix(rows, list(suites), seed=section.seed),
    }


def write(root: Path, results: Mapping[str, Any]) -> None:
    """All three files."""
    write_json(root / "forgetting.json", results)
    for name, text in (("chain.md", render_markdown(results)), ("chain.html", render_page(results))):
        aside = root / f".{name}.part"
        aside.write_text(text, encoding="utf-8")
        aside.replace(root / name)


def tell(results: Mapping[str, Any], console: Console) -> None:
    """The matrix, and how much was forgotten."""
    table = Table(caption=caption(results), caption_justify="left")
    for heading in ("after", *results["suites"]):
        table.add_column(heading, justify="left" if heading == "after" else "right")
    for name, cells in table_rows(results):
        table.add_row(Text(name), *(Text(cell) for cell in cells))
    console.print(table)


def summary(results: Mapping[str, Any]) -> str:
    """What was measured, in words."""
    sizes = ", ".join(f"{name} {count}" for name, count in results["num_tasks"].items())
    return (
        f"Accuracy on suites that are never trained on (tasks: {sizes}), mode {results['mode']}, "
        f"{results['samples']} sample(s) a task at temperature {results['temperature']:g}. Brackets are 95 % intervals "
        "from resampling tasks; a drop is against the best row before it, paired by task."
    )


def caption(results: Mapping[str, Any]) -> str:
    """Forgetting in one number."""
    found = results["forgetting"]
    if found is None:
        return "Forgetting: not measured yet."
    return f"Forgetting after the last row: {100 * found:.1f} points, the mean over suites of best minus last."


def table_rows(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """Each row's name and its cells."""
    for row in results["rows"]:
        yield row["stage"], [_cell(row["suites"][suite]) for suite in results["suites"]]


def render_markdown(results: Mapping[str, Any]) -> str:
    """The whole file."""
    headings = ["after", *map(plain, results["suites"])]
    table = markdown_table(headings, ([name, *cells] for name, cells in table_rows(results)))
    title = f"# Chain {plain(results['chain'])}: what each stage gained and forgot"
    return "\n\n".join([title, summary(results), table, caption(results)]) + "\n"


def render_page(results: Mapping[str, Any]) -> str:
    """chain.html: one file without a script; names are put on it as text."""
    style = (FOLDER.parents[1] / "evaluation/modes_report/modes.css").read_text(encoding="utf-8")
    return (
        templates(FOLDER)
        .get_template("chain.html")
        .render(
            results=results,
            summary=summary(results),
            caption=caption(results),
            rows=[_page_row(row, results["suites"]) for row in results["rows"]],
            policy=content_policy([]),
            style=Markup(style),
        )
    )


def _page_row(row: Mapping[str, Any], suites: Sequence[str]) -> dict[str, Any]:
    cells = []
    for suite in suites:
        entry = row["suites"][suite]
        drop = 0.0 if entry["drop"] is None else entry["drop"]["value"] or 0.0
        cells.append({"text": share_interval(entry["accuracy"]), "drop": _drop(entry["drop"]), "color": _color(drop)})
    return {"name": row["stage"], "cells": cells}


def _color(drop: float) -> str:
    """Red for what was forgotten, green for what was gained."""
    hue = "200, 60, 40" if drop > 0 else "40, 140, 80"
    return f"rgba({hue}, {min(1.0, abs(drop) / DEEPEST):.2f})"


def _cell(entry: Mapping[str, Any]) -> str:
    """`62.0 % [55.2, 68.5], drop 3.0 [0.5, 5.5]`."""
    drop = _drop(entry["drop"])
    return share_interval(entry["accuracy"]) + (f", {drop}" if drop else "")


def _drop(drop: Mapping[str, Any] | None) -> str:
    if drop is None:
        return ""
    if drop["value"] is None:
        return f"drop {MISSING}"
    value, low, high = (100 * drop[name] for name in ("value", "low", "high"))
    if value < 0:
        return f"gain {-value:.1f} [{-high:.1f}, {-low:.1f}]"
    return f"drop {value:.1f} [{low:.1f}, {high:.1f}] since {plain(drop['best_after'])}"
