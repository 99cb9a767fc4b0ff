"""RMT against plain GRPO at equal generated tokens: accuracy and length on sums, three seeds.

One cold start (benchmarks/rmt.toml) on solutions whose prompt names how many tokens they think for. Then two arms from
it, with outcome rewards:

    grpo   the prompt always names 20 tokens, which is what the long solutions take
    rmt    the number falls from 20 by RMT's schedule, the triangle pays for meeting it, tasks come from tiers of
           difficulty (the number of terms) that move from easy to hard, and sums of three terms are learned next token
           by next token beside it

The arms are evaluated every third step on the same held-out tasks, one answer each. `*_accuracy` and `*_tokens` (of
thinking) are read where both arms have generated as many tokens for training as the arm that generated fewer, between
evaluations along a line; means over seeds, with the smallest and largest in the details, and 95 % intervals (Wilson's
for accuracy) of the answers of the last evaluation taken together. The rmt arm has more steps, because its answers are
shorter; it is evaluated with the number that its schedule ends with, from the start. `*_before` is the cold start.

What it is not: RMT on text. There the tasks are tokens of a text that a frozen model is unsure of (`ponder tasks
predict`, recipe rmt_qwen); a model of this size has no text to be unsure of. And the lengths of the cold start's
solutions follow from the number of terms, so most numbers of the schedule are new to it: a cold start that can meet
any number comes first if this is to say something about the method.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from result import arguments, finish
from short_runs import ShortRuns, cold_model

from rl.evaluate import wilson_interval
from rollout.tasks.sums import generate

RECIPE = Path("benchmarks/rmt.toml")
STEPS = {"grpo": 12, "rmt": 18}
NUMBER, FACTOR = 20, 0.3
QUICK, QUICK_STEPS = ["loop.groups_per_step=8", "evaluate.num_tasks=40"], 3
QUICK_COLD = ["sft.num_steps=60"]


def settings_of(arm: str, text: Path, steps: int) -> list[str]:
    if arm == "grpo":
        said = f"budgets.efforts.high.numbers={{ low = {NUMBER}, high = {NUMBER}, is_cap = false }}"
        return [f"loop.num_steps={steps}", said]
    return [
        f"loop.num_steps={steps}",
        f"budgets.efforts.high.decay={{ first = {NUMBER}, factor = {FACTOR}, steps = {steps} }}",
        'budgets.shaping={ type = "triangle", weight = 0.2 }',
        "sampling.judge_on=final_reward",
        f'sampling.sampler={{ type = "tiers", steps = {steps} }}',
        f"mix.text.paths=['{text}']",
        "mix.text.chunk_tokens=64",
        "mix.text.chunks_per_step=16",
    ]


def write_text(path: Path) -> None:
    """Sums of three terms, which no task has."""
    tasks = generate(num_tasks=700, seed=0, min_terms=3, max_terms=3)
    path.write_text(";".join(task.prompt[0].content + task.answer for task in tasks))


def curve_of(directory: Path) -> list[dict[str, float]]:
    """Per evaluation of a run: tokens generated for training before it, accuracy and mean thinking tokens."""
    tokens, found = {0: 0}, []
    for path in sorted(directory.glob("groups/step-*.parquet")):
        step = int(path.stem.removeprefix("step-"))
        sampled = pq.read_table(path, columns=["sampled"]).column("sampled").to_pylist()
        tokens[step] = tokens[step - 1] + sum(map(sum, sampled))
    for path in sorted(directory.glob("groups/eval-*.parquet")):
        rows = pq.read_table(path, columns=["effort", "score", "num_thinking_tokens"]).to_pylist()
        rows = [row for row in rows if row["effort"] == "high" and row["score"] is not None]
        thinking = [row["num_thinking_tokens"] for row in rows]
        found.append(
            {
                "tokens": tokens[int(path.stem.removeprefix("eval-"))],
                "right": sum(row["score"] == 1 for row in rows),
                "answers": len(rows),
                "accuracy": statistics.fmean(row["score"] == 1 for row in rows),
                "thinking": statistics.fmean(thinking),
                "deviation": statistics.pstdev(thinking),
            }
        )
    return found


def compare(curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]]) -> tuple[dict[str, float], dict[str, Any]]:
    """`curves`: by arm, of each seed. Figures at the most tokens that every run has generated."""
    equal = min(curve[-1]["tokens"] for runs in curves.values() for curve in runs)
    metrics, details = {"equal_tokens": float(equal)}, {"curves": curves}
    for arm, runs in curves.items():
        for name, column in (("accuracy", "accuracy"), ("tokens", "thinking")):
            values = [float(np.interp(equal, [p["tokens"] for p in c], [p[column] for p in c])) for c in runs]
            metrics[f"{arm}_{name}"] = statistics.fmean(values)
            details[f"{arm}_{name}_range"] = [min(values), max(values)]
        right, answers = (int(sum(c[-1][key] for c in runs)) for key in ("right", "answers"))
        details[f"{arm}_last_accuracy"] = [right / answers, *wilson_interval(right, answers)]
        mean = statistics.fmean(c[-1]["thinking"] for c in runs)
        squares = statistics.fmean(c[-1]["deviation"] ** 2 + c[-1]["thinking"] ** 2 for c in runs)
        error = 1.96 * math.sqrt((squares - mean**2) / answers)
        details[f"{arm}_last_tokens"] = [mean, mean - error, mean + error]
        details[f"{arm}_before"] = {key: statistics.fmean(c[0][key] for c in runs) for key in ("accuracy", "thinking")}
    metrics["token_ratio"] = metrics["rmt_tokens"] / metrics["grpo_tokens"]
    return metrics, details


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/rmt"), help="where the run directories go")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.quick else options.seeds
    text = (runs / "sums.txt").resolve()
    write_text(text)
    small = QUICK if options.quick else []
    curves: dict[str, list[list[dict[str, float]]]] = {arm: [] for arm in STEPS}
    with ShortRuns(
        RECIPE, runs, cold_model(RECIPE, runs, QUICK_COLD if options.quick else []), common=small
    ) as session:
        for seed in seeds:
            for arm, steps in STEPS.items():
                settings = settings_of(arm, text, QUICK_STEPS if options.quick else steps)
                place = session.run(f"{arm}-seed{seed}", [f"run.seed={seed}", *settings])
                curves[arm].append(curve_of(place))
                print(arm, seed, json.dumps(curves[arm][-1][-1]), file=sys.stderr, flush=True)
    metrics, details = compare(curves)
    metrics["num_seeds"] = len(seeds)
    finish("rmt_quick" if options.quick else "rmt", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
