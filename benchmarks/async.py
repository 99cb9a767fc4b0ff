"""What does generating ahead buy? The same runs with buffer.max_lag 0, 1 and 2, and the bound from their own timings.

The synchronous run spends g seconds a step on generation (until the batch is complete) and l on learning and
publishing. Run side by side without loss they would take max(g, l) a step, so no lag can bring a step below

    bound_ratio = max(g, l) / (g + l)        of the synchronous one.

`wall_ratio_lag1` and `wall_ratio_lag2` are the measured ratios of wall time over all steps but the first WARMUP, as
medians over seeds, the lags of a seed run one after the other in changing order. `reward_gap` is the mean reward of the
last WINDOW steps of lag 0 minus that of lag 1, over seeds; its range is in the details. A machine with fewer
free cores than rollout.threads_per_engine + learner.threads_per_rank cannot come near the bound.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from objectives import cold_model
from result import arguments, finish
from short_runs import ShortRuns

RECIPE = Path("launch/recipes/quickstart.toml")
LAGS = (0, 1, 2)
WARMUP, WINDOW = 4, 6
STEPS = 30
COMMON = [
    "budgets.shaping.type=none",
    "prm.type=none",
    "credit.process=none",
    "evaluate.at_start=false",
    "evaluate.at_end=false",
]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/async"), help="where the run directories go")
    options = parser.parse_args()
    runs = (options.runs / "quick" if options.quick else options.runs).resolve()
    steps = 10 if options.quick else STEPS
    seeds = options.seeds[:1] if options.quick else options.seeds
    found: dict[tuple[int, int], dict[str, Any]] = {}
    with ShortRuns(RECIPE, runs, cold_model(runs, quick=options.quick), common=COMMON) as session:
        for seed in seeds:
            for lag in LAGS[seed % len(LAGS) :] + LAGS[: seed % len(LAGS)]:
                settings = [f"run.seed={seed}", f"buffer.max_lag={lag}", f"loop.num_steps={steps}"]
                found[seed, lag] = timings(session.run(f"lag{lag}-seed{seed}", settings))
    name = "async_quick" if options.quick else "async"
    metrics, details = compare(found, seeds)
    finish(name, metrics, details, store=options.store)


def timings(directory: Path) -> dict[str, Any]:
    """Medians of a step's seconds after the warm-up, and the reward at the end."""
    rows = [json.loads(line)["metrics"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "time/step_s" in row]

    def median(*names: str) -> float:
        return statistics.median(sum(row.get(name, 0.0) for name in names) for row in steps[WARMUP:])

    return {
        "step_s": median("time/step_s"),
        "generate_s": median("time/starve_s"),  # until the batch is there: generation with everything behind it
        "learn_s": median("time/learn_s", "time/publish_s"),
        "reward": statistics.fmean(
            row["train/high/accuracy"] for row in steps[-WINDOW:] if "train/high/accuracy" in row
        ),
        "max_staleness": max(row.get("buffer/max_staleness", 0) for row in steps),
    }


def compare(found: dict[tuple[int, int], dict[str, Any]], seeds: list[int]) -> tuple[dict[str, float], dict[str, Any]]:
    bounds = [bound(found[seed, 0]) for seed in seeds]
    metrics = {"bound_ratio": statistics.median(bounds)}
    for lag in LAGS[1:]:
        ratios = [found[seed, lag]["step_s"] / found[seed, 0]["step_s"] for seed in seeds]
        metrics[f"wall_ratio_lag{lag}"] = statistics.median(ratios)
    gaps = [found[seed, 0]["reward"] - found[seed, 1]["reward"] for seed in seeds]
    metrics["reward_gap"] = statistics.fmean(gaps)
    runs = {f"lag{lag}_seed{seed}": row for (seed, lag), row in sorted(found.items())}
    return metrics, {"reward_gap_range": [min(gaps), max(gaps)], "runs": runs}


def bound(run: dict[str, Any]) -> float:
    generate, learn = run["generate_s"], run["learn_s"]
    return max(generate, learn) / (generate + learn)


if __name__ == "__main__":
    main()
