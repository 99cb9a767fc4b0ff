"""From what the user named - a recipe, a run directory, overrides - to settings and the directory to work in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from launch import mirror, recipe
from launch.config import PathModel, RunConfig
from launch.model_dir import check_model
from launch.recipe import RecipeError
from launch.rundir import RunDirectory
from rl.control import read_changes

SHIPPED = Path(__file__).parent / "recipes"
# What a resumed run may change: how long and where it runs. Anything else would make it another experiment.
RESUMABLE = ("loop", "cluster", "budgets.ceilings")


def find_recipe(name: str) -> Path:
    """A path, or the name of a shipped recipe."""
    path = Path(name)
    shipped = SHIPPED / f"{name}.toml"
    return shipped if not path.is_file() and shipped.is_file() else path


def begin(name: str, overrides: Sequence[str], *, changes: Path | None = None) -> tuple[RunConfig, RunDirectory]:
    """A new run. Whatever can be checked without starting anything is checked before its directory is made.

    `changes` is the control.jsonl of another run, whose changes of settings this one is to repeat.
    """
    repeated = [] if changes is None else read_changes(changes)
    if changes is not None and not repeated:
        raise ValueError(f"{changes} holds no change of a setting; leave --changes out")
    config = recipe.load(find_recipe(name), overrides)
    if isinstance(config.model, PathModel):
        check_model(Path(config.model.path), setting="model.path")
    directory = RunDirectory.create(config)
    for change in repeated:
        entry = {"time": 0.0, "after_step": change.after_step, "action": "set", "settings": change.settings}
        with directory.control_log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(entry) + "\n")
    return config, directory


def located(place: str) -> Path:
    """The run directory that a path names, or that a copy at a URL is fetched into, below runs/."""
    return mirror.fetch(place, Path("runs")) if "://" in place else Path(place)


def reopen(root: Path, *, name: str | None, overrides: Sequence[str]) -> tuple[RunConfig, RunDirectory]:
    """A run to continue, with the settings it was started with. Raises RecipeError when it would become another run.

    A recipe may be named again; it must then resolve to the same settings. Overrides may lengthen the run.
    """
    directory = RunDirectory.open(root)
    saved = recipe.read(directory.config)
    config = recipe.check(recipe.apply(saved, overrides), where=str(directory.config))
    changed = set(differences(saved, recipe.dump(config)))
    if name is not None:
        changed |= set(differences(saved, recipe.dump(recipe.load(find_recipe(name), overrides))))
    if frozen := sorted(key for key in changed if not f"{key}.".startswith(tuple(f"{n}." for n in RESUMABLE))):
        raise RecipeError(
            f"a resumed run keeps its settings, but {', '.join(frozen)} would change; only "
            f"{', '.join(RESUMABLE)} may. Start a new run, or leave the change out"
        )
    directory.save_config(config)
    return config, directory


def for_evaluation(
    source: str, *, model: Path | None, overrides: Sequence[str]
) -> tuple[RunConfig, RunDirectory, Path]:
    """Settings, a new directory for the results, and the model to evaluate.

    `source` is a run, whose newest model is taken, or a recipe, whose `model.path` is; `model` overrules both.
    """
    root = Path(source)
    is_run = root.is_dir()
    config = recipe.load(RunDirectory.open(root).config if is_run else find_recipe(source), overrides)
    if model is None:
        model = RunDirectory.open(root).newest_model() if is_run else _model_of(config, source)
    check_model(model, setting="--model")
    name = config.run.model_copy(update={"name": f"{config.run.name}-eval"})
    config = config.model_copy(update={"run": name, "model": PathModel(path=str(model))})
    return config, RunDirectory.create(config), model


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted names of the settings that differ."""
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from differences(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}"


def _model_of(config: RunConfig, source: str) -> Path:
    if isinstance(config.model, PathModel):
        return Path(config.model.path)
    raise RecipeError(
        f"{source} builds its model from scratch, so there is nothing to evaluate yet; name a run directory or give "
        f"--model DIR"
    )
