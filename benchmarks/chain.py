"""What does each stage of the chain `tulu` gain, and what does it forget? SFT, DPO and RLVR on the quickstart's model.

Accuracy on three suites after each stage, with 95 % intervals and the drop against the best row before; forgetting in
one number; what preference optimization did to its pairs; seconds. A chain that was interrupted below --runs goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from result import arguments, finish

QUICK = [
    *("stages.sft.settings.sft.num_steps=60", "stages.dpo.pairs.num_tasks=64", "stages.dpo.optimize.num_steps=6"),
    *("stages.rlvr.settings.loop.num_steps=2", "suites.sums.limit=20", "suites.longer.limit=10"),
]


def run_chain(runs: Path, *, quick: bool, seed: int) -> Path:
    """The chain's directory, all of it run. Raises CalledProcessError when it fails."""
    name = f"tulu-seed{seed}" + ("-quick" if quick else "")
    root = runs / name
    command = [str(Path(sys.executable).with_name("ponder")), "chain"]
    if (root / "chain.json").is_file():
        command += ["--resume", str(root)]
    else:
        changes = [f"chain.dir={runs}", f"chain.name={name}", f"settings.run.seed={seed}", *(QUICK if quick else [])]
        command += ["tulu", *(part for change in changes for part in ("--set", change))]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return root


def figures(root: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and details of a finished chain."""
    summary = json.loads((root / "summary.json").read_text())
    matrix = json.loads((root / "forgetting.json").read_text())
    metrics = {"forgetting": matrix["forgetting"]}
    for row in matrix["rows"]:
        for suite, cell in row["suites"].items():
            metrics[f"accuracy_{row['stage']}_{suite}"] = cell["accuracy"]["value"]
    metrics["total_s"] = sum(stage["seconds"] for stage in summary["stages"]) + summary["evaluation_seconds"]
    return metrics, {"rows": matrix["rows"], "num_tasks": matrix["num_tasks"], "stages": summary["stages"]}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=Path, default=Path("runs/benchmark"), help="where the chain goes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = run_chain(options.runs, quick=options.quick, seed=options.seed)
    metrics, details = figures(root)
    finish("chain", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
