"""Does process credit learn from fewer tokens than outcome credit? Two regimes, one cold start each, three seeds.

    long_sums    sums of 6 to 9 terms; the quickstart's cold model, trained further on a teacher who slips in three of
                 ten additions: a step is right more often than not, all of them seldom, so many groups are all wrong
                 and the outcome says little. Here the best ratio is taken.
    quickstart   the quickstart's sums and cold start, whose main fault is to stop early: nearly every group has right
                 and wrong answers, and the outcome alone says what to change. The checker does not see that fault.

High effort alone, without length shaping. Steps are scored by the exact checker, which sees the rewrites and never the
answer, or, for the arms named `implicit`, by an implicit model that is trained during the run on outcomes alone. The
arms named `_wide` also credit groups without a right answer, and let the step term be as large as the outcome's.
All runs of a regime start from the same weights and train for the same number of steps, with a held-out evaluation of
sampled answers every few steps. Curves are trailing means over WINDOW evaluations, equal for all arms.

    tokens_ratio_to_outcome   tokens an arm generates until its curve reaches the outcome-only arm's last value, over
                              the tokens that the outcome-only arm generated in all; of the mean curves over seeds
    final_accuracy_gain       the arm's curve minus the outcome-only arm's, at the tokens that both have generated

The metrics of these names are the best arm's ratio and the least gain among the DEFAULT arms, over both regimes; each
arm's own are beside them, with a bootstrap interval over seeds in the details. Choosing the best of several arms
flatters it: look at all.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will. --only
restricts it to some arms, --regime to one regime; --collect only reads.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from objectives import RECIPE, command
from result import arguments, finish
from short_runs import ShortRuns, finished

WINDOW = 3
TARGET_RATIO = 0.7
OUTCOME = "outcome"
COLD = "cold-start"
QUICK = ["loop.num_steps=4", "loop.groups_per_step=16", "loop.eval_every=1", "evaluate.num_tasks=20"]
QUICK_COLD = ["sft.num_steps=60"]
COMMON = ["budgets.shaping.type=none", "budgets.phases=[]", "evaluate.greedy=false", "loop.checkpoint_every=0"]


def high_alone(max_thinking_tokens: int) -> str:
    effort = f"instruction = '<high>', max_thinking_tokens = {max_thinking_tokens}, max_answer_tokens = 8"
    return f"budgets.efforts={{ high = {{ {effort} }} }}"


def rule(kind: str, more: str = "", *, settings: Sequence[str] = ()) -> list[str]:
    return [f"credit.process={{ type = '{kind}'{', ' + more if more else ''} }}", *settings]


def wide(kind: str, more: str = "") -> list[str]:
    """In groups of any outcome, as large as the outcome's own term."""
    asked = "share = 1.0, on_all_wrong = true" + (f", {more}" if more else "")
    return rule(kind, asked, settings=["sampling.judge_on=off"])


IMPLICIT = [
    "prm.type=implicit",
    "prm.online={ lr = 1e-4 }",
    "prm.max_tokens=160",
    "prm.granularity=token",
    "prm.splitter={ type = 'separator', separator = ';' }",
]
ARMS: Mapping[str, list[str]] = {
    OUTCOME: ["credit.process=none"],  # the checker runs all the same, for its metrics
    "centered": rule("centered", "weight = 0.3, cap = 0.3"),  # the quickstart's own
    "first_error": rule("first_error"),
    "group_returns": rule("group_returns"),
    "leave_one_out": rule("leave_one_out"),
    "min_form": rule("min_form"),
    "centered_wide": wide("centered", "weight = 1.0, cap = 1.0"),
    "leave_one_out_wide": wide("leave_one_out"),
    "min_form_wide": wide("min_form"),
    "clip_wide": wide("clip"),
    "implicit_leave_one_out": rule("leave_one_out", "batch_norm = true", settings=IMPLICIT),
}
DEFAULT = ("centered",)
"""Arms that a recipe of this project uses without being asked for another."""


@dataclass(frozen=True)
class Regime:
    """A task and the model that all runs on it start from."""

    settings: Sequence[str]  # of the cold start and of every run
    cold: Sequence[str]  # of the cold start alone
    begins_with: str  # the regime whose cold model its own begins with, "" for none
    common: Sequence[str]  # of every run
    arms: Sequence[str]


REGIMES: Mapping[str, Regime] = {
    "long_sums": Regime(
        settings=["tasks.train.params={ min_terms = 6, max_terms = 9, slip = 0.3 }", high_alone(100), *COMMON],
        cold=["sft.num_steps=500", "sft.lr=1e-3", "sft.mix={ high = 1.0 }"],
        begins_with="quickstart",
        common=["loop.num_steps=18", "loop.groups_per_step=32", "loop.eval_every=2", "evaluate.num_tasks=200"],
        arms=(OUTCOME, "centered", "centered_wide", "leave_one_out_wide", "first_error", "min_form_wide"),
    ),
    "quickstart": Regime(
        settings=[],
        cold=[],
        begins_with="",
        common=[high_alone(80), *COMMON, "loop.num_steps=20", "loop.eval_every=2", "evaluate.num_tasks=400"],
        arms=(OUTCOME, "centered", "first_error"),
    ),
}
MEASURED_IN = "long_sums"
"""The regime whose best ratio is the metric."""


@dataclass(frozen=True)
class Curve:
    """Held-out accuracy of one run, at the tokens generated for training by then; those of evaluations do not count."""

    tokens: np.ndarray
    accuracy: np.ndarray

    def at(self, tokens: float) -> float:
        return float(np.interp(tokens, self.tokens, self.accuracy))


def cold_model(name: str, runs: Path, *, quick: bool) -> Path:
    """The model that every run of the regime starts from, made on first use."""
    model, regime = runs / COLD / "start_model", REGIMES[name]
    if not (model / "config.json").is_file():
        settings = [*regime.settings, *regime.cold, *(QUICK_COLD if quick else [])]
        if regime.begins_with:
            first = cold_model(regime.begins_with, runs.parent / regime.begins_with, quick=quick)
            settings += ["model.type=path", f"model.path={first}"]
        subprocess.run(command("sft", COLD, runs, settings), check=True, stdout=sys.stderr)
    return model.resolve()


def common_settings(name: str, *, quick: bool) -> list[str]:
    """What all runs of the regime set differently from the recipe."""
    return [*REGIMES[name].settings, *REGIMES[name].common, *(QUICK if quick else [])]


def run_all(name: str, pairs: Sequence[tuple[str, int]], runs: Path, *, quick: bool) -> dict[str, str]:
    """Train what is not trained yet. The first line of what went wrong, by run."""
    errors: dict[str, str] = {}
    common = common_settings(name, quick=quick)
    with ShortRuns(RECIPE, runs, cold_model(name, runs, quick=quick), common=common) as session:
        for arm, seed in pairs:
            try:
                session.run(f"{arm}-seed{seed}", [f"run.seed={seed}", *ARMS[arm]])
            except Exception as error:  # noqa: BLE001 - one run that fails must not end the table
                errors[f"{name}/{arm}-seed{seed}"] = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"{arm}-seed{seed}: FAILED: {error}", file=sys.stderr, flush=True)
    return errors


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


def collect(name: str, pairs: Sequence[tuple[str, int]], runs: Path) -> dict[str, Any]:
    """Every arm of a regime against outcome-only, with its monitors. Raises SystemExit without an outcome-only run."""
    found: dict[str, list[Path]] = {}
    for arm, seed in pairs:
        if (place := finished(f"{arm}-seed{seed}", runs)) is not None:
            found.setdefault(arm, []).append(place)
    if OUTCOME not in found:
        raise SystemExit(f"no finished outcome-only run of {name} in {runs}")
    rows = table({arm: [read_curve(p) for p in directories] for arm, directories in found.items()})
    for arm, directories in found.items():
        rows[arm]["monitors"] = [hacking(p) for p in directories]
    print(name, file=sys.stderr)
    show(rows)
    return rows


def figures(rows: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, float], str | None]:
    """The metrics, from every regime's rows, and the arm that is best where it counts."""
    metrics: dict[str, float] = {}
    for regime, arms in rows.items():
        for arm, row in arms.items():
            if arm != OUTCOME:
                metrics[f"gain_{regime}_{arm}"] = row["gain"]
                metrics |= {} if row["ratio"] is None else {f"ratio_{regime}_{arm}": row["ratio"]}
    measured = rows.get(MEASURED_IN, {})
    ratios = {arm: row["ratio"] for arm, row in measured.items() if arm != OUTCOME and row["ratio"] is not None}
    best = min(ratios, key=lambda arm: ratios[arm], default=None)
    if best is not None:
        metrics["tokens_ratio_to_outcome"] = ratios[best]
    if defaults := [arms[arm]["gain"] for arms in rows.values() for arm in DEFAULT if arm in arms]:
        metrics["final_accuracy_gain"] = min(defaults)
    return metrics, best


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/process_credit"), help="where the run directories go")
    parser.add_argument("--regime", nargs="+", choices=sorted(REGIMES), default=list(REGIMES))
    parser.add_argument("--only", nargs="+", choices=sorted(ARMS), help="only these arms, and outcome")
    parser.add_argument("--collect", action="store_true", help="run nothing, read the finished runs below --runs")
    options = parser.parse_args()
    rows, errors = {}, {}
    for name in options.regime:
        runs = options.runs / ("quick" if options.quick else "") / name
        runs.mkdir(parents=True, exist_ok=True)
        arms = [arm for arm in options.only or REGIMES[name].arms if arm != OUTCOME]
        seeds = options.seeds[:1] if options.quick else options.seeds
        pairs = [(arm, seed) for seed in seeds for arm in (OUTCOME, *arms)]
        if not options.collect:
            errors |= run_all(name, pairs, runs, quick=options.quick)
        rows[name] = collect(name, pairs, runs)
    metrics, best = figures(rows)
    details = {"regimes": rows, "best": best, "target_ratio": TARGET_RATIO, "errors": errors}
    finish("process_credit_quick" if options.quick else "process_credit", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
