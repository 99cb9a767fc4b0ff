"""alignment.md and the table on the terminal: what the model can do, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from launch.evaluation.markdown import markdown_table, plain
from launch.evaluation.modes_report.rows import MISSING, share_interval

SECTIONS = (
    ("by_source", "source", "By source"),
    ("by_level", "level", "By level, as the tasks name it"),
    ("by_difficulty", "difficulty", "By measured difficulty (the other half of a task's samples places it)"),
)


def render_markdown(results: Mapping[str, Any]) -> str:
    """The whole file."""
    ladder = markdown_table(
        ["k", "pass@k", "majority@k"],
        [
            [k, share_interval(value), share_interval(results["majority@k"][k])]
            for k, value in results["pass@k"].items()
        ],
    )
    parts = ["# Model and tasks before RL", summary(results), verdict(results), "## What can work", _advice(results)]
    parts += ["## pass@k", ladder]
    for key, name, title in SECTIONS:
        if len(results[key]) > 1 or (key == "by_difficulty" and results[key]):
            parts += [f"## {title}", _slices(results[key], name)]
    return "\n\n".join(parts) + "\n"


def summary(results: Mapping[str, Any]) -> str:
    """What was measured, in words."""
    rates, group = results["tasks_by_rate"], results["informative"]
    truncated = results["truncated"] or 0.0
    return (
        f"Policy {plain(results['policy']['name'])}, mode {plain(results['mode'])}: {results['num_tasks']} tasks, "
        f"{results['num_samples']} samples each; {rates['never']} tasks never solved, {rates['sometimes']} sometimes, "
        f"{rates['always']} always; groups of {group['group_size']} with right and wrong answers: "
        f"{share_interval(group)}; answers cut by a limit: {100 * truncated:.1f} %. Brackets are 95 % intervals from "
        "resampling tasks."
    )


def verdict(results: Mapping[str, Any]) -> str:
    """Strong, weak or undecided."""
    found = results["verdict"]
    rule = f"pass@{found['reference_k']} of {100 * found['strong_at']:.0f} %"
    words = {
        "strong": f"a strong pair (at least {rule})",
        "weak": f"a weak pair (below {rule})",
        "undecided": f"undecided between strong and weak ({rule})",
    }
    return f"Verdict: {words[found['pair']]}."


def advice_table(results: Mapping[str, Any]) -> Table:
    """For the terminal."""
    table = Table(title=verdict(results), title_justify="left")
    for heading in ("trick", "advice", "why"):
        table.add_column(heading)
    for row in _advice_rows(results):
        table.add_row(*map(Text, row))
    return table


def _advice_rows(results: Mapping[str, Any]) -> Iterator[list[str]]:
    for advice in results["advice"]:
        yield [advice["trick"], advice["word"], advice["why"]]


def _advice(results: Mapping[str, Any]) -> str:
    return markdown_table(["trick", "advice", "why"], _advice_rows(results))


def _slices(slices: Mapping[str, Any], name: str) -> str:
    ks = list(next(iter(slices.values()))["pass@k"])
    shown = [k for k in ks if k != "1"]
    rows = [
        [label, f"{entry['pass@1']['num_tasks']:,}", share_interval(entry["pass@1"])]
        + [share_interval(entry["pass@k"][k]) if k in entry["pass@k"] else MISSING for k in shown]
        for label, entry in slices.items()
    ]
    return markdown_table([name, "tasks", "pass@1", *(f"pass@{k}" for k in shown)], rows)
