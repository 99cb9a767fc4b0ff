"""The short table at the end of the command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from launch.evaluation.modes_report.rows import HEADINGS, table_rows

SHOWN = ("mode", "pass@1", "against base", "thinking tokens", "of base", "truncated", "unjudged")


def summary_table(results: Mapping[str, Any]) -> Table:
    """The columns that fit a terminal; the files have the rest."""
    table = Table(caption=f"{results['num_tasks']} tasks, {results['num_samples']} samples each; * on the frontier")
    for heading in SHOWN:
        table.add_column(heading, justify="left" if heading == "mode" else "right", no_wrap=True)
    for row in table_rows(results):
        table.add_row(*(Text(row[HEADINGS.index(heading)]) for heading in SHOWN))
    return table
