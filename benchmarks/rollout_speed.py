"""Does the engine pool generate as fast as vLLM alone? The same requests, in pairs, one right after the other.

The pool is what training uses: Ray actors, jobs of siblings, token-exact trajectories with their character ends and
log-probabilities. Against it stands one call of `vllm.LLM.generate` with the same prompts, limits and seeds, asked for
the same log-probabilities, in a process of its own (see eval_speed.py, whose requests these are). Tokens per second
count from the first job to the last group; starting is not counted. The metric is the median over --rounds pairs of
pool / bare, the order alternating. Ray gives its workers a lower priority than this process has, which on a machine
that does anything else would be measured instead: here the pool's side is told to keep it.

Not called rollout.py: a script of that name would stand before the package `rollout` for every benchmark.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval_speed import INSTRUCTIONS, SIZES, THINKING, default_model, run_bare
from result import arguments, finish

QUICK = (16, 2)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", choices=sorted(SIZES), default="quickstart")
    parser.add_argument("--model-dir", type=Path, help="use this directory instead of the usual one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/rollout_speed"), help="where a model goes")
    parser.add_argument("--pool", metavar="JSON", help="internal: be the pool's side")
    options = parser.parse_args()
    if options.pool is not None:
        print(json.dumps(pool(json.loads(options.pool))))
        return
    runs = (options.runs / "quick" if options.quick else options.runs).resolve()
    model = options.model_dir or default_model(options.model, runs, quick=options.quick)
    size = QUICK if options.quick else SIZES[options.model]
    rounds = []
    for number in range(1 if options.quick else options.rounds):
        asked = {
            "recipe": options.model,
            "model": str(model.resolve()),
            "size": size,
            "seed": number,
            "wants_logprobs": True,
        }
        sides = (run_pool, run_bare) if number % 2 == 0 else (run_bare, run_pool)
        found = {side.__name__.removeprefix("run_"): side(asked) for side in sides}
        rounds.append(compare(found["pool"], found["bare"]))
        print(f"round {number}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    name = "rollout_speed" if options.model == "quickstart" else f"rollout_speed_{options.model}"
    metrics = {"ratio_bare_vllm": statistics.median(r["ratio"] for r in rounds)}
    details = {"model": options.model, "num_tasks": size[0], "num_siblings": size[1], "rounds": rounds}
    finish(name + ("_quick" if options.quick else ""), metrics, details, store=options.store)


def compare(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, float]:
    speeds = [sum(side["tokens"]) / side["seconds"] for side in (ours, theirs)]
    same = [a == b for a, b in zip(ours["tokens"], theirs["tokens"], strict=True)]
    return {
        "ratio": speeds[0] / speeds[1],
        "pool_tokens_per_s": speeds[0],
        "bare_tokens_per_s": speeds[1],
        "same_length": statistics.fmean(same),
    }


def run_pool(asked: Mapping[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--pool", json.dumps(asked)]
    environment = {**os.environ, "RAY_worker_niceness": "0"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def pool(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of all jobs at once, and the sampled tokens of each sibling, task by task."""
    from budgets.modes import parse_modes
    from launch import cluster
    from launch.config import ClusterConfig
    from launch.evaluation.sampling import Plan, blocks
    from launch.evaluation.settings import load_settings
    from launch.evaluation.tasks import find_tasks
    from rollout.schema import Sampling

    num_tasks, num_siblings = asked["size"]
    settings = load_settings(asked["recipe"], None, [])
    rollout = settings.rollout
    name, said = str(THINKING[asked["recipe"]]), INSTRUCTIONS[asked["recipe"]]
    plan = Plan(
        tasks=find_tasks("held_out", settings, changes={}, limit=num_tasks),
        modes=tuple(parse_modes(name, settings.budgets, numeric_instruction=said, is_enforced=False)),
        num_samples=num_siblings,
        sampling=Sampling(temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k),
        seed=asked["seed"],
        context={},
    )
    jobs = [block.job for block in blocks(plan, {})]
    with tempfile.TemporaryDirectory() as logs, cluster.session(ClusterConfig(num_cpus=2), log_dir=Path(logs)):
        from rollout.actor import start_engines

        engines = start_engines(rollout, settings.format, asked["model"], log_dir=logs)

        async def work() -> tuple[float, list[int]]:
            started = time.perf_counter()
            groups = await asyncio.gather(*(engines.generate(job) for job in jobs))
            seconds = time.perf_counter() - started
            return seconds, [int(t.sampled.sum()) for group in groups for t in group.trajectories]

        seconds, tokens = asyncio.run(work())
        engines.close()
    return {"seconds": seconds, "tokens": tokens}


if __name__ == "__main__":
    main()
