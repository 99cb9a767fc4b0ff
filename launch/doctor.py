"""`ponder doctor`: is this machine fit for a run? Each check says what it found and, where it fails, what to do.

Checks that load heavy or native libraries run in a process of their own: a broken one may end the process it is
loaded in.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from rich.table import Table
from rich.text import Text

Level = Literal["ok", "warning", "failed"]

MIN_CORES = 2
MIN_MEMORY_GIB = 10.0  # what the quickstart may use at its peak
MIN_DISK_GIB = 2.0
_IMPORT_TIMEOUT_S = 300
_EXACT = "=="


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the table. `remedy` is empty where there is nothing to do."""

    name: str
    level: Level
    found: str
    remedy: str = ""


def examine(directory: Path) -> list[Check]:
    """All checks, cheapest first. `directory` is where runs will be written."""
    checks: list[Callable[[], Check]] = [
        check_python,
        check_cores,
        check_memory,
        lambda: check_disk(directory),
        lambda: check_writable(directory),
        check_loopback,
        check_versions,
        lambda: check_import("torch", "import torch; print(torch.__version__)"),
        lambda: check_import("vllm", "import vllm; print(vllm.__version__)"),
        lambda: check_import("deepspeed", "import deepspeed; print(deepspeed.__version__)"),
        check_program_isolation,
        check_ray,
    ]
    return [check() for check in checks]


def table(checks: list[Check]) -> Table:
    """The findings as a table for the terminal."""
    styles = {"ok": "green", "warning": "yellow", "failed": "bold red"}
    shown = Table(title="ponder doctor", title_justify="left")
    for column in ("check", "", "found", "remedy"):
        shown.add_column(column, overflow="fold")
    for check in checks:
        shown.add_row(check.name, Text(check.level, style=styles[check.level]), Text(check.found), Text(check.remedy))
    return shown


def check_python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return Check(name="python", level="ok", found=found)
    return Check(name="python", level="failed", found=found, remedy="make the environment with Python 3.11 or 3.12")


def check_cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    if cores >= MIN_CORES:
        return Check(name="cores", level="ok", found=str(cores))
    return Check(name="cores", level="warning", found=str(cores), remedy=f"runs are slow below {MIN_CORES} cores")


def check_memory() -> Check:
    free = psutil.virtual_memory().available / 2**30
    found = f"{free:.1f} GiB available"
    if free >= MIN_MEMORY_GIB:
        return Check(name="memory", level="ok", found=found)
    remedy = f"the quickstart needs up to {MIN_MEMORY_GIB:.0f} GiB: end other programs or lower rollout.kv_cache_gib"
    return Check(name="memory", level="warning", found=found, remedy=remedy)


def check_disk(directory: Path) -> Check:
    existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / 2**30
    found = f"{free:.1f} GiB free at {existing}"
    if free >= MIN_DISK_GIB:
        return Check(name="disk", level="ok", found=found)
    return Check(name="disk", level="failed", found=found, remedy="free some space, or set run.dir to another disk")


def check_writable(directory: Path) -> Check:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory):
            pass
    except OSError as error:
        remedy = "set run.dir to a directory you may write to"
        return Check(name="write permission", level="failed", found=f"{directory}: {error.strerror}", remedy=remedy)
    return Check(name="write permission", level="ok", found=str(directory.absolute()))


def check_loopback() -> Check:
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=5),
        ):
            return Check(name="loopback", level="ok", found="127.0.0.1 accepts connections")
    except OSError as error:
        remedy = "bring the interface up (`ip link set lo up`): Ray and gloo talk over it"
        return Check(name="loopback", level="failed", found=str(error), remedy=remedy)


def check_versions() -> Check:
    """Every exact pin of this package's own metadata against what is installed."""
    wrong = []
    for requirement in importlib.metadata.requires("ponder-rl") or []:
        name, exact, version = requirement.partition(";")[0].strip().partition(_EXACT)
        if not exact or "extra" in requirement:
            continue
        try:
            installed = importlib.metadata.version(name.strip())
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing ({version} wanted)")
            continue
        if installed.partition("+")[0] != version.strip():  # a local label such as +cpu is the same release
            wrong.append(f"{name} is {installed} ({version} wanted)")
    if not wrong:
        return Check(name="pinned versions", level="ok", found="all as pinned")
    remedy = "bash launch/quickstart.sh installs the lock again; other versions were never run together"
    return Check(name="pinned versions", level="failed", found="; ".join(wrong), remedy=remedy)


def check_import(name: str, program: str) -> Check:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "DS_ACCELERATOR": "cpu"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            timeout=_IMPORT_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        found = f"no answer within {_IMPORT_TIMEOUT_S} s"
        return Check(name=name, level="failed", found=found, remedy="the disk or the machine is overloaded; try again")
    if done.returncode == 0:
        return Check(name=name, level="ok", found=f"{done.stdout.split()[-1]} imports")
    found = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
    if "torchvision" in done.stderr:
        remedy = "uninstall torchvision, torchaudio and torchcodec: their builds do not fit the CPU torch"
    else:
        remedy = "bash launch/quickstart.sh installs the lock again"
    return Check(name=name, level="failed", found=found[:160], remedy=remedy)


def check_program_isolation() -> Check:
    """What would keep programs in that are run as a reward, tried with a real one."""
    from rewards.code.runner import Isolation, probe

    isolation, refused = probe()
    if isolation is Isolation.NAMESPACES:
        return Check(name="program isolation", level="ok", found="namespaces and limits")
    remedy = "needed for code rewards only: allow user namespaces (docs/code_rewards.md)"
    return Check(name="program isolation", level="warning", found=f"{isolation or 'none'} ({refused})", remedy=remedy)


def check_ray() -> Check:
    from launch import cluster

    try:
        hosts = cluster.probe_start(num_cpus=1)
    except Exception as error:  # noqa: BLE001 - whatever Ray does wrong is the finding
        remedy = "look for a full /tmp or /dev/shm, or a firewall on loopback; `RAY_TMPDIR` moves Ray's files"
        return Check(name="ray", level="failed", found=str(error)[:160], remedy=remedy)
    return Check(name="ray", level="ok", found=f"started, ran a task, listened on {hosts} only, stopped")
