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


@app.command()
def predict(
    text: Annotated[list[str], typer.Option(help="A text file, or a pattern; may be given several times.")],
    proxy: Annotated[
        Path, typer.Option(help="Model directory: the frozen model whose uncertainty chooses the tokens.")
    ],
    out: Annotated[Path, typer.Option(help="Beginning of the two files: OUT.tasks.jsonl and OUT.texts.jsonl.")],
    chunk: Annotated[int, typer.Option(min=8, help="Most tokens of a passage.")] = 256,
    per_chunk: Annotated[int, typer.Option(min=1, help="Most tasks of a passage.")] = 4,
    skip: Annotated[float, typer.Option(min=0, max=0.99, help="Share of the least uncertain tokens left out.")] = 0.7,
    tiers: Annotated[int, typer.Option(min=2, max=100, help="Tiers of uncertainty.")] = 3,
    least_context: Annotated[int, typer.Option(min=1, help="Tokens that a task begins with at least.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Draws the tasks of a passage.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Make tasks of predicting the uncertain tokens of a text, and the text to learn beside them.

    Example: ponder tasks predict --text 'data/*.txt' --proxy models/smollm2 --out data/rmt
    """
    from launch.model_dir import check_model
    from launch.next_token import PredictOptions, make
    from launch.terminal import console

    terminal = console()
    check_model(proxy, setting="--proxy")
    options = PredictOptions(
        paths=text,
        proxy=proxy,
        out=out,
        chunk_tokens=chunk,
        per_chunk=per_chunk,
        skip=skip,
        num_tiers=tiers,
        least_context=least_context,
        seed=seed,
        device=device,
        dtype=dtype,
    )
    report = make(options, lambda line: terminal.print(line, markup=False, highlight=False))
    for name, value in report.items():
        terminal.print(f"{name}: {value}", markup=False, highlight=False)
