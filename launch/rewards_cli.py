"""`ponder rewards`: work on verifiers without a run. One thin command each; what it does has a file of its own.

Imports nothing heavy at the top, as `launch.cli`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="rewards",
    help="Score answers, and examine verifiers, without a training run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def score(
    data: Annotated[Path, typer.Option(help="JSON lines with `reference` and `completion`, optionally `prompt`.")],
    out: Annotated[Path, typer.Option(help="File to write: one row with status, score and reason for each.")],
    verifier: Annotated[str, typer.Option(help="A registered name, package.module:function or file.py:function.")],
    settings: Annotated[str, typer.Option(help="The verifier's settings, as JSON.")] = "{}",
    workers: Annotated[int, typer.Option(min=1, help="Processes that run the verifier.")] = 2,
    max_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds that one answer may take.")] = 3.0,
) -> None:
    """Judge a file of answers as training would.

    Rows are judged in order and safely: an answer that hangs, explodes or crashes the verifier costs only its own row.

    Example:

    ponder rewards score --verifier math --data answers.jsonl --out scores.jsonl
    """
    import json

    from launch import rewards_score

    try:
        parsed = json.loads(settings)
    except ValueError as error:
        raise typer.BadParameter(f"--settings is not JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter(f"--settings must be a JSON object, got {settings}")
    rewards_score.score(
        verifier, data, out, num_workers=workers, max_seconds=max_seconds, settings=parsed, say=typer.echo
    )
