"""search.html and search.md: the results as a plot and tables. Nothing in them is code: the page has no script."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from launch.evaluation.modes_report.rows import MISSING, share_interval
from launch.search.report.plot import draw
from launch.search.spread import in_words
from rl.report.embed import content_policy

FOLDER = Path(__file__).parent
HEADINGS = ("method", "accuracy", "tokens a task", "against majority at equal tokens")


def table_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row of texts per method."""
    return [_row(name, method) for name, method in results["methods"].items()]


def _row(name: str, method: Mapping[str, Any]) -> list[str]:
    gain, tokens = method["gain_over_majority"], method["tokens"]
    against = MISSING
    if gain is not None and gain["value"] is not None:
        against = f"{100 * gain['value']:+.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
    return [name, share_interval(method["accuracy"]), MISSING if tokens is None else f"{tokens:,.0f}", against]


def render_markdown(results: Mapping[str, Any]) -> str:
    """The whole file."""
    lines = [HEADINGS, ["---", *["---:"] * (len(HEADINGS) - 1)]]
    table = [*lines, *([_cell(row[0]), *row[1:]] for row in table_rows(results))]
    return "\n\n".join(["# Search with step scores", summary(results), _joined(table)]) + "\n"


def summary(results: Mapping[str, Any]) -> str:
    """What was compared, in words."""
    return (
        f"Policy {_cell(results['policy']['name'])}, effort {_cell(results['effort'])}: {results['num_tasks']} tasks, "
        f"{results['num_samples']} samples each; step scores as {results['aggregate']}, {results['unscored']} "
        "solutions without a score. Brackets are 95 % intervals from resampling tasks; differences to majority voting "
        "are paired, at equal generated tokens. pass@n is what a perfect choice would give."
    ) + in_words(results["coreset"])


def render_page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = (FOLDER.parents[1] / "evaluation/modes_report/modes.css").read_text(encoding="utf-8")
    return environment.get_template("search.html").render(
        results=results,
        summary=summary(results).replace("\\", ""),
        headings=HEADINGS,
        rows=table_rows(results),
        plot=draw(results["methods"]),
        policy=content_policy([]),
        style=Markup(style),
    )


def _joined(table: list[Any]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in table)


def _cell(text: str) -> str:
    """Names come from the command line and from recipes: nothing in them may end a cell or become markup."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", " ".join(str(text).split()))
