"""Does a long run stay as small as it was? The small model for many steps, while engines and the verifier are killed.

A real `ponder train` of the quickstart's model with two engines. At seeded random times, about every --every steps, an
engine or the verifier service is killed with SIGKILL, as often as the run may restart them. Every few seconds memory
(PSS), open descriptors and threads of every process are noted, by role. The run must end, and its ledger must hold
every group exactly once.

`driver_mib_per_100_steps`, `learner_...`, `engine_...`: slope of a line through the memory after the first quarter (of
an engine: of processes that lived for a while; a new one begins small). `driver_descriptors_per_100_steps` likewise.
`flat` is 1 when driver and learner grow by less than MIB, and the driver by less than ONE descriptor, in 100 steps.
Stored is what was run, which --minutes may cut short of 500 steps.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from objectives import cold_model
from result import arguments, finish

from rl.record_reader import ledger

ROLES = {"ray::RolloutAct": "engine", "ray::LearnerRan": "learner", "ray::_JudgeActo": "verifier", "raylet": "raylet"}
VICTIMS = ("engine", "engine", "verifier")
MIB, ONE = 20.0, 1.0  # per 100 steps
EVERY_S = 3.0
GROUPS = 4  # small steps, so that 500 of them and the restarts between them fit into minutes


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=60.0, help="stop the run after that, as a scheduler would")
    parser.add_argument("--every", type=int, default=25, help="steps between two kills, about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--path", type=Path, help="a finished cold start of the quickstart")
    parser.add_argument("--runs", type=Path, default=Path("runs/soak"), help="where the run directory goes")
    options = parser.parse_args()
    if options.quick:
        options.steps, options.every = 16, 6
    runs = (options.runs / "quick" if options.quick else options.runs).resolve()
    model = (options.path or cold_model(runs, quick=options.quick)).resolve()
    kills = options.steps // options.every + 1
    run, log = start(runs, model, steps=options.steps, kills=kills)
    try:
        rows, killed = watch(run, log, every=options.every, seed=options.seed, minutes=options.minutes)
    finally:
        stop(run)
    steps = last_step(log)
    directory = max(runs.glob("soak*/metrics.jsonl"), key=lambda path: path.stat().st_mtime).parent
    entries = ledger(directory / "groups")
    whole = len({entry.group_id for entry in entries}) == len(entries) == GROUPS * steps
    metrics, details = judged(rows, steps)
    metrics |= {"steps": steps, "kills": len(killed), "each_group_once": float(whole)}
    name = "soak_quick" if options.quick else "soak"
    finish(name, metrics, details | {"killed": killed, "samples": thinned(rows)}, store=options.store)


def start(runs: Path, model: Path, *, steps: int, kills: int) -> tuple[subprocess.Popen[bytes], Path]:
    settings = [
        "sft=none",
        "model.type=path",
        f"model.path={model}",
        f"run.dir={runs}",
        "run.name=soak",
        f"loop.num_steps={steps}",
        f"loop.groups_per_step={GROUPS}",
        "rollout.group_size=4",
        "loop.checkpoint_every=20",
        "sampling.judge_on=off",
        "rollout.num_engines=2",
        f"rollout.max_restarts={kills}",
        "evaluate.at_start=false",
        "evaluate.at_end=false",
        "budgets.shaping.type=none",
    ]
    runs.mkdir(parents=True, exist_ok=True)
    log = runs / "console.txt"
    command = [sys.executable, "-c", "import sys; from launch.cli import main; sys.exit(main())", "train"]
    command += ["launch/recipes/quickstart.toml", *(word for s in settings for word in ("--set", s))]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT), log


def stop(run: subprocess.Popen[bytes]) -> None:
    """The way a scheduler does it: the run saves its step."""
    if run.poll() is None:
        run.terminate()
        try:
            run.wait(timeout=120)
        except subprocess.TimeoutExpired:
            run.kill()


def last_step(log: Path) -> int:
    found = [line.split("/")[0].split()[-1] for line in log.read_text().splitlines() if line.startswith("step ")]
    return int(found[-1]) if found else 0


def watch(
    run: subprocess.Popen[bytes], log: Path, *, every: int, seed: int, minutes: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Notes and kills until the run ends or the time is up. Raises RuntimeError when the run fails."""
    chance, rows, killed = random.Random(seed), list[dict[str, Any]](), list[dict[str, Any]]()
    next_kill, ends = every, time.monotonic() + 60 * minutes
    while run.poll() is None and time.monotonic() < ends:
        step, sample = last_step(log), note(run.pid)
        if step:
            rows.append({"step": step, **sample["sums"]})
        if step >= next_kill:
            role = chance.choice(VICTIMS)
            if pids := sample["pids"].get(role, []):
                os.kill(chance.choice(pids), signal.SIGKILL)
                killed.append({"step": step, "role": role})
                print(f"step {step}: killed {role}", file=sys.stderr, flush=True)
            next_kill = step + chance.randint(every // 2, 3 * every // 2)
        time.sleep(EVERY_S)
    if run.poll() not in (None, 0):
        raise RuntimeError("the run failed: " + "\n".join(log.read_text().splitlines()[-5:]))
    return rows, killed


def note(pid: int) -> dict[str, Any]:
    """Memory in MiB, descriptors, threads and processes by role, and the process ids of each role."""
    sums: defaultdict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    pids: defaultdict[str, list[int]] = defaultdict(list)
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return {"sums": {}, "pids": {}}
    for process in processes:
        try:
            name = process.name()
            role = (
                "driver" if process.pid == pid else next((r for n, r in ROLES.items() if name.startswith(n)), "other")
            )
            found = sums[role]
            found["mib"] += process.memory_full_info().pss / 2**20
            found["descriptors"] += process.num_fds()
            found["threads"] += process.num_threads()
            found["processes"] += 1
            pids[role].append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return {"sums": {role: dict(found) for role, found in sums.items()}, "pids": pids}


def judged(rows: Sequence[Mapping[str, Any]], steps: int) -> tuple[dict[str, float], dict[str, Any]]:
    late = [row for row in rows if row["step"] >= steps / 4]
    metrics: dict[str, float] = {}
    for role in ("driver", "learner", "raylet"):
        metrics[f"{role}_mib_per_100_steps"] = slope(late, role, "mib")
    both = [row for row in late if row.get("engine", {}).get("processes") == 2]
    metrics["engine_mib_per_100_steps"] = slope(both, "engine", "mib")
    metrics["driver_descriptors_per_100_steps"] = slope(late, "driver", "descriptors")
    metrics["driver_threads_per_100_steps"] = slope(late, "driver", "threads")
    grown = max(metrics["driver_mib_per_100_steps"], metrics["learner_mib_per_100_steps"])
    metrics["flat"] = float(grown < MIB and metrics["driver_descriptors_per_100_steps"] < ONE)
    first, last = late[0], late[-1]
    ends = {role: {"first": first.get(role), "last": last.get(role)} for role in ("driver", "learner", "raylet")}
    return metrics, {"from_step": first["step"], "to_step": last["step"], "ends": ends}


def slope(rows: Sequence[Mapping[str, Any]], role: str, what: str) -> float:
    """Growth in 100 steps, by least squares."""
    found = [(row["step"], row[role][what]) for row in rows if role in row]
    if len({step for step, _ in found}) < 2:
        raise ValueError(f"too few notes of the {role}: run more steps")
    steps, values = np.asarray(found).T
    return float(100 * np.polyfit(steps, values, 1)[0])


def thinned(rows: Sequence[Mapping[str, Any]], count: int = 40) -> list[Any]:
    return [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, count).astype(int))] if rows else []


if __name__ == "__main__":
    main()
