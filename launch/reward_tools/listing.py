"""`ponder rewards list`: what can be named as a verifier, where it comes from, and what it needs."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch import plugins
from launch.reward_tools.check import capabilities_text
from launch.reward_tools.plugin import spec_of
from rewards.config import SandboxConfig
from rewards.plugins.runner import PluginLoadError, PluginRunner
from rewards.routing import is_ours
from rewards.verifier import traits_of

_GROUP = "ponder.verifiers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One verifier. `kind` is built-in, or the adapter of a plugin, or "broken"."""

    name: str
    kind: str
    package: str
    place: str
    capabilities: str


def list_rewards(extra: Sequence[str], *, as_json: bool, console: Console) -> None:
    """Print every registered verifier, and those in `extra`, which may be paths. Plugins are loaded to see what they
    are; built-in ones are known. Raises PluginError for a name that nothing answers to."""
    found = asyncio.run(_listed(extra))
    if as_json:
        rows = [dataclasses.asdict(item) for item in found]
        console.print(json.dumps(rows), markup=False, highlight=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "kind", "from", "capabilities"):
        table.add_column(column, overflow="fold")
    for item in found:
        style = "red" if item.kind == "broken" else ""
        place = f"{item.package}: {item.place}" if item.package else item.place
        table.add_row(Text(item.name), Text(item.kind, style=style), Text(place), Text(item.capabilities))
    console.print(table)


async def _listed(extra: Sequence[str]) -> list[Listed]:
    packages = {p.name: p.dist.name if p.dist else "" for p in importlib.metadata.entry_points(group=_GROUP)}
    places = plugins.registered(_GROUP) | {name: plugins.verifier_place(name) for name in extra}
    return [await _look_at(name, place, packages.get(name, "")) for name, place in sorted(places.items())]


async def _look_at(name: str, place: str, package: str) -> Listed:
    if is_ours(place):
        return Listed(name=name, kind="built-in", package=package, place=place, capabilities=_traits(place))
    runner = PluginRunner(spec_of(name), SandboxConfig())
    try:
        found = await runner.describe()
    except PluginLoadError as error:
        return Listed(name=name, kind="broken", package=package, place=place, capabilities=str(error))
    finally:
        runner.close()
    capabilities = capabilities_text(found)
    return Listed(name=name, kind=f"plugin ({found.adapter})", package=package, place=place, capabilities=capabilities)


def _traits(place: str) -> str:
    traits = traits_of(place)
    words = [
        "one attempt a call",
        "reusable" if traits.reads_only_answer else "",
        "easy cases in process" if traits.in_process else "",
        "checks references" if traits.reference_check else "",
        "has settings" if traits.settings else "",
    ]
    return ", ".join(word for word in words if word)
