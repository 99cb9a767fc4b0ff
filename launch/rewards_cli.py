"""`ponder rewards`: work on verifiers without a run. One thin command each; what it does has a file of its own.

Imports nothing heavy at the top, as `launch.cli`.
"""

from __future__ import annotations

import typer

app = typer.Typer(
    name="rewards",
    help="Score answers, and examine verifiers, without a training run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
