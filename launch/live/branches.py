"""A run that goes on from a checkpoint of another one, under a name of its own."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from launch import recipe
from launch.rundir import RunDirectory, RunDirectoryError
from rl.control import read_log

# What the new run appends to or replaces is copied; models and checkpoints never change, so links to them cost nothing.
LEFT_OUT = (
    "checkpoints",
    "model",
    "report.html",
    "summary.json",
    "logs",
    "tensorboard",
    ".lock",
    "control.json",
    "usage.json",
)
LINKED = ("base_model", "start_model")


def branch(root: Path, name: str, *, step: int | None) -> Path:
    """Make `name` beside `root`, with its checkpoint of `step` (the newest for None) and everything up to it.

    Resuming the new run sets aside what was recorded after that step. Raises RunDirectoryError for a name that is taken
    or a step that was not saved.
    """
    source = RunDirectory.open(root)
    saved = sorted(int(path.name.removeprefix("step-")) for path in source.checkpoints.glob("step-??????"))
    chosen = max(saved, default=None) if step is None else step
    if chosen is None or chosen not in saved:
        listed = ", ".join(map(str, saved)) or "none"
        raise RunDirectoryError(f"{root} has no checkpoint of step {step}; it has: {listed}")
    target = source.root.absolute().with_name(name)
    config = recipe.read(source.config)
    config["run"] |= {"name": name, "dir": str(target.parent)}
    recipe.check(config, where="the branch")
    aside = target.with_name(f".{name}.part")
    if target.exists():
        raise RunDirectoryError(f"{target} exists already; choose another name")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for entry in sorted(source.root.iterdir()):
        if entry.name in LEFT_OUT:
            continue
        if entry.is_dir():
            shutil.copytree(entry, aside / entry.name, copy_function=os.link if entry.name in LINKED else shutil.copy2)
        else:
            shutil.copy2(entry, aside / entry.name)
    _cut_log(aside / source.control_log.name, chosen)
    place = f"step-{chosen:06d}"
    shutil.copytree(source.checkpoints / place, aside / "checkpoints" / place, copy_function=os.link)
    RunDirectory(aside).save_config(recipe.check(config, where="the branch"))
    aside.rename(target)
    return target


def _cut_log(path: Path, step: int) -> None:
    """Changes made after the checkpoint are what the branch leaves behind."""
    kept = [json.dumps(entry) for entry in read_log(path) if entry["after_step"] <= step]
    if path.is_file():
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
