"""`ponder prm`: label steps, train a step scorer, measure one. One thin command each.

Imports nothing heavy at the top, as `launch.cli`.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="prm",
    help="Process rewards: label the steps of solutions, train a step scorer on labels, measure one.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one setting of the job; may be given several times."),
]


class Method(StrEnum):
    """How steps are labelled; `prm.label.settings` explains each."""

    COMPLETION = "completion"
    SEARCH = "search"
    GROW = "grow"
    TREE = "tree"
    EXACT = "exact"
    OUTCOME = "outcome"
    ENSEMBLE = "ensemble"


@app.command()
def label(
    source: Annotated[str, typer.Argument(help="A run, a recipe, or a file of solutions (for exact and ensemble).")],
    out: Annotated[Path, typer.Option(help="File to write, .jsonl or .parquet.")],
    method: Annotated[Method, typer.Option(help="What a label says.")] = Method.COMPLETION,
    model: Annotated[Path | None, typer.Option(help="Model that solves and completes; the run's newest.")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="So many tasks.")] = 100,
    split: Annotated[str, typer.Option(help="train or held_out.")] = "train",
    effort: Annotated[str | None, typer.Option(help="Effort of the solutions; the first by default.")] = None,
    settings: Settings = None,
    recipe_settings: Annotated[
        list[str] | None, typer.Option("--recipe-set", metavar="SECTION.KEY=VALUE", help="Change the recipe.")
    ] = None,
    url: Annotated[str, typer.Option(help="ensemble: an OpenAI-compatible service.")] = "http://127.0.0.1:8000/v1",
    reader: Annotated[str, typer.Option(help="ensemble: name of the model there.")] = "",
    key_variable: Annotated[str, typer.Option(help="ensemble: environment variable with the key.")] = "",
) -> None:
    """Label the steps of solutions. A stopped job goes on where it was.

    Examples:

    ponder prm label runs/quickstart --out labels.jsonl --tasks 200 --set completions=8

    ponder prm label solutions.jsonl --out labels.jsonl --method ensemble --reader my-model --url http://host:8000/v1
    """
    import asyncio
    import json

    from launch.prm_tools import label as prm_label
    from launch.terminal import console

    if split not in ("train", "held_out"):
        raise typer.BadParameter(f"--split is train or held_out, got {split!r}")
    if method is Method.ENSEMBLE:
        from launch.prm_ports import ChatCritic
        from prm.label.ensemble import EnsembleSettings

        if not reader:
            raise typer.BadParameter("--method ensemble needs --reader, the name of the model at --url")
        critic = ChatCritic(url, reader, key_variable=key_variable)
        work = prm_label.label_file_by_ensemble(Path(source), out, critic, EnsembleSettings(), console())
        summary = asyncio.run(work)
    elif method is Method.EXACT and Path(source).is_file() and Path(source).suffix != ".toml":
        chain = prm_label.settings_of("exact", settings or []).chain
        summary = prm_label.label_file_exactly(Path(source), out, chain=chain)
    else:
        config, found = prm_label.open_source(source, model, recipe_settings or [])
        job = prm_label.LabelJob(
            source=source,
            out=out,
            settings=prm_label.settings_of(method.value, settings or [], config),
            model=model,
            num_tasks=tasks,
            split=split,
            effort=effort,
            overrides=recipe_settings or [],
        )
        summary = prm_label.label(job, config, found, console())
    typer.echo(json.dumps({k: v for k, v in summary.items() if k != "job"}, indent=1))


@app.command()
def train(
    data: Annotated[list[Path], typer.Argument(help="Files of labels, in any format that is known.")],
    model: Annotated[Path, typer.Option(help="Language model to start from.")],
    out: Annotated[Path, typer.Option(help="Directory to write; out/best is the model.")],
    held_out: Annotated[
        Path | None, typer.Option(help="Labels to evaluate on; a share of the rows by default.")
    ] = None,
    causal: Annotated[int, typer.Option(min=0, help="Copies of each row with a planted, verified error.")] = 0,
    neutral: Annotated[bool, typer.Option(help="Copies with fillers that must not change a score.")] = False,
    settings: Settings = None,
) -> None:
    """Train a step scorer on labels, with early stop and calibration. A stopped training goes on where it was.

    Example:

    ponder prm train labels.jsonl --model models/smollm2 --out prm --set kind=discriminative --set labels=soft
    """
    from launch.prm_tools import train as prm_train

    prm_train.train(
        data, model, out, prm_train.config_of(settings or []), held_out=held_out, causal=causal, neutral=neutral,
        say=typer.echo,
    )  # fmt: skip


class Format(StrEnum):
    """What files of labels can be written as."""

    PONDER = "ponder"
    PROCESSBENCH = "processbench"
    PRMBENCH = "prmbench"
    PRM800K = "prm800k"
    MATH_SHEPHERD = "math_shepherd"


@app.command()
def convert(
    data: Annotated[Path, typer.Argument(help="Labels in any format that is known.")],
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, and .parquet for our own format.")],
    to: Annotated[Format, typer.Option(help="Format to write.")] = Format.PONDER,
) -> None:
    """Write labels in another format; rows that it cannot express are left out and counted.

    Example:

    ponder prm convert labels.jsonl --to processbench --out bench.jsonl
    """
    from prm.data import write_rows
    from prm.formats import read_any, write_as

    found, rows = read_any(data)
    written = write_rows(out, rows) if to is Format.PONDER else write_as(to.value, out, rows)
    left_out = f", {len(rows) - written} left out: {to.value} cannot express them" if written < len(rows) else ""
    typer.echo(f"{written} rows from {found} to {to.value}{left_out}")


@app.command("eval")
def evaluate(
    data: Annotated[Path, typer.Option(help="Labels: ProcessBench, PRMBench, PRM800K, Math-Shepherd, or ours.")],
    model: Annotated[str | None, typer.Option(help="Model directory; exact arithmetic if not given.")] = None,
    reference: Annotated[str | None, typer.Option(help="Reference of an implicit model.")] = None,
    chain: Annotated[bool, typer.Option(help="Exact arithmetic: each step rewrites the one before it.")] = False,
    threshold: Annotated[float | None, typer.Option(help="Scores below are errors; tuned if not given.")] = None,
    tune_on: Annotated[str | None, typer.Option(help="Split (source) to tune the threshold on, such as gsm8k.")] = None,
    tuning_data: Annotated[Path | None, typer.Option(help="File to tune the threshold on.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    max_tokens: Annotated[int, typer.Option(min=8, help="Longest solution that is read.")] = 4096,
) -> None:
    """Measure a step scorer: first-error F1 (ProcessBench), PRMBench, AUC by position, calibration, best of N.

    Example:

    ponder prm eval --data processbench.jsonl --model prm/best --tune-on gsm8k
    """
    import json

    from launch.prm_tools import evaluate as prm_eval

    options = prm_eval.EvalOptions(
        data=data,
        model=model,
        reference=reference,
        chain=chain,
        threshold=threshold,
        tuned_on=tune_on,
        tuning_data=tuning_data,
        device=device,
        max_tokens=max_tokens,
    )
    figures = prm_eval.evaluate(options, lambda _: None)
    if out is not None:
        prm_eval.write(figures, out)
    typer.echo(json.dumps(figures, indent=1))
