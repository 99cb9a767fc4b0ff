"""Samplers over ten million tasks: how long a pick takes, an update, a checkpoint, and how much memory the state needs.

Every rule is measured alone, over task numbers: a pick is 512 tasks, an update is the 512 groups of that pick one
after another, as the loop does it. Before the measurement the rule has seen `WARM` such steps, so that there is
something to remember; the rules `..._all_tried` know every task instead, which no run of a few thousand steps brings
about: they show the bound. pick_ms and update_ms are the slowest rule's medians; pick_worst_ms the slowest single pick;
pick_cpu_ms and update_cpu_ms count the processor's time alone, which other work on the machine does not lengthen.
state_mb is what a rule holds in memory or puts into a checkpoint, whichever is more. The checkpoint is written as a run
writes it, to the disk, synced and sealed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from result import arguments, finish

from rl.checkpoint import Checkpointer
from rl.sampling.config import CurriculumSampling, RifSampling, StatSampling, TierSampling, VadeSampling
from rl.sampling.curriculum import Curriculum
from rl.sampling.picker import Picker
from rl.sampling.quotas import Quotas
from rl.sampling.rif import KEPT, SOLVED, Rif
from rl.sampling.stat import Stat
from rl.sampling.tiers import Tiers
from rl.sampling.uniform import Uniform
from rl.sampling.vade import Vade
from rl.verdict import Tally

PICK, SIBLINGS, NUM_DOMAINS, NUM_SKILLS = 512, 8, 5, 50
WARM, MEASURED = 100, 30
LIMITS = {"pick_ms": 50.0, "update_ms": 10.0, "state_mb": 400.0, "checkpoint_s": 2.0}


def rules(num_tasks: int) -> dict[str, Callable[[], Picker]]:
    vade = VadeSampling(type="vade")
    share = VadeSampling(type="vade", candidates=vade.candidates // NUM_DOMAINS)  # as `build_sampler` does
    numbers = np.arange(num_tasks)
    domains = (numbers % NUM_DOMAINS).astype(np.int32)
    names = [f"domain{d}" for d in range(NUM_DOMAINS)]
    skills = [f"skill{k}" for k in range(NUM_SKILLS)]
    return {
        "uniform": lambda: Uniform(num_tasks, seed=0),
        "vade": lambda: Vade(num_tasks, vade, seed=0),
        "curriculum": lambda: Curriculum(numbers % 10.0, CurriculumSampling(type="curriculum"), seed=0),
        "vade_all_tried": lambda: all_tried(Vade(num_tasks, vade, seed=0), num_tasks),
        "rif": lambda: Rif(num_tasks, RifSampling(type="rif"), seed=0),
        "rif_all_tried": lambda: all_tried(Rif(num_tasks, RifSampling(type="rif"), seed=0), num_tasks),
        "stat": lambda: Stat(skills, np.arange(num_tasks + 1), numbers % NUM_SKILLS, StatSampling(type="stat"), seed=0),
        "tiers": lambda: Tiers(numbers % 3.0, TierSampling(type="tiers", steps=WARM), seed=0),
        "quotas_of_vade": lambda: Quotas(
            names,
            domains,
            {name: 1.0 + d for d, name in enumerate(names)},
            lambda members, seed: Vade(members.size, share, seed=seed),
            seed=0,
        ),
    }


def all_tried(picker: Vade | Rif, num_tasks: int) -> Picker:
    """The rule after a group of every task."""
    rng = np.random.default_rng(2)
    order = rng.permutation(num_tasks).astype(np.int32)
    judged_at = (1 + np.arange(num_tasks) // PICK).astype(np.uint32)
    state = picker.state_dict() | {"num_picks": int(judged_at[-1])}
    if isinstance(picker, Vade):
        right = rng.integers(SIBLINGS + 1, size=num_tasks).astype(np.float32)
        state |= {"known": order, "right": right, "wrong": SIBLINGS - right, "counted_at": judged_at}
    else:
        classes = rng.integers(KEPT, SOLVED + 1, size=num_tasks).astype(np.uint8)
        state |= {"tried": order, "class": classes, "judged_at": judged_at}
    picker.load_state_dict(state)
    return picker


def measure(make: Callable[[], Picker], success: np.ndarray, directory: Path) -> dict[str, float]:
    started = time.perf_counter()
    picker = make()
    build_s = time.perf_counter() - started
    rng = np.random.default_rng(0)
    picks, updates, cpu = [], [], {"pick": [], "update": []}
    busy = np.empty(0, dtype=np.int64)
    for step in range(WARM + MEASURED):
        started, cpu_started = time.perf_counter(), time.process_time()
        picked = picker.pick(PICK, busy)
        picks.append(1e3 * (time.perf_counter() - started))
        cpu["pick"].append(1e3 * (time.process_time() - cpu_started))
        tallies = [Tally(num_right=int(n), num_judged=SIBLINGS) for n in rng.binomial(SIBLINGS, success[picked])]
        numbers = picked.tolist()
        started, cpu_started = time.perf_counter(), time.process_time()
        for number, tally in zip(numbers, tallies, strict=True):
            picker.update(number, tally)
        updates.append(1e3 * (time.perf_counter() - started))
        cpu["update"].append(1e3 * (time.process_time() - cpu_started))
        busy = picked
        if step == WARM - 1:
            for times in (picks, updates, *cpu.values()):
                times.clear()
    state = picker.state_dict()
    checkpoint_s = write(state, directory)
    return {
        "build_s": build_s,
        "pick_ms": statistics.median(picks),
        "pick_worst_ms": max(picks),
        "pick_cpu_ms": statistics.median(cpu["pick"]),
        "update_ms": statistics.median(updates),
        "update_cpu_ms": statistics.median(cpu["update"]),
        "state_mb": max(size_of(state), size_of(picker)) / 1e6,
        "saved_mb": size_of(state) / 1e6,
        "checkpoint_s": checkpoint_s,
    }


def write(state: Any, directory: Path) -> float:
    """Seconds to copy the state and write it as a checkpoint of a run."""

    async def nothing(path: str) -> None:
        Path(path).mkdir()

    started = time.perf_counter()
    checkpointer = Checkpointer(directory, keep=1)
    asyncio.run(checkpointer.save(1, save_learner=nothing, state={"sampler": state}))
    return time.perf_counter() - started


def size_of(state: Any) -> int:
    """Bytes of all arrays in a state or a rule; the rest is a handful of numbers."""
    if isinstance(state, np.ndarray):
        return state.nbytes
    if isinstance(state, list | tuple):
        return sum(map(size_of, state))
    parts = state if isinstance(state, dict) else getattr(state, "__dict__", {})
    return sum(map(size_of, parts.values()))


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--tasks", type=int, default=10_000_000)
    options = parser.parse_args()
    num_tasks = 100_000 if options.quick else options.tasks
    success = np.random.default_rng(1).beta(0.4, 0.4, num_tasks)
    found = {}
    for name, make in rules(num_tasks).items():
        with tempfile.TemporaryDirectory() as directory:
            found[name] = measure(make, success, Path(directory))
        shown = "  ".join(f"{key} {value:8.2f}" for key, value in found[name].items())
        print(f"{name:16} {shown}", file=sys.stderr, flush=True)
    metrics = {
        key: max(row[key] for row in found.values())
        for key in (*LIMITS, "pick_worst_ms", "pick_cpu_ms", "update_cpu_ms")
    }
    over = [key for key, limit in LIMITS.items() if metrics[key] > limit]
    details = {"num_tasks": num_tasks, "pick": PICK, "limits": LIMITS, "over_the_limit": over, "rules": found}
    finish("sampler_scale_quick" if options.quick else "sampler_scale", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
