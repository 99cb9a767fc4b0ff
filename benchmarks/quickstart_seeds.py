"""Does RL lift the quickstart in every seed? Runs the main job for several seeds and compares before with after.

The question of the README: held-out accuracy at high effort before and after RL, sampled and greedy, with 95 %
intervals; the order of the efforts; seconds; peak memory. Runs side by side (--jobs) slow each other down.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from result import arguments, finish

QUICK = ["--set", "loop.num_steps=4", "--set", "sft.num_steps=60", "--set", "evaluate.num_tasks=50"]


def run_seed(seed: int, runs: Path, *, quick: bool) -> None:
    """One quickstart with this seed below `runs`. Raises CalledProcessError when it fails."""
    command = [str(Path(sys.executable).with_name("ponder")), "train", "launch/recipes/quickstart.toml"]
    settings = ["--set", f"run.seed={seed}", "--set", f"run.dir={runs}", "--set", f"run.name={run_name(seed)}"]
    subprocess.run([*command, *settings, *(QUICK if quick else [])], check=True, stdout=sys.stderr)


def run_name(seed: int) -> str:
    return f"quickstart-seed{seed}"


def newest_summary(seed: int, runs: Path) -> dict[str, Any]:
    """The summary.json of the newest finished run of this seed. Raises ValueError without one."""
    found = list(runs.glob(f"{run_name(seed)}*/summary.json"))
    if not found:
        raise ValueError(f"no finished run of seed {seed} in {runs}; leave --collect out to make one")
    summary: dict[str, Any] = json.loads(max(found, key=lambda path: path.stat().st_mtime).read_text())
    return summary


def lift(summary: dict[str, Any], table: str, effort: str = "high") -> float:
    """Percentage points gained from before to after RL."""
    row = summary[table][effort]
    return 100 * float(row["after"]["accuracy"] - row["before"]["accuracy"])


def is_ordered(summary: dict[str, Any]) -> bool:
    """High is the most accurate effort after RL, and low thinks at most half as long as high."""
    after = {effort: row["after"] for effort, row in summary["efforts"].items()}
    most_accurate = max(after, key=lambda effort: after[effort]["accuracy"])
    return bool(most_accurate == "high" and after["low"]["thinking_tokens"] <= 0.5 * after["high"]["thinking_tokens"])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="where the run directories go")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; each uses about one core at a time")
    parser.add_argument("--collect", action="store_true", help="run nothing, read the finished runs below --runs")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.quick else options.seeds
    if not options.collect:
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda seed: run_seed(seed, options.runs, quick=options.quick), seeds))
    summaries = {seed: newest_summary(seed, options.runs) for seed in seeds}
    values = list(summaries.values())
    metrics = {
        "num_seeds": len(values),
        "lift_sampled_min": min(lift(s, "efforts") for s in values),
        "lift_sampled_mean": sum(lift(s, "efforts") for s in values) / len(values),
        "lift_greedy_min": min(lift(s, "greedy") for s in values),
        "lift_greedy_mean": sum(lift(s, "greedy") for s in values) / len(values),
        "ordered_seeds": sum(is_ordered(s) for s in values),
        "total_s_max": max(s["seconds"]["total"] for s in values),
        "peak_rss_gib_max": max(s["peak_rss_gib"] for s in values),
    }
    name = "quickstart_seeds_quick" if options.quick else "quickstart_seeds"
    finish(name, metrics, {f"seed{seed}": summary for seed, summary in summaries.items()}, store=options.store)


if __name__ == "__main__":
    main()
