"""Which task next? Reward against generated tokens for uniform, DAPO, VADE and curriculum sampling.

One cold start (the quickstart's, which saw sums of 4 to 6 terms), then short runs on a pool of sums, three seeds; the
seed decides pool, order and sampling. Two pools (--pool):

    mixed       about 180 sums of 3 to 8 terms, 24 steps. Sums of 4 terms are solved, those of 5 and 6 are learned, and
                those of 3, which the cold start never saw, are as hard as those of 7: the number of terms misleads
    unfiltered  about 155 sums of 4 to 12 terms, 36 steps. Those of 8 terms and more are never right, so that a fifth of
                the groups can teach; the number of terms orders the tasks as the policy finds them

All arms drop groups without signal and differ in what comes next:

    uniform      every task once per epoch
    dapo         uniform; a dropped group gives its place to a fresh task, up to MAX_REFILLS times
    vade         Thompson sampling of the tasks whose next group is likely to teach
    curriculum   stages by number of terms

Reward is the accuracy on held-out sums, one sampled answer each (200 of the same mix every fourth step, or 240 of 4 to
7 terms every sixth): training accuracy cannot be compared between samplers, which train on different mixes. Tokens are
all that were generated for training, dropped groups included. The goal is uniform's final reward, the mean of its last
LAST evaluations over the seeds. An arm is there when the mean of LAST evaluations in a row, averaged over the seeds,
reaches the goal for the first time; its tokens then, divided by uniform's tokens when it is there itself, are its
ratio. An arm that never gets there has no ratio, and `missed_goal_by` says by how much. tokens_ratio_of_most is the
same for 90 % of uniform's gain. informative_share is the share of generated groups with right and wrong answers;
accuracy_last_by_terms says what was learned, and what was lost, in the last evaluation. DAPO generates up to four
groups for one and never gets more than 24 steps.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from result import arguments, finish
from short_runs import ShortRuns, cold_model, finished

RECIPE = Path("benchmarks/sampling.toml")
QUICKSTART = Path("launch/recipes/quickstart.toml")
MAX_REFILLS, LAST, SIBLINGS = 3, 2, 8
MOST = 0.9  # of what uniform gains: the last tenth is where a curve is flat and noise decides
EVALUATED = "eval/high/sampled/accuracy"
QUICK = ["loop.num_steps=2", "loop.groups_per_step=8", "loop.eval_every=1", "evaluate.num_tasks=16"]

ARMS: Mapping[str, list[str]] = {
    "uniform": [],
    "vade": ["sampling.sampler.type=vade"],
    "dapo": ["sampling.on_drop=replace", f"sampling.max_refills={MAX_REFILLS}", "loop.num_steps=24"],
    "curriculum": ["sampling.sampler.type=curriculum", "sampling.sampler.window=24"],
}


POOLS: Mapping[str, list[str]] = {
    "mixed": [],
    "unfiltered": [
        "tasks.train.num_tasks=162",
        "tasks.train.params={min_terms = 4, max_terms = 12}",
        "tasks.held_out.num_tasks=240",
        'tasks.held_out.source={type = "procedural", name = "sums", num_tasks = 240, params = {max_terms = 7}}',
        "budgets.max_prompt_tokens=32",
        "loop.num_steps=36",
        "loop.eval_every=6",
    ],
}


@dataclass(frozen=True)
class Curve:
    """One run: per step 0, 1, ... tokens so far; accuracy by step of its evaluations; group counts of all steps."""

    tokens: list[int]
    accuracy: dict[int, float]
    num_groups: int
    num_informative: int
    by_terms: Mapping[int, float] = field(default_factory=dict)  # last evaluation: accuracy by number of terms

    def points(self) -> tuple[list[int], list[float]]:
        steps = sorted(self.accuracy)
        return [self.tokens[step] for step in steps], [self.accuracy[step] for step in steps]

    def as_json(self) -> dict[str, list[Any]]:
        tokens, accuracy = self.points()
        return {"updates": sorted(self.accuracy), "tokens": tokens, "accuracy": accuracy}

    def after(self, updates: int) -> float:
        """Accuracy after so many updates, on straight lines between evaluations."""
        steps = sorted(self.accuracy)
        return float(np.interp(updates, steps, [self.accuracy[step] for step in steps]))

    def smoothed(self) -> tuple[list[int], list[float]]:
        """Tokens at an evaluation, mean of the LAST evaluations up to it."""
        tokens, accuracy = self.points()
        return tokens[LAST - 1 :], [
            statistics.fmean(accuracy[i - LAST + 1 : i + 1]) for i in range(LAST - 1, len(tokens))
        ]


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
    return Curve(tokens, accuracy, num_groups, num_informative, by_terms(directory, max(accuracy)))


def by_terms(directory: Path, step: int) -> dict[int, float]:
    """Held-out accuracy by number of terms."""
    right: dict[int, list[bool]] = {}
    table = pq.read_table(directory / "groups" / f"eval-{step:06d}.parquet", columns=["prompt", "score"])
    for row in table.to_pylist():
        right.setdefault(row["prompt"][-1]["content"].count("+") + 1, []).append(
            row["score"] is not None and row["score"] >= 0.5
        )
    return {terms: statistics.fmean(answers) for terms, answers in sorted(right.items())}


def mean_curve(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Mean smoothed accuracy over the seeds, on a grid of tokens that every one of them has been at."""
    known = [curve.smoothed() for curve in curves]
    grid = np.linspace(max(tokens[0] for tokens, _ in known), min(tokens[-1] for tokens, _ in known), 400)
    return grid, np.mean([np.interp(grid, *one) for one in known], axis=0)


def tokens_at(curves: Sequence[Curve], goal: float) -> float | None:
    """Tokens at which the mean curve first reaches the goal, or None."""
    grid, accuracy = mean_curve(curves)
    reached = np.flatnonzero(accuracy >= goal - 1e-9)
    return float(grid[reached[0]]) if reached.size else None


def summary(curves: Mapping[tuple[str, int], Curve]) -> dict[str, Any]:
    by_arm: dict[str, list[Curve]] = {}
    for (arm, _), curve in curves.items():
        by_arm.setdefault(arm, []).append(curve)
    found = {arm: of_arm(mine, by_arm) for arm, mine in by_arm.items()}
    return {"arms": found, "curves": {f"{arm}-{seed}": curve.as_json() for (arm, seed), curve in curves.items()}}


def of_arm(mine: Sequence[Curve], by_arm: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    grid, accuracy = mean_curve(mine)
    common = min(curve.tokens[-1] for curves in by_arm.values() for curve in curves)
    updates = min(max(curve.accuracy) for curves in by_arm.values() for curve in curves)
    last = [curve.smoothed()[1][-1] for curve in mine]
    row: dict[str, Any] = {
        "seeds": len(mine),
        "accuracy_before": statistics.fmean(curve.points()[1][0] for curve in mine),
        "accuracy_last": statistics.fmean(last),
        "accuracy_last_by_seed": last,
        "accuracy_at_equal_tokens": float(np.interp(common, grid, accuracy)),
        "equal_tokens": common,
        "accuracy_at_equal_updates": statistics.fmean(curve.after(updates) for curve in mine),
        "equal_updates": updates,
        "tokens": statistics.fmean(curve.tokens[-1] for curve in mine),
        "updates": statistics.fmean(len(curve.tokens) - 1 for curve in mine),
        "accuracy_last_by_terms": {
            terms: statistics.fmean(curve.by_terms[terms] for curve in mine) for terms in mine[0].by_terms
        },
        "informative_share": sum(c.num_informative for c in mine) / sum(c.num_groups for c in mine),
        "tokens_per_informative_group": sum(c.tokens[-1] for c in mine) / max(1, sum(c.num_informative for c in mine)),
    }
    if "uniform" in by_arm:
        uniform = mean_curve(by_arm["uniform"])
        goal = float(uniform[1][-1])
        mark, paid = tokens_at(mine, goal), tokens_at(by_arm["uniform"], goal)
        row["goal"], row["tokens_at_goal"], row["reached"] = goal, mark, mark is not None
        row["tokens_ratio_to_uniform"] = None if mark is None or paid is None else mark / paid
        row["missed_goal_by"] = max(0.0, goal - float(accuracy.max()))
        before = statistics.fmean(curve.points()[1][0] for curve in by_arm["uniform"])
        most = before + MOST * (goal - before)
        near, paid_near = tokens_at(mine, most), tokens_at(by_arm["uniform"], most)
        row["tokens_ratio_of_most"] = None if near is None or paid_near is None else near / paid_near
    return row


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--pool", choices=sorted(POOLS), default="mixed", help="which tasks are sampled from")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/sampling"), help="where the run directories go")
    parser.add_argument("--model", type=Path, help="a cold-started model directory; without it one is made")
    parser.add_argument("--only", nargs="+", choices=sorted(ARMS), help="only these arms")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    options = parser.parse_args()
    place = options.runs if options.pool == "mixed" else options.runs / options.pool
    runs = place / "quick" if options.quick else place
    runs.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.quick else options.seeds
    pairs = [(arm, seed) for seed in seeds for arm in (options.only or ARMS)]
    until = time.monotonic() + 60 * options.minutes
    model = (options.model or cold_model(QUICKSTART, runs)).resolve()
    with ShortRuns(RECIPE, runs, model, common=POOLS[options.pool]) as session:
        for arm, seed in pairs:
            if time.monotonic() < until or finished(f"{arm}-seed{seed}", runs) is not None:
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
        metrics[f"accuracy_at_equal_updates_{arm}"] = row["accuracy_at_equal_updates"]
        if row.get("missed_goal_by"):
            metrics[f"missed_goal_by_{arm}"] = row["missed_goal_by"]
        if row.get("tokens_ratio_of_most") is not None:
            metrics[f"{arm}_tokens_ratio_of_most"] = row["tokens_ratio_of_most"]
        if row.get("tokens_ratio_to_uniform") is not None:
            metrics[f"{arm}_tokens_ratio_to_uniform"] = row["tokens_ratio_to_uniform"]
        print(f"{arm:12} " + "  ".join(f"{k} {v}" for k, v in row.items()), file=sys.stderr)
    name = "sampling" if options.pool == "mixed" else f"sampling_{options.pool}"
    finish(f"{name}_quick" if options.quick else name, metrics, found, store=options.store)


if __name__ == "__main__":
    main()
