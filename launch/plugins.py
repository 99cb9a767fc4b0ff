"""Where a name in a recipe becomes code: entry points, dotted paths and files, all through one door.

A plugin is one Python object that keeps the contract of its group. It is found in one of three ways, tried in this
order:

    a registered name   "math"                      an entry point of the group, ours or another package's
    a dotted path       "my_package.rewards:score"  imported as usual
    a file              "rewards/score.py:score"    imported by path, so a single file needs no package

The registry holds targets, not objects: a verifier runs in its own killable process and must never be imported here.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from rewards.config import TASK_VERIFIER, RewardsConfig
from rollout.schema import Task

CONTRACTS: Mapping[str, str] = MappingProxyType(
    {
        "ponder.verifiers": "a function `verify(sample)` or another call shape, see `rewards.plugins.contract`",
        "ponder.tasks": "a function `generate(*, num_tasks: int, seed: int, **params) -> list[rollout.schema.Task]`",
        "ponder.steps": "a factory `start(settings, make_pool) -> launch.meter.MeteredScorer`",
        "ponder.shaping": "a factory `build(settings) -> rl.ports.Shaper`",
        "ponder.credit": "a factory `build(settings) -> rl.ports.Credit`",
        "ponder.samplers": "a factory `build(settings, tasks, *, batch_size: int, seed: int) -> rl.ports.TaskSampler`",
        "ponder.losses": "a function of the shape `rl.losses.contract.LossFunction`",
    }
)


class PluginError(ValueError):
    """A name that no plugin answers to, or a plugin that does not keep its contract."""


def registered(group: str) -> dict[str, str]:
    """Name to `module:attribute` of every entry point of `group`; two packages claiming one name is an error."""
    _check_group(group)
    found: dict[str, str] = {}
    for point in importlib.metadata.entry_points(group=group):
        if found.setdefault(point.name, point.value) != point.value:
            raise PluginError(
                f"{group}: the name {point.name!r} is registered twice, as {found[point.name]} and as {point.value}; "
                f"uninstall one of the packages, or write the dotted path instead of the name"
            )
    return found


def target(group: str, name: str) -> str:
    """`module:attribute` for a registered name or a path; nothing is imported, except that a file must exist.

    A file path comes back as `/absolute/file.py:attribute`. Raises PluginError with everything that was tried.
    """
    names = registered(group)
    if name in names:
        return names[name]
    module, _, attribute = name.rpartition(":")
    if not module or not attribute.isidentifier():
        raise PluginError(_not_found(group, name, names))
    if not module.endswith(".py"):
        return name
    path = Path(module).expanduser().resolve()
    if not path.is_file():
        raise PluginError(f"{group}: {name!r} names the file {path}, which does not exist")
    return f"{path}:{attribute}"


def verifier_place(name: str) -> str:
    """The target of a verifier; the address of a remote reward model stands for itself."""
    return name if name.startswith(("http://", "https://")) else target("ponder.verifiers", name)


def verifier_targets(rewards: RewardsConfig, tasks: Sequence[Task]) -> dict[str, str]:
    """Every registered verifier, the reward's own plugins, and those that tasks or reward name by a path."""
    targets = registered("ponder.verifiers")
    for name, settings in rewards.plugins.items():
        targets[name] = verifier_place(settings.path or name)
    named = {task.verifier for task in tasks} | {component.verifier for component in rewards.components.values()}
    for name in sorted(named - targets.keys() - {TASK_VERIFIER}):
        targets[name] = verifier_place(name)
    return targets


def load(group: str, name: str) -> Callable[..., Any]:
    """Import the plugin called `name` and check that it can be called."""
    place = target(group, name)
    module_name, _, attribute = place.rpartition(":")
    module = _import(group, name, module_name)
    if attribute not in vars(module):
        raise PluginError(
            f"{group}: {name!r} was found in {module_name}, but it has no {attribute!r}; a plugin of this group must "
            f"export {CONTRACTS[group]}"
        )
    plugin = vars(module)[attribute]
    if not callable(plugin):
        raise PluginError(
            f"{group}: {place} is a {type(plugin).__name__}; a plugin of this group must export {CONTRACTS[group]}"
        )
    return plugin  # type: ignore[no-any-return]


def load_all(group: str) -> dict[str, Callable[..., Any]]:
    """Every registered plugin of `group`, imported. For groups whose plugins run in the driver process."""
    return {name: load(group, name) for name in registered(group)}


def _import(group: str, name: str, module_name: str) -> ModuleType:
    try:
        if not module_name.endswith(".py"):
            return importlib.import_module(module_name)
        return _import_file(Path(module_name))
    except Exception as error:  # a plugin's own code may raise anything while it is imported
        raise PluginError(f"{group}: importing {name!r} from {module_name} failed: {error!r}") from error


def _import_file(path: Path) -> ModuleType:
    """Import `path` once under a name that no package can have, so that a file may be called anything."""
    alias = f"ponder_plugin:{path}"
    if alias in sys.modules:
        return sys.modules[alias]
    spec = importlib.util.spec_from_file_location(alias, path)
    assert spec is not None and spec.loader is not None, "a .py file always has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module  # before execution: dataclasses look their own module up by name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[alias]
        raise
    return module


def _not_found(group: str, name: str, names: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return (
        f"{group}: no plugin called {name!r}{hint} Tried the registered names "
        f"({', '.join(sorted(names)) or 'none'}), and "
        f"it is neither a dotted path (package.module:attribute) nor a file (path/to/file.py:attribute). "
        f"A plugin of this group must export {CONTRACTS[group]}"
    )


def _check_group(group: str) -> None:
    if group not in CONTRACTS:
        raise PluginError(f"unknown plugin group {group!r}; the groups are {', '.join(CONTRACTS)}")
