"""`ponder rewards check`: the verdict table of one reward function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.screen import visible
from rewards.config import SandboxConfig
from rewards.plugins.runner import Description
from rewards.plugins.spec import PluginSpec
from rewards.workbench.cases import read_cases
from rewards.workbench.examination import Check, Examination, examine
from rewards.workbench.probes import PROBES

_STYLES = {"pass": "green", "fail": "bold red", "note": "yellow"}


def check(spec: PluginSpec, data: Path, *, skip: Collection[str], as_json: bool, console: Console) -> bool:
    """Examine a reward function and print what was found; whether nothing failed.

    Raises CasesError for a file that cannot be read, ValueError for an unknown probe, PluginLoadError for a function
    that cannot be used.
    """
    if unknown := sorted(set(skip) - PROBES.keys()):
        raise ValueError(f"no probe is called {unknown[0]!r}; there are {', '.join(PROBES)}")
    examination = asyncio.run(
        examine(spec, read_cases(data), limits=SandboxConfig(num_workers=1, max_workers=1), skip=skip)
    )
    if as_json:
        console.print(json.dumps(examination.as_json()), markup=False, highlight=False, soft_wrap=True)
    else:
        _print(examination, console)
    return examination.passed


def capabilities_text(description: Description) -> str:
    """What a loaded function needs and promises, in a few words."""
    found = description.capabilities
    words = [
        {"sample": "one attempt a call", "batch": f"batches of {found.batch_size}", "group": "whole groups"}[
            found.form
        ],
        f"async, {found.batch_size} at once" if found.is_async else "",
        "" if found.reads_thinking else "answer only",
        "" if found.deterministic else "not deterministic",
        "reusable" if found.reusable else "",
        f"{found.max_seconds:g} s",
    ]
    return ", ".join(word for word in words if word)


def _print(examination: Examination, console: Console) -> None:
    title = f"{examination.plugin}: adapter {examination.description.adapter}"
    console.print(Text(f"{title} ({capabilities_text(examination.description)})"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("check", "verdict", "found"):
        table.add_column(column, overflow="fold")
    for item in examination.checks:
        table.add_row(item.name, Text(item.verdict, style=_STYLES[item.verdict]), _found(item))
    console.print(table)
    failed = [item.name for item in examination.checks if item.verdict == "fail"]
    console.print(Text(f"{len(failed)} failed: {', '.join(failed)}" if failed else "all passed", style="bold"))


def _found(item: Check) -> Text:
    """What was found; details may quote a model or a plugin, so nothing in them is obeyed by the terminal."""
    return Text("\n".join([item.found, *(f"  {visible(detail)}" for detail in item.details)]))
