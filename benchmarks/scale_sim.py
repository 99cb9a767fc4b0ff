"""How many engines can one driver feed? The real driver against simulated engines and learners, on a virtual clock.

Every process but the driver is a delay drawn from a measurement of a real run (latencies.json, see --measure); the
driver's own processor time moves the clock, and a call through Ray costs it what it was measured to cost. See
scale_world.py. Groups per step grow with the engines, as many for each as in the measured run, and the learner is
taken to grow with them, so that a step would take as long with 1,024 engines as with one if the driver cost nothing.

`driver_overhead_256`: processor time of the driver a step over the time of a step, at 256 engines, on the latencies
of SmolLM2-135M on two CPU cores (the shape of the tiny model's, scaled to the stored seconds of each phase), which is
as slow as a much larger model on GPUs. `breaks_at`: engines from which the step is more than a tenth longer than
without the driver's share; 0: none up to 1,024. A last point holds 100,000 groups at once on 1,024 engines, with
buffer.max_lag = 1. The `_tiny` figures are for the quickstart's model, whose engines answer within seconds.

    python benchmarks/scale_sim.py --measure RUN                  # from the traces of a quickstart with run.trace_steps
    python benchmarks/scale_sim.py --store
    python benchmarks/scale_sim.py --engines 256 --profile        # where the driver's time goes
"""

from __future__ import annotations

import asyncio
import cProfile
import io
import json
import pstats
import resource
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from result import RESULTS, arguments, finish
from rich.console import Console

from launch import plugins, recipe
from launch.console import ConsoleReporter
from launch.reporting import PhaseReporter
from launch.rundir import PhaseLog, RunDirectory

MEASURED = Path(__file__).with_name("latencies.json")
KINDS = ("generate", "begin_update", "receive", "finish_update", "version", "probe", "learn")
POINTS = (1, 16, 64, 128, 256, 512, 1024)
MANY = 100_000
WARMUP = 1  # steps
LONGER = 1.1


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", choices=("tiny", "smollm2"), help="whose latencies; both by default")
    parser.add_argument("--engines", type=int, nargs="+")
    parser.add_argument("--many", action="store_true", help=f"only the point with {MANY:,} groups at once")
    parser.add_argument("--steps", type=int, default=3, help="steps of a point that count, after one that does not")
    parser.add_argument("--most-groups", type=int, default=MANY, help="leave out points with more groups at once")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--measure", type=Path, metavar="RUN", help="take the latencies of a run's traces, and stop")
    options = parser.parse_args()
    if options.measure is not None:
        return measure(options.measure)
    points = options.engines or (POINTS[:2] if options.quick else POINTS)
    found: dict[str, list[dict[str, float]]] = {}
    for model in [options.model] if options.model else ["smollm2", "tiny"]:
        found[model] = []
        per_engine = measured_of(model)["groups_per_engine"]
        sizes = [(engines, engines * per_engine, 0) for engines in points]
        if options.many or not (options.engines or options.quick):
            sizes = [*([] if options.many else sizes), (1024, MANY // 2, 1)]
        for engines, groups, lag in sizes:
            if groups * (lag + 1) <= options.most_groups:
                found[model].append(
                    point(model, engines, groups, lag, steps=options.steps, is_profiled=options.profile)
                )
                print(f"{model}: {json.dumps(found[model][-1])}", file=sys.stderr, flush=True)
    name = "scale_sim_quick" if options.quick else "scale_sim"
    if options.store:
        found = with_stored(name, found)
    finish(name, headline(found), {"points": found}, store=options.store)


def with_stored(name: str, found: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
    """With the points of earlier calls that this one did not measure again: a large one takes minutes."""
    path = RESULTS / f"{name}.json"
    stored = json.loads(path.read_text())["details"]["points"] if path.is_file() else {}
    merged: dict[str, list[dict[str, float]]] = {}
    for model in dict.fromkeys([*stored, *found]):
        rows = {(r["engines"], r["groups_at_once"]): r for r in (*stored.get(model, ()), *found.get(model, ()))}
        merged[model] = [rows[key] for key in sorted(rows)]
    return merged


def headline(found: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for model, rows in found.items():
        suffix = "" if model == "smollm2" else f"_{model}"
        rows = [row for row in rows if row["max_lag"] == 0]
        for row in rows:
            if row["engines"] == 256:
                metrics[f"driver_overhead_256{suffix}"] = row["driver_overhead"]
        broken = [row["engines"] for row in rows if row["longer"] > LONGER]
        metrics[f"breaks_at{suffix}"] = min(broken, default=0)
    return metrics


# ------------------------------------------------------------------------------------------------ one point


def point(model: str, engines: int, groups: int, lag: int, *, steps: int, is_profiled: bool) -> dict[str, float]:
    """A few steps of one size."""
    from scale_world import Meter, SimulatedLoop

    meter = Meter()
    profile = cProfile.Profile() if is_profiled else None
    with (
        tempfile.TemporaryDirectory() as place,
        patch("asyncio.to_thread", inline),
        asyncio.Runner(loop_factory=lambda: SimulatedLoop(meter)) as runner,
    ):
        started = time.perf_counter()
        row = runner.run(play(model, engines, groups, lag, steps, Path(place), meter, profile))
    row["wall_s"] = time.perf_counter() - started
    row["peak_rss_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if profile is not None:
        text = io.StringIO()
        pstats.Stats(profile, stream=text).sort_stats("tottime").print_stats(28)
        pstats.Stats(profile, stream=text).sort_stats("cumtime").print_stats(45)
        print(text.getvalue(), file=sys.stderr)
    return row


async def inline(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a thread would do, done at once: it holds the interpreter's lock most of the time."""
    return function(*args, **kwargs)


async def play(
    model: str,
    engines: int,
    groups: int,
    lag: int,
    steps: int,
    place: Path,
    meter: Any,
    profile: cProfile.Profile | None,
) -> dict[str, float]:
    from rl import driver
    from rl.phases import PhaseClock

    config = settings(model, groups, lag, steps, place)
    per_engine = measured_of(model)["groups_per_engine"]
    latencies = drawn(model, stretch=max(1.0, groups * (lag + 1) / engines / per_engine))
    with meter.outside():
        run = wire(config, RunDirectory.create(config), latencies, meter, model=model, engines=engines)
    run.clock = PhaseClock(asyncio.get_running_loop().time)
    rows: list[tuple[float, float]] = []
    plain = run.reporter.step

    def step(*args: Any) -> None:
        plain(*args)
        rows.append((asyncio.get_running_loop().time(), meter.driver_s()))

    run.reporter.step = step
    if profile is not None:
        profile.enable()
    await driver.train(run)
    if profile is not None:
        profile.disable()
    (began, spent), (ended, total) = rows[WARMUP - 1], rows[-1]
    step_s, driver_s = (ended - began) / steps, (total - spent) / steps
    return {
        "engines": engines,
        "groups_per_step": groups,
        "max_lag": lag,
        "groups_at_once": groups * (lag + 1),
        "step_s": step_s,
        "driver_s": driver_s,
        "driver_overhead": driver_s / step_s,
        "driver_ms_per_group": 1e3 * driver_s / groups,
        "longer": step_s / max(step_s - driver_s, 1e-9),
        "step_s_for_3_percent": driver_s / 0.03,
    }


def settings(model: str, groups: int, lag: int, steps: int, place: Path) -> Any:
    """The model's recipe at this size, with nothing but training steps."""
    return recipe.load(
        Path(f"launch/recipes/{'quickstart' if model == 'tiny' else model}.toml"),
        [
            "run.name=simulated",
            f"run.dir={place}",
            f"loop.num_steps={steps + WARMUP}",
            f"loop.groups_per_step={groups}",
            f"buffer.max_lag={lag}",
            "loop.wait_deadline_s=1000000",
            "loop.checkpoint_every=0",
            "evaluate.at_start=false",
            "evaluate.at_end=false",
            "sampling.judge_on=off",
            "loop.drought_limit=1000000",
            "cluster.num_cpus=100000",
        ],
    )


def measured_of(model: str) -> dict[str, Any]:
    """What was measured of a model: quantiles of seconds by kind of call, groups of an engine, seconds of a step.

    Of smollm2 only whole phases are stored (results/smollm2.json): the tiny model's distributions are scaled to them.
    """
    tiny: dict[str, Any] = json.loads(MEASURED.read_text())["tiny"]
    if model == "tiny":
        return tiny
    rows = json.loads((RESULTS / "smollm2.json").read_text())["details"]["steps"]

    def median(name: str) -> float:
        return statistics.median(row[name] for row in rows if name in row)

    wanted = {"generate": median("time/generate_s"), "learn": median("time/learn_s"), "receive": median("sync/move_s")}
    wanted["probe"] = median("sync/prove_s")
    seconds = dict(tiny["seconds"])
    for kind, longest in wanted.items():  # a phase lasts as long as its slowest call
        seconds[kind] = [value * longest / max(seconds[kind]) for value in seconds[kind]]
    return {"groups_per_engine": 6, "step_s": median("time/step_s"), "seconds": seconds}


def drawn(model: str, *, stretch: float) -> Any:
    from scale_world import Latencies

    ray_call_s = json.loads(MEASURED.read_text())["ray_call_s"]
    return Latencies(seconds=measured_of(model)["seconds"], ray_call_s=ray_call_s, stretch=stretch)


def wire(config: Any, directory: Any, latencies: Any, meter: Any, *, model: str, engines: int) -> Any:
    """The run as `ponder train` would wire it, on simulated services."""
    from scale_world import Answers, Engine, Handle, Nobody, SimulatedLearner

    from launch import build, task_splits
    from prm.actor import StepScorerClient
    from rewards.actor import JudgeClient
    from rewards.failures import FailureFiles
    from rewards.routing import Routing
    from rollout.pool import EnginePool, Member

    tasks = task_splits.load_task_splits(config.tasks, seed=config.run.seed)
    verifiers = plugins.verifier_targets(config.rewards, (*tasks.train, *tasks.held_out))
    probes = [[5, 6, 7], [8, 9]]
    held = [np.zeros(len(ids), dtype=np.float32) for ids in probes]
    answers = Answers(is_text=model != "tiny")
    members = [Member(f"rollout-{i}", Handle(Engine(answers, held), latencies, meter), "none") for i in range(engines)]
    pool = EnginePool(members, call_timeout_s=1e6)
    services = build.Services(
        engines=pool,
        learner=SimulatedLearner(config.learner, config.loss, latencies, held),
        judge=JudgeClient(Nobody(), config.rewards, Routing(config.rewards, verifiers), FailureFiles(directory.root)),
        scorer=StepScorerClient(Nobody(), config.prm),
        reference=None,
    )
    console = ConsoleReporter(
        Console(file=io.StringIO(), width=120), title="simulated", num_steps=config.loop.num_steps
    )
    reporter = PhaseReporter(console, PhaseLog(directory.phases), num_steps=config.loop.num_steps)
    return build.build_run(
        config, directory, services, tasks=tasks, probes=probes, geometry_prompts=[], reporter=reporter
    )


# ------------------------------------------------------------------------------------------------ measuring


def measure(run: Path) -> None:
    """Quantiles of every kind of call in the traces of a run, the seconds of its steps, and the cost of a Ray call."""
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    for path in sorted((run / "traces").glob("step-*.json")):
        found = json.loads(path.read_text())["traceEvents"]
        roles = {e["pid"]: e["args"]["name"] for e in found if e["ph"] == "M"}
        for event in found:
            role = roles[event["pid"]]
            is_call = role.startswith("rollout-") or (role, event["name"]) == ("learner", "learn")
            if event["ph"] == "X" and is_call and "is_cut" not in event.get("args", {}):
                seconds[event["name"]].append(event["dur"] / 1e6)
    missing = [kind for kind in KINDS if not seconds[kind]]
    if missing:
        raise ValueError(f"the traces of {run} hold no {', '.join(missing)}; train with run.trace_steps")
    rows = [json.loads(line)["metrics"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    config = recipe.load(run / "config.json", [])
    kept: dict[str, Any] = {"ray_call_s": ray_call_s()}
    kept["tiny"] = {
        "groups_per_engine": config.loop.groups_per_step // config.rollout.num_engines,
        "step_s": statistics.median(row["time/step_s"] for row in rows if "time/step_s" in row),
        "count": {kind: len(seconds[kind]) for kind in KINDS},
        "seconds": {
            kind: [round(float(q), 6) for q in np.quantile(seconds[kind], np.linspace(0, 1, 21))] for kind in KINDS
        },
    }
    MEASURED.write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept))


def ray_call_s(calls: int = 2000, at_once: int = 64) -> float:
    """Processor seconds of this process for one call of an actor and its answer of some kilobytes, Ray's own threads
    included."""
    from launch import cluster
    from launch.config import ClusterConfig

    with tempfile.TemporaryDirectory() as logs, cluster.session(ClusterConfig(num_cpus=1), log_dir=Path(logs)):
        import ray

        class Echo:
            async def answer(self, payload: bytes) -> bytes:
                return payload

        actor = ray.remote(Echo).options(max_concurrency=1000, num_cpus=0).remote()
        payload = bytes(10_000)

        async def work(count: int) -> None:
            for _ in range(count // at_once):
                await asyncio.gather(*(actor.answer.remote(payload) for _ in range(at_once)))

        asyncio.run(work(4 * at_once))
        start = time.process_time()
        asyncio.run(work(calls))
        return (time.process_time() - start) / (calls // at_once * at_once)


if __name__ == "__main__":
    main()
