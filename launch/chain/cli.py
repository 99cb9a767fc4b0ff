"""`ponder chain`. Imports nothing heavy at the top, as `launch.cli`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def chain(
    name: Annotated[
        str | None, typer.Argument(help="A chain in TOML, or a shipped one by name: tulu, warmup. Not with --resume.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TABLE.KEY=VALUE", help="Change one setting; may be given several times."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue this chain after its last finished stage.")] = None,
) -> None:
    """Run stages of training, each from the weights of the one before.

    Supervised, preference optimization, reinforcement learning, in any order; after each the accuracy on held-out
    suites, and what was forgotten.

    Examples:

    ponder chain tulu

    ponder chain tulu --set stages.rlvr.settings.loop.num_steps=10

    ponder chain --resume runs/tulu
    """
    from launch.chain import job
    from launch.terminal import console

    if (name is None) == (resume is None):
        raise typer.BadParameter("name a chain, or a chain's directory to --resume")
    if resume is not None and overrides:
        raise typer.BadParameter("--set is for a new chain; a resumed one keeps its settings")
    root = resume if resume is not None else job.begin(name or "", overrides or [])
    job.run(root, console())
