"""Which task next? Reward against generated tokens for uniform, DAPO, VADE and curriculum sampling.

One cold start (the quickstart's, which saw sums of 4 to 6 terms), then short runs on a pool of 192 sums of 3 to 8
terms: short ones are right from the start, the longest nearly always wrong. Three seeds; the seed decides pool, order
and sampling. All arms drop groups without signal and differ in what comes next:

    uniform      every task once per epoch
    dapo         uniform; a dropped group gives its place to a fresh task, up to MAX_REFILLS times
    vade         Thompson sampling of the tasks whose next group is likely to teach
    curriculum   stages by number of terms

Reward is the accuracy on 200 held-out sums of the same mix, one sampled answer each, every fourth step: training
accuracy cannot be compared between samplers, which train on different mixes. Tokens are all that were generated for
training, dropped groups included. An arm's tokens ratio to uniform is the number of tokens at which its mean curve
over the seeds first reaches the mean of uniform's last LAST evaluations, divided by what uniform spent in all; an arm
that never gets there has no ratio, and `reached` says so. informative_share is the share of generated groups with
right and wrong answers.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from result import arguments, finish
from short_runs import ShortRuns, finished

RECIPE = Path("benchmarks/sampling.toml")
QUICKSTART = Path("launch/recipes/quickstart.toml")
MAX_REFILLS, LAST, SIBLINGS = 3, 2, 8
EVALUATED = "eval/high/sampled/accuracy"
QUICK = ["loop.num_steps=2", "loop.groups_per_step=8", "loop.eval_every=1", "evaluate.num_tasks=16"]

ARMS: Mapping[str, list[str]] = {
    "uniform": [],
    "vade": ["sampling.sampler.type=vade"],
    "dapo": ["sampling.on_drop=replace", f"sampling.max_refills={MAX_REFILLS}"],
    "curriculum": ["sampling.sampler.type=curriculum", "sampling.sampler.window=24"],
}


@dataclass(frozen=True)
class Curve:
    """One run: per step 0, 1, ... tokens so far; accuracy by step of its evaluations; group counts of all steps."""

    tokens: list[int]
    accuracy: dict[int, float]
    num_groups: int
    num_informative: int

    def points(self) -> tuple[list[int], list[float]]:
        steps = sorted(self.accuracy)
        return [self.tokens[step] for step in steps], [self.accuracy[step] for step in steps]


def cold_model(runs: Path, model: Path | None) -> Path:
    """The model that every run starts from: given, or the quickstart's cold start, made on first use."""
    found = model or runs / "cold-start" / "start_model"
    if not (found / "config.json").is_file():
        ponder = str(Path(sys.executable).with_name("ponder"))
        place = ["--set", f"run.dir={runs}", "--set", "run.name=cold-start"]
        subprocess.run([ponder, "sft", str(QUICKSTART), *place], check=True, stdout=sys.stderr)
    return found.resolve()


def read_curve(directory: Path) -> Curve:
    tokens, num_groups, num_informative = [0], 0, 0
    for path in sorted(directory.glob("groups/step-*.parquet")):
        table = pq.read_table(path, columns=["sampled", "score"])
        tokens.append(tokens[-1] + sum(int(np.count_nonzero(row)) for row in table["sampled"].to_pylist()))
        scores = np.asarray(table["score"].to_pylist(), dtype=np.float64).reshape(-1, SIBLINGS) >= 0.5
        num_groups += len(scores)
        num_informative += int(np.count_nonzero(scores.any(axis=1) & ~scores.all(axis=1)))
    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    accuracy = {line["step"]: line["metrics"][EVALUATED] for line in lines if EVALUATED in line["metrics"]}
    return Curve(tokens, accuracy, num_groups, num_informative)


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Mean accuracy over the seeds on a grid of tokens up to what every one of them spent."""
    grid = np.linspace(0, min(curve.points()[0][-1] for curve in curves), 400)
    return grid, np.mean([np.interp(grid, *curve.points()) for curve in curves], axis=0)


def summary(curves: Mapping[tuple[str, int], Curve]) -> dict[str, Any]:
    by_arm: dict[str, list[Curve]] = {}
    for (arm, _), curve in curves.items():
        by_arm.setdefault(arm, []).append(curve)
    found = {arm: of_arm(mine, by_arm) for arm, mine in by_arm.items()}
    return {"arms": found, "curves": {f"{arm}-{seed}": curve.points() for (arm, seed), curve in curves.items()}}


def of_arm(mine: Sequence[Curve], by_arm: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    grid, accuracy = mean_curve(mine)
    common = min(curve.tokens[-1] for curves in by_arm.values() for curve in curves)
    last = [statistics.fmean(curve.points()[1][-LAST:]) for curve in mine]
    row: dict[str, Any] = {
        "seeds": len(mine),
        "accuracy_before": statistics.fmean(curve.points()[1][0] for curve in mine),
        "accuracy_last": statistics.fmean(last),
        "accuracy_last_by_seed": last,
        "accuracy_at_equal_tokens": float(np.interp(common, grid, accuracy)),
        "equal_tokens": common,
        "tokens": statistics.fmean(curve.tokens[-1] for curve in mine),
        "informative_share": sum(c.num_informative for c in mine) / sum(c.num_groups for c in mine),
        "tokens_per_informative_group": sum(c.tokens[-1] for c in mine) / max(1, sum(c.num_informative for c in mine)),
    }
    if "uniform" in by_arm:
        uniform = by_arm["uniform"]
        goal = statistics.fmean(statistics.fmean(curve.points()[1][-LAST:]) for curve in uniform)
        reached = np.flatnonzero(accuracy >= goal)
        row["reached"] = bool(reached.size)
        spent = statistics.fmean(curve.tokens[-1] for curve in uniform)
        row["tokens_ratio_to_uniform"] = float(grid[reached[0]]) / spent if reached.size else None
    return row


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/sampling"), help="where the run directories go")
    parser.add_argument("--model", type=Path, help="a cold-started model directory; without it one is made")
    parser.add_argument("--only", nargs="+", choices=sorted(ARMS), help="only these arms")
    parser.add_argument("--collect", action="store_true", help="run nothing, read the finished runs below --runs")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.quick else options.seeds
    pairs = [(arm, seed) for seed in seeds for arm in (options.only or ARMS)]
    if not options.collect:
        with ShortRuns(RECIPE, runs, cold_model(runs, options.model)) as session:
            for arm, seed in pairs:
                settings = [f"run.seed={seed}", *ARMS[arm], *(QUICK if options.quick else [])]
                session.run(f"{arm}-seed{seed}", settings)
    places = {pair: finished(f"{pair[0]}-seed{pair[1]}", runs) for pair in pairs}
    curves = {pair: read_curve(place) for pair, place in places.items() if place is not None}
    if not curves:
        raise SystemExit(f"no finished run in {runs}")
    found = summary(curves)
    metrics: dict[str, float] = {}
    for arm, row in found["arms"].items():
        metrics[f"informative_share_{arm}"] = row["informative_share"]
        metrics[f"accuracy_last_{arm}"] = row["accuracy_last"]
        metrics[f"accuracy_at_equal_tokens_{arm}"] = row["accuracy_at_equal_tokens"]
        if row.get("tokens_ratio_to_uniform") is not None:
            metrics[f"{arm}_tokens_ratio_to_uniform"] = row["tokens_ratio_to_uniform"]
        print(f"{arm:12} " + "  ".join(f"{k} {v}" for k, v in row.items()), file=sys.stderr)
    finish("sampling_quick" if options.quick else "sampling", metrics, found, store=options.store)


if __name__ == "__main__":
    main()
