"""What replay keeps, and what RoRecomp shortens: two domains, one to learn and one to keep, three seeds.

One cold start that knows differences well and sums badly (benchmarks/replay.toml), then short runs with outcome rewards
alone, each of the same number of groups:

    none      sums only: plain GRPO. What becomes of the differences is what is forgotten
    uniform   every fourth group is a difference, and all advantages count alike
    recap     the same groups, with RECAP's weights over the two domains
    rorecomp  sums only; short right and long wrong answers at once, the rest later with a falling probability

Read on held-out tasks of both domains, one sampled answer each, before, half-way and at the end. target_accuracy,
retained_accuracy and length (response tokens of the target's answers) are of the last evaluation, over all seeds; the
details have the Wilson 95 % interval of the answers taken together, the seeds one by one, and the curves. Arms with
general groups see three quarters of the target groups; target_accuracy_at_equal_groups compares at as many of them.
forgotten is none's retained accuracy before training minus after it: without forgetting there is nothing for replay to
prevent.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from result import arguments, finish
from short_runs import ShortRuns, cold_model, finished

from rl.evaluate import wilson_interval

RECIPE = Path("benchmarks/replay.toml")
TARGET, GENERAL = "target", "general"
ALONE = ["sampling.sampler.shares={target = 1.0, general = 1e-9}"]
RECAP = ["mix.reweight.window=3", "mix.reweight.temperature=1.0"]
ARMS: Mapping[str, list[str]] = {
    "none": ALONE,
    "uniform": [],
    "recap": RECAP,
    "rorecomp": [*ALONE, "mix.replay.type=rorecomp"],
}
QUICK = ["loop.num_steps=2", "loop.groups_per_step=8", "loop.eval_every=1", "evaluate.num_tasks=16"]
QUICK_COLD = ["sft.num_steps=60"]


@dataclass(frozen=True)
class Evaluated:
    """The held-out answers of one evaluation, by domain: right or not, and response tokens."""

    step: int
    target_groups: int  # that were generated for training before it
    tokens: int  # the same, of all domains
    right: Mapping[str, list[bool]]
    length: Mapping[str, list[int]]


def read(directory: Path) -> list[Evaluated]:
    """The evaluations of a run, in order."""
    groups, tokens = {0: 0}, {0: 0}
    for path in sorted(directory.glob("groups/step-*.parquet")):
        table = pq.read_table(path, columns=["group_id", "source", "sampled"]).to_pylist()
        step = int(path.stem.removeprefix("step-"))
        groups[step] = groups[step - 1] + len({row["group_id"] for row in table if row["source"] == TARGET})
        tokens[step] = tokens[step - 1] + sum(sum(row["sampled"]) for row in table)
    found = []
    for path in sorted(directory.glob("groups/eval-*.parquet")):
        step = int(path.stem.removeprefix("eval-"))
        right: dict[str, list[bool]] = {TARGET: [], GENERAL: []}
        length: dict[str, list[int]] = {TARGET: [], GENERAL: []}
        for row in pq.read_table(path, columns=["source", "score", "sampled"]).to_pylist():
            right[row["source"]].append(row["score"] is not None and row["score"] >= 0.5)
            length[row["source"]].append(sum(row["sampled"]))
        found.append(Evaluated(step, groups[step], tokens[step], right, length))
    return found


def share(answers: Sequence[bool]) -> float:
    return statistics.fmean(answers) if answers else float("nan")


def with_interval(runs: Sequence[Evaluated], domain: str) -> dict[str, Any]:
    """Share of right answers of all seeds together, its Wilson interval, and the seeds one by one."""
    answers = [right for run in runs for right in run.right[domain]]
    low, high = wilson_interval(sum(answers), len(answers))
    seeds = [share(run.right[domain]) for run in runs]
    return {"accuracy": share(answers), "low": low, "high": high, "answers": len(answers), "seeds": seeds}


def at_groups(runs: Sequence[Evaluated], count: int) -> float:
    """Target accuracy after `count` target groups, on straight lines between the evaluations of a run."""
    return float(np.interp(count, [r.target_groups for r in runs], [share(r.right[TARGET]) for r in runs]))


def summary(found: Mapping[str, Mapping[int, Sequence[Evaluated]]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and details from the evaluations by arm and seed."""
    count = min(run[-1].target_groups for runs in found.values() for run in runs.values())
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {"equal_target_groups": count, "arms": {}}
    for arm, runs in found.items():
        first, last = ([run[place] for run in runs.values()] for place in (0, -1))
        lengths = [statistics.fmean(run.length[TARGET]) for run in last]
        row = {
            "target": with_interval(last, TARGET),
            "retained": with_interval(last, GENERAL),
            "retained_before": with_interval(first, GENERAL),
            "target_before": with_interval(first, TARGET),
            "length": {"mean": statistics.fmean(lengths), "seeds": lengths},
            "length_before": statistics.fmean(statistics.fmean(run.length[TARGET]) for run in first),
            "target_at_equal_groups": statistics.fmean(at_groups(run, count) for run in runs.values()),
            "tokens": statistics.fmean(run.tokens for run in last),
            "curves": {
                seed: [[r.step, r.target_groups, share(r.right[TARGET]), share(r.right[GENERAL])] for r in run]
                for seed, run in runs.items()
            },
        }
        details["arms"][arm] = row
        metrics[f"target_accuracy_{arm}"] = row["target"]["accuracy"]
        metrics[f"target_accuracy_at_equal_groups_{arm}"] = row["target_at_equal_groups"]
        metrics[f"retained_accuracy_{arm}"] = row["retained"]["accuracy"]
        metrics[f"length_{arm}"] = row["length"]["mean"]
    if "none" in details["arms"]:
        plain = details["arms"]["none"]
        metrics["forgotten"] = plain["retained_before"]["accuracy"] - plain["retained"]["accuracy"]
        if "rorecomp" in details["arms"]:
            metrics["length_ratio_rorecomp_to_grpo"] = metrics["length_rorecomp"] / metrics["length_none"]
    return metrics, details


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/replay"), help="where the run directories go")
    parser.add_argument("--only", nargs="+", choices=sorted(ARMS), help="only these arms")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.quick else options.seeds
    until = time.monotonic() + 60 * options.minutes
    names = {(arm, seed): f"{arm}-seed{seed}" for seed in seeds for arm in options.only or ARMS}
    with ShortRuns(RECIPE, runs, cold_model(RECIPE, runs, QUICK_COLD if options.quick else [])) as session:
        for (arm, seed), name in names.items():
            if time.monotonic() < until or finished(name, runs) is not None:
                session.run(name, [f"run.seed={seed}", *ARMS[arm], *(QUICK if options.quick else [])])
    found: dict[str, dict[int, list[Evaluated]]] = {}
    for (arm, seed), name in names.items():
        if (place := finished(name, runs)) is not None:
            found.setdefault(arm, {})[seed] = read(place)
    if not found:
        raise SystemExit(f"no finished run in {runs}")
    metrics, details = summary(found)
    for arm, row in details["arms"].items():
        print(f"{arm:10} " + "  ".join(f"{k} {v}" for k, v in row.items() if k != "curves"), file=sys.stderr)
    finish("replay_quick" if options.quick else "replay", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
