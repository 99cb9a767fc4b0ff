"""`ponder plan`: what a recipe will start, what it needs, and whether it fits. Starts nothing."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from launch.terminal import console

USER_ERROR = 2


def plan(
    recipe: Annotated[str, typer.Argument(help="A TOML recipe, or a shipped one by name.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one setting; may be given several times."),
    ] = None,
    machines: Annotated[int, typer.Option(min=1, help="Machines of the cluster, each like this one.")] = 1,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of a machine, instead of those found here.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Their name, such as H100.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=0, help="Memory of each, in GiB.")] = None,
    memory: Annotated[float | None, typer.Option(min=0, help="Free memory of a machine, in GiB.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores of a machine.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Show what a recipe will run, where, with how much memory and time; start nothing.

    Estimates come from the formulas in launch/plan/memory.py and launch/plan/time.py, with every response as long as
    its budget allows. Exits with 2 and the remedy where something cannot fit.

    Examples:

    ponder plan quickstart

    ponder plan my.toml --machines 2 --gpus 8 --gpu H100 --gpu-memory 80 --memory 900 --cores 96
    """
    from launch import recipe as recipes
    from launch import sessions
    from launch.plan import fit, show
    from launch.plan.machine import this_machine
    from launch.plan.memory import roles
    from launch.plan.shape import shape_of
    from launch.plan.time import step_time

    config = recipes.load(sessions.find_recipe(recipe), overrides or [])
    given: dict[str, Any] = {
        "num_gpus": gpus,
        "gpu": gpu,
        "gpu_memory_gib": gpu_memory,
        "memory_gib": memory,
        "cores": cores,
    }
    machine = replace(this_machine(), **{name: value for name, value in given.items() if value is not None})
    shape = shape_of(config.model)
    planned, step = roles(config, shape), step_time(config, shape, machine)
    problems = fit.misfits(config, planned, machine, num_machines=machines)
    terminal = console()
    if as_json:
        terminal.print_json(json.dumps(show.as_json(shape, planned, machine, step, problems)))
    else:
        terminal.print(show.table(planned))
        for line in (*show.lines(shape, planned, machine, step, config.loop.num_steps), *config.warnings()):
            terminal.print(line, markup=False, highlight=False)
    if problems:
        sys.stderr.writelines(f"error: does not fit: {problem}\n" for problem in problems)
        raise typer.Exit(USER_ERROR)
