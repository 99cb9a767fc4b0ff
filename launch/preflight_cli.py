"""`ponder preflight`: every node of a cluster in one table."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import typer

from launch.terminal import console

FAILURE = 1


def preflight(
    address: Annotated[str, typer.Option(help="host:port of the cluster's head; its token in RAY_AUTH_TOKEN.")],
    directory: Annotated[Path, typer.Option("--dir", help="Where runs will be written.")] = Path("runs"),
    nodes: Annotated[int, typer.Option(min=1, help="Nodes that must be there.")] = 1,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where the learner will compute.")] = "cpu",
) -> None:
    """Check every node of a running Ray cluster and say what to mend.

    Versions, clocks, disk, whether all see the run directory, GPUs, connections between every two nodes, and one
    all-reduce over gloo or NCCL. Exits with 1 where a node is not fit.
    """
    from rich.table import Table

    from launch import cluster
    from launch.config import ClusterConfig

    with (
        tempfile.TemporaryDirectory(prefix="ponder-preflight-") as logs,
        cluster.session(ClusterConfig(address=address), log_dir=Path(logs)),
    ):
        from launch.preflight import examine

        reports = examine(directory, num_nodes=nodes, device=device)
    shown = Table(title="ponder preflight", title_justify="left")
    for column in ("node", "cores", "free GiB", "disk GiB", "GPUs", "clock s", "to mend"):
        shown.add_column(column, overflow="fold")
    for report in reports:
        facts = report.facts
        numbers = (
            facts.cores,
            f"{facts.memory_gib:.1f}",
            f"{facts.disk_gib:.0f}",
            facts.gpus,
            f"{report.clock_offset_s:.1f}",
        )
        shown.add_row(f"{facts.host} ({facts.address})", *map(str, numbers), "\n".join(report.problems) or "nothing")
    console().print(shown)
    if any(report.problems for report in reports):
        raise typer.Exit(FAILURE)
