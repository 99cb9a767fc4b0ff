"""Does every advantage and every loss learn? One cold start, then a short run of each objective, three seeds.

The task is the quickstart's, high effort alone, without length shaping. Every run starts from the same weights, which
are made once by the quickstart's cold start, and trains for the same number of steps; `run.seed` decides task order
and sampling. Compared is the share of right answers in training at equal generated tokens: the mean of the last WINDOW
steps that end within the smallest number of tokens that any run has generated. An objective has learned if it gains
at least LEARNED percentage points over the cold start in the mean over seeds; one that has not needs a note below.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will. --only
restricts it to some objectives; --collect only reads. Advantages use the loss ppo_clip, losses the advantage grpo.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from result import arguments, finish
from short_runs import ShortRuns, finished

RECIPE = Path("launch/recipes/quickstart.toml")
NUM_STEPS = 16  # the quickstart's high effort goes from 0.4 to 0.9 in its first 16 steps
WINDOW = 3
LEARNED = 10.0
COLD = "cold-start"
QUICK_COLD = ["sft.num_steps=60"]
QUICK = ["loop.num_steps=4", "loop.groups_per_step=16", "evaluate.num_tasks=20"]
COMMON = [
    "budgets.shaping.type=none",
    "evaluate.at_start=false",
    "evaluate.greedy=false",
    f"loop.num_steps={NUM_STEPS}",
]

OUTCOME_ONLY = ["prm.type=none"]
UNFILTERED = ["sampling.judge_on=off", *OUTCOME_ONLY]
KL = "{{ estimator = '{0}', placement = '{1}', coefficient = 0.01 }}"
REFERENCE = ["reference.dtype=float32", *OUTCOME_ONLY]
GRPO = ["credit.process=none", *OUTCOME_ONLY]  # the recipe's own type


def advantage(kind: str, *settings: str, base: Sequence[str] = OUTCOME_ONLY) -> list[str]:
    return [f"credit.type={kind}", *(f"credit.{s}" for s in settings), *base]


def loss(kind: str, *settings: str) -> list[str]:
    return [f"loss.type={kind}", *(f"loss.{s}" for s in settings), *GRPO]


ADVANTAGES: Mapping[str, list[str]] = {
    "grpo": GRPO,
    "dr_grpo": advantage("dr_grpo"),
    "rloo": advantage("rloo"),
    "batch_scaled": advantage("batch_scaled"),
    "opo": advantage("opo"),
    "gpg": advantage("gpg", base=UNFILTERED),
    "reinforce_pp_baseline": advantage("reinforce_pp_baseline"),
    "reinforce_pp": advantage("reinforce_pp", base=UNFILTERED),
    "remax": advantage("remax", base=UNFILTERED),
    "best_of_group": advantage("best_of_group"),
    "w_reinforce": advantage("w_reinforce", base=UNFILTERED),
    "nsr": advantage("w_reinforce", "positive=0", "negative=1", base=UNFILTERED),
    "psr": advantage("w_reinforce", "positive=1", "negative=0", base=UNFILTERED),
    "gdpo_process": advantage("gdpo", "weights={ outcome = 1.0, process = 0.3 }", base=()),
    "grpo_process": [],  # the recipe as it is
    "grpo_kl_in_reward": [*GRPO, *REFERENCE, "loss.kl=" + KL.format("k1", "reward")],
}

LOSSES: Mapping[str, list[str]] = {
    "dual_clip": loss("ppo_clip", "dual_clip=3.0"),
    "sequence_mean": loss("ppo_clip", "aggregation={ type = 'sequence_mean' }"),
    "dr_grpo_length": loss("ppo_clip", "aggregation={ type = 'dr_grpo', length = 88 }"),
    "gspo": loss("gspo"),
    "gspo_token": loss("gspo", "token=true"),
    "cispo": loss("cispo"),
    "gmpo": loss("gmpo"),
    "sapo": loss("sapo"),
    "topr": loss("topr"),
    "rloo_sequence": loss("rloo"),
    "decoupled": loss("decoupled"),
    "dppo": loss("dppo"),
    "dro": loss("dro"),
    "clip_cov": loss("ppo_clip", "covariance={ type = 'clip_cov' }"),
    "kl_cov": loss("ppo_clip", "covariance={ type = 'kl_cov' }"),
    "top_entropy": loss("ppo_clip", "entropy={ type = 'top_fraction' }"),
    "entropy_adaptive": loss("ppo_clip", "entropy={ type = 'adaptive' }"),
    "token_tis": loss("ppo_clip", "correction={ type = 'token_tis' }"),
    "bypass": loss("ppo_clip", "anchor='sampler'"),
    "kl_k2": [*loss("ppo_clip", "kl=" + KL.format("k2", "loss")), *REFERENCE],
    "kl_k3": [*loss("ppo_clip", "kl=" + KL.format("k3", "loss")), *REFERENCE],
}

OBJECTIVES: Mapping[str, list[str]] = {**ADVANTAGES, **LOSSES}

NOTES: Mapping[str, str] = {
    "best_of_group": "with rewards of 0 and 1 only a lone right answer is credited: 8 p (1 - p)^7 of the groups teach",
    "nsr": "only pushes down; what it takes from wrong answers goes to all others in proportion, right or not",
}
"""Why an objective may fail to learn here; shown only for one that did."""


@dataclass(frozen=True)
class Curve:
    """One run: per training step, tokens generated so far and the share of right answers; its evaluation at the end."""

    tokens: list[float]
    accuracy: list[float]
    held_out: float | None

    def at(self, tokens: float) -> float:
        """Mean accuracy of the last WINDOW steps that end within `tokens`."""
        within = [a for t, a in zip(self.tokens, self.accuracy, strict=True) if t <= tokens]
        return statistics.fmean(within[-WINDOW:])


@dataclass
class Row:
    """One objective over the seeds."""

    seeds: dict[int, float] = field(default_factory=dict)  # accuracy at equal tokens
    held_out: dict[int, float | None] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


def command(action: str, name: str, runs: Path, settings: Sequence[str]) -> list[str]:
    ponder = str(Path(sys.executable).with_name("ponder"))
    place = [f"run.dir={runs}", f"run.name={name}"]
    return [ponder, action, str(RECIPE), *(part for s in [*place, *settings] for part in ("--set", s))]


def cold_model(runs: Path, *, quick: bool) -> Path:
    """The model that every run starts from, made on first use."""
    model = runs / COLD / "start_model"
    if not (model / "config.json").is_file():
        subprocess.run(command("sft", COLD, runs, QUICK_COLD if quick else []), check=True, stdout=sys.stderr)
    return model.resolve()


def run_all(pairs: Sequence[tuple[str, int]], runs: Path, *, quick: bool) -> dict[tuple[str, int], str]:
    """Train what is not trained yet. The last line of what went wrong, by objective and seed."""
    errors = {}
    with ShortRuns(RECIPE, runs, cold_model(runs, quick=quick), common=[*COMMON, *(QUICK if quick else [])]) as session:
        for number, (objective, seed) in enumerate(pairs, start=1):
            try:
                session.run(f"{objective}-seed{seed}", [f"run.seed={seed}", *OBJECTIVES[objective]])
            except Exception as error:  # noqa: BLE001 - one objective that fails must not end the table
                errors[objective, seed] = f"{type(error).__name__}: {error}".splitlines()[0]
                print(f"{objective}-seed{seed}: FAILED: {errors[objective, seed]}", file=sys.stderr, flush=True)
            print(f"{number} of {len(pairs)}", file=sys.stderr, flush=True)
    return errors


def read_curve(directory: Path) -> Curve:
    """Raises ValueError when the run recorded no training step."""
    lines = [json.loads(line)["metrics"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [m for m in lines if m.get("train/high/accuracy") is not None]
    if not steps:
        raise ValueError(f"{directory} has no training step in its metrics.jsonl")
    summary = json.loads((directory / "summary.json").read_text())
    after = (summary["efforts"].get("high") or {}).get("after")
    return Curve(
        tokens=[m["ledger/generated_tokens/high"] for m in steps],
        accuracy=[m["train/high/accuracy"] for m in steps],
        held_out=after and after["accuracy"],
    )


def table(curves: Mapping[tuple[str, int], Curve], errors: Mapping[tuple[str, int], str]) -> dict[str, Any]:
    """The numbers at equal tokens, and what may be said of each objective."""
    tokens = min(curve.tokens[-1] for curve in curves.values())
    before = statistics.fmean(curve.accuracy[0] for curve in curves.values())  # step 1 samples from the cold weights
    rows: dict[str, Row] = {}
    for (objective, seed), curve in curves.items():
        row = rows.setdefault(objective, Row())
        row.seeds[seed], row.held_out[seed] = curve.at(tokens), curve.held_out
    for (objective, seed), error in errors.items():
        rows.setdefault(objective, Row()).errors[seed] = error
    found = {name: describe(name, row, before) for name, row in rows.items()}
    return {"tokens": tokens, "accuracy_before": before, "objectives": found}


def describe(name: str, row: Row, before: float) -> dict[str, Any]:
    values = list(row.seeds.values())
    mean = statistics.fmean(values) if values else None
    has_learned = mean is not None and not row.errors and 100 * (mean - before) >= LEARNED
    return {
        "accuracy": mean,
        "lowest": min(values, default=None),
        "highest": max(values, default=None),
        "seeds": row.seeds,
        "held_out": row.held_out,
        "has_learned": has_learned,
        "note": "" if has_learned else "; ".join(row.errors.values()) or NOTES.get(name, "UNEXPLAINED"),
        "settings": OBJECTIVES[name],
    }


def show(found: Mapping[str, Any]) -> None:
    before = found["accuracy_before"]
    print(f"right answers at {found['tokens']:.0f} generated tokens; before: {before:.3f}", file=sys.stderr)
    ranked = sorted(found["objectives"].items(), key=lambda item: -(item[1]["accuracy"] or 0))
    for name, row in ranked:
        if row["accuracy"] is None:
            print(f"{name:24} no run finished  {row['note']}", file=sys.stderr)
            continue
        spread = f"{row['lowest']:.3f} to {row['highest']:.3f}"
        print(f"{name:24} {row['accuracy']:.3f}  ({spread})  {row['note']}", file=sys.stderr)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/objectives"), help="where the run directories go")
    parser.add_argument("--only", nargs="+", choices=sorted(OBJECTIVES), help="only these objectives")
    parser.add_argument("--collect", action="store_true", help="run nothing, read the finished runs below --runs")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    names = options.only or list(OBJECTIVES)
    pairs = [(name, seed) for seed in (options.seeds[:1] if options.quick else options.seeds) for name in names]
    errors: dict[tuple[str, int], str] = {}
    if not options.collect:
        errors = run_all(pairs, runs, quick=options.quick)
    places = {pair: finished(f"{pair[0]}-seed{pair[1]}", runs) for pair in pairs}
    curves = {pair: read_curve(place) for pair, place in places.items() if place is not None}
    if not curves:
        raise SystemExit(f"no finished run in {runs}; the first error: {next(iter(errors.values()), 'none')}")
    found = table(curves, errors)
    rows = found["objectives"]
    if options.quick:
        for row in rows.values():
            row["note"] = "--quick is too short to learn anything"
    show(found)
    metrics = {
        "num_objectives": len(rows),
        "num_learned": sum(row["has_learned"] for row in rows.values()),
        "num_unexplained": sum(row["note"] == "UNEXPLAINED" for row in rows.values()),
        "tokens": found["tokens"],
        "accuracy_before": found["accuracy_before"],
        **{f"accuracy_{name}": row["accuracy"] for name, row in rows.items() if row["accuracy"] is not None},
    }
    finish("objectives_quick" if options.quick else "objectives", metrics, found, store=options.store)


if __name__ == "__main__":
    main()
