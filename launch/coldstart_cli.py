"""`ponder coldstart METHOD`: solutions for a cold start, made by a policy and verified.

Imports nothing heavy at the top, as `launch.cli`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="coldstart",
    help="Make cold-start solutions for thinking modes: sampled from a policy, verified, balanced, decontaminated.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Policy = Annotated[str, typer.Option(help="A run, a model directory, or a model's name: who writes the solutions.")]
Out = Annotated[Path, typer.Option(help="Task file to write (.jsonl); a report is written beside it.")]
Recipe = Annotated[str | None, typer.Option(help="Recipe for format, efforts, tasks and verifier.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many training tasks.")]
Samples = Annotated[int, typer.Option(min=1, help="Attempts per task and effort.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the samples.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Sampling temperature; the recipe's if not given.")]
Against = Annotated[
    list[str] | None,
    typer.Option(help="File or recipe whose tasks must not be shown; the recipe's held-out tasks never are."),
]
EasyAbove = Annotated[float, typer.Option(min=0, max=1, help="Success rate above which a task counts as easy.")]
Thorough = Annotated[str | None, typer.Option(help="Effort that thinks; the first of the recipe by default.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be given several times."),
]


@app.command()
def thinkdial(
    policy: Policy,
    out: Out,
    recipe: Recipe = None,
    ratio: Annotated[
        list[str] | None, typer.Option(metavar="EFFORT=SHARE", help="Share of the thinking to keep; high=1, ... .")
    ] = None,
    remark: Annotated[
        list[str] | None, typer.Option(metavar="EFFORT=TEXT", help="Closing remark after the cut; may be empty.")
    ] = None,
    limit: Limit = None,
    samples: Samples = 4,
    temperature: Temperature = None,
    against: Against = None,
    seed: Seed = 0,
    overrides: Overrides = None,
) -> None:
    """Cut long chains to a share of their length and let the policy answer from there (ThinkDial).

    Example: ponder coldstart thinkdial --policy runs/peak --ratio high=1 --ratio medium=0.5 --ratio low=0.25
    --out data/thinkdial.jsonl
    """
    from launch import coldstart
    from launch.terminal import console

    method = coldstart.thinkdial(_pairs(ratio, "--ratio"), _pairs(remark, "--remark"), samples)
    coldstart.run(
        method,
        coldstart.Options(policy, out, recipe, limit, temperature, tuple(against or ()), seed, tuple(overrides or ())),
        console(),
    )


@app.command()
def adactrl(
    policy: Policy,
    out: Out,
    recipe: Recipe = None,
    thorough: Thorough = None,
    brief: Annotated[str | None, typer.Option(help="Effort for short answers to easy tasks, beside thorough.")] = None,
    easy_above: EasyAbove = 0.625,
    limit: Limit = None,
    samples: Samples = 8,
    temperature: Temperature = None,
    against: Against = None,
    seed: Seed = 0,
    overrides: Overrides = None,
) -> None:
    """Solutions that begin with [Easy] or [Hard], sized to the tag (AdaCtrl), for efforts auto, easy and hard."""
    from launch import coldstart
    from launch.terminal import console

    coldstart.run(
        coldstart.adactrl(thorough, brief, samples, easy_above),
        coldstart.Options(policy, out, recipe, limit, temperature, tuple(against or ()), seed, tuple(overrides or ())),
        console(),
    )


@app.command("five-modes")
def five_modes(
    policy: Policy,
    out: Out,
    recipe: Recipe = None,
    thorough: Thorough = None,
    easy_above: EasyAbove = 0.625,
    limit: Limit = None,
    samples: Samples = 8,
    temperature: Temperature = None,
    against: Against = None,
    seed: Seed = 0,
    overrides: Overrides = None,
) -> None:
    """Solutions with thinking, without, and deciding oneself (Keye-VL), for efforts think, no_think and auto_think."""
    from launch import coldstart
    from launch.terminal import console

    coldstart.run(
        coldstart.five_modes(thorough, samples, easy_above),
        coldstart.Options(policy, out, recipe, limit, temperature, tuple(against or ()), seed, tuple(overrides or ())),
        console(),
    )


def _pairs(values: list[str] | None, option: str) -> dict[str, str] | None:
    """NAME=VALUE options as a mapping; None where none was given."""
    if not values:
        return None
    for value in values:
        if "=" not in value:
            raise typer.BadParameter(f"{option} needs NAME=VALUE, got {value!r}")
    return dict(value.split("=", 1) for value in values)
