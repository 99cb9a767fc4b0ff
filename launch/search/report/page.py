"""search.html and search.md: the results as a plot and tables. Nothing in them is code: the page has no script."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from launch.evaluation.markdown import markdown_table, plain
from launch.evaluation.modes_report.rows import MISSING, share_interval
from launch.search.report.plot import draw
from launch.search.spread import in_words
from rl.report.embed import content_policy, templates

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
    table = markdown_table(HEADINGS, table_rows(results))
    return "\n\n".join(["# Search with step scores", summary(results), table]) + "\n"


def summary(results: Mapping[str, Any]) -> str:
    """What was compared, in words."""
    return (
        f"Policy {plain(results['policy']['name'])}, effort {plain(results['effort'])}: {results['num_tasks']} tasks, "
        f"{results['num_samples']} samples each; step scores as {results['aggregate']}, {results['unscored']} "
        "solutions without a score. Brackets are 95 % intervals from resampling tasks; differences to majority voting "
        "are paired, at equal generated tokens. pass@n is what a perfect choice would give."
    ) + in_words(results["coreset"])


def render_page(results: Mapping[str, Any]) -> str:
    """The whole page."""
    style = (FOLDER.parents[1] / "evaluation/modes_report/modes.css").read_text(encoding="utf-8")
    return (
        templates(FOLDER)
        .get_template("search.html")
        .render(
            results=results,
            summary=summary(results).replace("\\", ""),
            headings=HEADINGS,
            rows=table_rows(results),
            plot=draw(results["methods"]),
            policy=content_policy([]),
            style=Markup(style),
        )
    )
