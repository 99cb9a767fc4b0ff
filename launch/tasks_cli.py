"""`ponder tasks check`: what the tasks of a recipe repeat. Imports nothing heavy at the top, as `launch.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="tasks", help="Look at the tasks of a recipe.", no_args_is_help=True, rich_markup_mode=None)

FOUND = 1


@app.callback()
def _group() -> None:
    """Look at the tasks of a recipe."""


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(help="A TOML recipe, or a shipped one by name.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be given several times."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the whole report to this file, as JSON.")] = None,
) -> None:
    """Find training tasks that repeat an evaluation task, and copies.

    Exits with 1 when such tasks would be trained on: set tasks.decontaminate to leave them out.

    Example: ponder tasks check quickstart
    """
    from launch import recipe as recipes
    from launch import sessions, tasks_check
    from launch.manifest import write_json
    from launch.terminal import console

    report = tasks_check.check(recipes.load(sessions.find_recipe(recipe), overrides or []))
    if out is not None:
        write_json(out, report)
    terminal = console()
    for line in tasks_check.lines(report):
        terminal.print(line, markup=False, highlight=False)
    if report["overlaps"] and not report["are_left_out"]:
        raise typer.Exit(FOUND)
