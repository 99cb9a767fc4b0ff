"""Does process credit learn from fewer tokens than outcome credit? One cold start, every rule, three seeds.

The task is the quickstart's, high effort alone, without length shaping; steps are scored by the exact checker or, for
the arms named `implicit`, by an implicit model that is trained during the run on outcomes alone. Every run starts from
the weights of the quickstart's cold start and trains for the same number of steps, with a held-out evaluation of
sampled answers every EVAL_EVERY steps. Curves are trailing means over WINDOW evaluations, equal for all arms.

    tokens_ratio_to_outcome   tokens an arm generates until its curve reaches the outcome-only arm's last value, over
                              the tokens that the outcome-only arm generated in all; of the mean curves over seeds
    final_accuracy_gain       the arm's curve minus the outcome-only arm's, at the tokens that both have generated

The metrics of these names are the best arm's ratio and the least gain among the DEFAULT arms; each arm's own are beside
them, with a bootstrap interval over seeds in the details. Choosing the best of several arms flatters it: look at all.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will. --only
restricts it to some arms; --collect only reads.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from objectives import cold_model, command, finished
from result import arguments, finish

NUM_STEPS = 20
EVAL_EVERY = 2
WINDOW = 3
HELD_OUT = 400
TARGET_RATIO = 0.7
OUTCOME = "outcome"
QUICK = ["loop.num_steps=4", "loop.groups_per_step=16", "loop.eval_every=1", "evaluate.num_tasks=20"]
COMMON = [
    "sft=none",
    "budgets.shaping.type=none",
    "budgets.phases=[]",
    "budgets.efforts={ high = { instruction = '<high>', max_thinking_tokens = 80, max_answer_tokens = 8 } }",
    "evaluate.greedy=false",
    f"evaluate.num_tasks={HELD_OUT}",
    f"loop.num_steps={NUM_STEPS}",
    f"loop.eval_every={EVAL_EVERY}",
    "loop.checkpoint_every=0",
]


def rule(kind: str, more: str = "", *, prm: Sequence[str] = ()) -> list[str]:
    return [f"credit.process={{ type = '{kind}'{', ' + more if more else ''} }}", *prm]


IMPLICIT = [
    "prm.type=implicit",
    "prm.online={ lr = 1e-4 }",
    "prm.max_tokens=160",
    "prm.splitter={ type = 'separator', separator = ';' }",
]
ARMS: Mapping[str, list[str]] = {
    OUTCOME: ["credit.process=none"],  # the checker runs all the same, for its metrics
    "centered": rule("centered", "weight = 0.3, cap = 0.3"),  # the quickstart's own
    "first_error": rule("first_error"),
    "group_returns": rule("group_returns"),
    "leave_one_out": rule("leave_one_out"),
    "min_form": rule("min_form"),
    "clip": rule("clip"),
    "delta": rule("delta"),
    "filter": rule("filter"),
    "shaping": rule("shaping", "aggregate = 'mean'"),
    "implicit_leave_one_out": rule("leave_one_out", "batch_norm = true", prm=[*IMPLICIT, "prm.granularity=token"]),
    "implicit_progress": rule("progress", prm=[*IMPLICIT, "prm.kind=q"]),
}
DEFAULT = ("centered",)
"""Arms that a recipe of this project uses without being asked for another."""


@dataclass(frozen=True)
class Curve:
    """Held-out accuracy of one run, at the tokens generated for training by then; those of evaluations do not count."""

    tokens: np.ndarray
    accuracy: np.ndarray

    def at(self, tokens: float) -> float:
        return float(np.interp(tokens, self.tokens, self.accuracy))


def run_settings(arm: str, seed: int, model: Path, *, quick: bool) -> list[str]:
    """Everything that this run sets differently from the recipe."""
    start = ["model.type=path", f"model.path={model}", f"run.seed={seed}"]
    return [*start, *COMMON, *ARMS[arm], *(QUICK if quick else [])]


def run_one(arm: str, seed: int, runs: Path, model: Path, *, quick: bool) -> str | None:
    """Train, unless it is done already. The last line of what went wrong, or None."""
    name = f"{arm}-seed{seed}"
    if finished(name, runs) is not None:
        return None
    done = subprocess.run(
        command("train", name, runs, run_settings(arm, seed, model, quick=quick)),
        capture_output=True,
        text=True,
        check=False,
    )
    print(f"{name}: {'done' if done.returncode == 0 else 'FAILED'}", file=sys.stderr, flush=True)
    if done.returncode == 0:
        return None
    return (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]


def read_curve(directory: Path) -> Curve:
    """Raises ValueError when the run has no evaluation after its first step."""
    config = json.loads((directory / "config.json").read_text())
    answers = config["loop"]["groups_per_step"] * config["rollout"]["group_size"]
    tokens, generated, accuracy = [], 0.0, []
    for line in (directory / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)["metrics"]
        generated += answers * values.get("response/tokens_mean", 0.0)
        if (found := values.get("eval/high/sampled/accuracy")) is not None:
            tokens.append(generated)
            accuracy.append(found)
    if len(accuracy) < 2:
        raise ValueError(f"{directory} has {len(accuracy)} evaluations in its metrics.jsonl, at least 2 are needed")
    means = [statistics.fmean(accuracy[max(0, i + 1 - WINDOW) : i + 1]) for i in range(len(accuracy))]
    return Curve(np.asarray(tokens, dtype=np.float64), np.asarray(means))


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Means over runs at equal evaluations, of tokens and of accuracy."""
    size = min(len(c.tokens) for c in curves)
    return Curve(
        np.mean([c.tokens[:size] for c in curves], axis=0), np.mean([c.accuracy[:size] for c in curves], axis=0)
    )


def tokens_until(curve: Curve, accuracy: float) -> float | None:
    """Tokens at which the curve first reaches `accuracy`, between evaluations by a straight line; None if never."""
    reached = np.flatnonzero(curve.accuracy >= accuracy)
    if not reached.size:
        return None
    at = int(reached[0])
    if at == 0:
        return float(curve.tokens[0])
    low, high = curve.accuracy[at - 1], curve.accuracy[at]
    return float(curve.tokens[at - 1] + (accuracy - low) / (high - low) * (curve.tokens[at] - curve.tokens[at - 1]))


def compare(arm: Sequence[Curve], outcome: Sequence[Curve]) -> tuple[float | None, float]:
    """Token ratio, None where the arm never gets there, and the gain at the tokens that both have."""
    own, base = mean_curve(arm), mean_curve(outcome)
    needed = tokens_until(own, float(base.accuracy[-1]))
    common = min(own.tokens[-1], base.tokens[-1])
    return None if needed is None else needed / float(base.tokens[-1]), own.at(common) - base.at(common)


def interval(arm: Sequence[Curve], outcome: Sequence[Curve]) -> dict[str, Any]:
    """Ranges over all draws of as many seeds with replacement, of arm and outcome apart."""
    draws = list(itertools.combinations_with_replacement(range(len(arm)), len(arm)))
    base = list(itertools.combinations_with_replacement(range(len(outcome)), len(outcome)))
    found = [compare([arm[i] for i in a], [outcome[i] for i in b]) for a in draws for b in base]
    ratios = [np.inf if ratio is None else ratio for ratio, _ in found]
    ends = np.quantile(ratios, [0.05, 0.95], method="nearest")
    return {
        "ratio_90": [None if np.isinf(v) else float(v) for v in ends],
        "gain_90": [float(v) for v in np.quantile([gain for _, gain in found], [0.05, 0.95])],
    }


def table(curves: Mapping[str, Sequence[Curve]]) -> dict[str, Any]:
    """Every arm against outcome-only."""
    rows: dict[str, Any] = {}
    for arm, mine in curves.items():
        ratio, gain = compare(mine, curves[OUTCOME])
        rows[arm] = {
            "ratio": ratio,
            "gain": gain,
            "final": [float(c.accuracy[-1]) for c in mine],
            "tokens": [float(c.tokens[-1]) for c in mine],
            "settings": ARMS[arm],
            **interval(mine, curves[OUTCOME]),
        }
    return rows


def show(rows: Mapping[str, Any]) -> None:
    for arm, row in sorted(rows.items(), key=lambda item: item[1]["ratio"] or np.inf):
        ratio = "never" if row["ratio"] is None else f"{row['ratio']:.2f}"
        print(
            f"{arm:24} tokens to outcome's end: {ratio:6} {row['ratio_90']}  gain at equal tokens {row['gain']:+.3f} "
            f"{[round(v, 3) for v in row['gain_90']]}",
            file=sys.stderr,
        )


def hacking(directory: Path) -> dict[str, float]:
    """What the monitors of reward hacking said at the last step, and how often they alarmed."""
    lines = [json.loads(line)["metrics"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [values for values in lines if "train/accuracy" in values]
    last = {n: v for n, v in steps[-1].items() if n.startswith(("hack/", "credit/")) and v is not None}
    alarms = sum(v for values in steps for n, v in values.items() if n.startswith("alarm/") and v is not None)
    return {**last, "alarms": alarms}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/process_credit"), help="where the run directories go")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; each uses about one core at a time")
    parser.add_argument("--only", nargs="+", choices=sorted(ARMS), help="only these arms, and outcome")
    parser.add_argument("--collect", action="store_true", help="run nothing, read the finished runs below --runs")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    names = [name for name in ARMS if name == OUTCOME or not options.only or name in options.only]
    pairs = [(name, seed) for seed in (options.seeds[:1] if options.quick else options.seeds) for name in names]
    errors: dict[str, str] = {}
    if not options.collect:
        model = cold_model(runs, quick=options.quick)
        with ThreadPoolExecutor(options.jobs) as pool:
            outcomes = pool.map(lambda pair: run_one(*pair, runs, model, quick=options.quick), pairs)
            errors = {f"{n}-seed{s}": e for (n, s), e in zip(pairs, outcomes, strict=True) if e is not None}
    places = {pair: finished(f"{pair[0]}-seed{pair[1]}", runs) for pair in pairs}
    found = {name: [p for (n, _), p in places.items() if n == name and p is not None] for name in names}
    found = {name: directories for name, directories in found.items() if directories}
    if OUTCOME not in found:
        raise SystemExit(f"no finished outcome-only run in {runs}; errors: {errors or 'none'}")
    rows = table({name: [read_curve(p) for p in directories] for name, directories in found.items()})
    for name, directories in found.items():
        rows[name]["monitors"] = [hacking(p) for p in directories]
    show(rows)
    rules = {name: row for name, row in rows.items() if name != OUTCOME}
    ratios = {name: row["ratio"] for name, row in rules.items() if row["ratio"] is not None}
    best = min(ratios, key=lambda name: ratios[name], default=None)
    metrics = {f"ratio_{name}": ratio for name, ratio in ratios.items()}
    metrics |= {f"gain_{name}": row["gain"] for name, row in rules.items()}
    if best is not None:
        metrics["tokens_ratio_to_outcome"] = ratios[best]
    if defaults := [rules[name]["gain"] for name in DEFAULT if name in rules]:
        metrics["final_accuracy_gain"] = min(defaults)
    details = {"arms": rows, "best": best, "target_ratio": TARGET_RATIO, "errors": errors, "steps": NUM_STEPS}
    finish("process_credit_quick" if options.quick else "process_credit", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
