"""Does the main job run on a real pretrained model? Cold start, evaluation, GRPO, evaluation of SmolLM2-135M-Instruct.

    ponder fetch smollm2
    python benchmarks/smollm2.py            # the recipe as it is
    python benchmarks/smollm2.py --quick    # 4 steps of cold start, 3 of GRPO

The question: held-out accuracy per effort before and after, and how many of the groups carried a signal.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from result import arguments, finish

QUICK = {
    "run.name": "smollm2-quick",
    "sft.num_steps": "4",
    "sft.warmup_steps": "1",
    "loop.num_steps": "3",
    "loop.groups_per_step": "4",
    "tasks.held_out.num_tasks": "16",
    "evaluate.num_tasks": "16",
}


def run(runs: Path, settings: dict[str, str]) -> None:
    """The recipe with these settings, in a run directory below `runs`. Raises CalledProcessError when it fails."""
    command = [str(Path(sys.executable).with_name("ponder")), "train", "launch/recipes/smollm2.toml"]
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    subprocess.run([*command, "--set", f"run.dir={runs}", *given], check=True, stdout=sys.stderr)


def newest_run(runs: Path, name: str) -> Path:
    """Directory of the newest finished run. Raises ValueError without one."""
    found = list(runs.glob(f"{name}*/summary.json"))
    if not found:
        raise ValueError(f"no finished run {name!r} in {runs}; leave --collect out to make one")
    return max(found, key=lambda path: path.stat().st_mtime).parent


def steps_of(directory: Path) -> list[dict[str, Any]]:
    """One row of metrics per update."""
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{"step": row["step"], **row["metrics"]} for row in rows if "learner/loss_tokens" in row["metrics"]]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="where the run directories go")
    parser.add_argument("--collect", action="store_true", help="run nothing, read the newest finished run below --runs")
    options = parser.parse_args()
    settings = QUICK if options.quick else {}
    if not options.collect:
        options.runs.mkdir(parents=True, exist_ok=True)
        run(options.runs, settings)
    directory = newest_run(options.runs, settings.get("run.name", "smollm2"))
    summary, steps = json.loads((directory / "summary.json").read_text()), steps_of(directory)
    metrics = {
        "num_updates": len(steps),
        "total_s": summary["seconds"]["total"],
        "peak_rss_gib": summary["peak_rss_gib"],
    }
    for effort, row in summary["efforts"].items():
        metrics |= {f"{effort}_{when}": row[when]["accuracy"] for when in ("before", "after")}
    name = "smollm2_quick" if options.quick else "smollm2"
    finish(name, metrics, {"summary": summary, "steps": steps}, store=options.store)


if __name__ == "__main__":
    main()
