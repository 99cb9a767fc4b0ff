"""Do trained thinking modes keep what they promise? Two recipes, each from one cold start, three seeds.

    thinkdial   medium and low effort against high, after training: thinking tokens and accuracy. ThinkDial's own
                targets: medium at most 50 % of the tokens and at least 90 % of the accuracy, low 25 % and 85 %.
                Control: the cold start at high effort, closed by force where the trained efforts end by themselves.
    adactrl     a tag that the user puts in is obeyed: of two answers to a task the one under [Easy] thinks less
                than the one under [Hard]. The model's own tags against the measured success rate.

    medium_token_ratio, low_token_ratio         thinking tokens of the effort / those of high, same held-out tasks
    medium_accuracy_ratio, low_accuracy_ratio   accuracy of the effort / that of high
    override_obeyed                             share of held-out tasks where forced [Easy] thinks less than [Hard]
    tag_correlation                             of (tag is [Easy]) with the success rate of the siblings, last steps
    frontier_dominates                          share of seeds in which the efforts' frontier lies above the control's:
                                                for the whole control, and for it cut at each effort's mean thinking
                                                tokens (rounded up, the most of all seeds), some effort is at least as
                                                accurate and thinks no longer

The runs are shorter than the recipes': 32 groups a step, 24 steps, and 16 of thinkdial, 6 of them its first phase.
Ratios are means over seeds; their paired intervals over tasks are in the details, one answer a task. Tasks and split
are the same in all runs, `run.seed` decides order and sampling. Finished runs are kept below --runs and not run again.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from result import arguments, finish
from short_runs import ShortRuns, finished

RECIPES = {name: Path(f"launch/recipes/{name}.toml") for name in ("thinkdial", "adactrl")}
SHORT = {
    "thinkdial": [
        "loop.num_steps=16",
        "loop.groups_per_step=32",
        "budgets.phases=[{ until_step = 6, mix = { high = 1.0 } }]",
        "budgets.shaping.start_version=12",
    ],
    "adactrl": ["loop.num_steps=24", "loop.groups_per_step=32"],
}
QUICK = ["loop.num_steps=4", "loop.groups_per_step=16", "evaluate.num_tasks=40", "budgets.phases=[]"]
QUICK_COLD = ["sft.num_steps=60"]
PATIENCE = ["cluster.start_deadline_s=1800", "rollout.start_timeout_s=1800"]  # for a machine with other work
COMMON = ["tasks.seed=0", "evaluate.at_start=false", "evaluate.greedy=false", *PATIENCE]
LAST_STEPS = 10
EFFORTS = ("medium", "low")


def ponder(*words: str) -> None:
    """Run a command of ponder, its output on stderr."""
    subprocess.run([str(Path(sys.executable).with_name("ponder")), *words], check=True, stdout=sys.stderr)


def cold_model(name: str, runs: Path, *, quick: bool) -> Path:
    """The model that every run of a recipe starts from, made on first use."""
    model = runs / f"{name}-cold" / "start_model"
    if not (model / "config.json").is_file():
        settings = [f"run.dir={runs}", f"run.name={name}-cold", *COMMON[:1], *(QUICK_COLD if quick else [])]
        ponder("sft", str(RECIPES[name]), *(part for s in settings for part in ("--set", s)))
    return model.resolve()


def train(name: str, runs: Path, seeds: Sequence[int], *, quick: bool) -> dict[int, Path]:
    """The finished run of every seed."""
    done = read_finished(name, runs, seeds)
    if len(done) == len(seeds):
        return done
    model = cold_model(name, runs, quick=quick)
    with ShortRuns(RECIPES[name], runs, model, common=[*COMMON, *SHORT[name], *(QUICK if quick else [])]) as session:
        return {seed: session.run(f"{name}-seed{seed}", [f"run.seed={seed}"]) for seed in seeds}


def read_finished(name: str, runs: Path, seeds: Sequence[int]) -> dict[int, Path]:
    known = {seed: finished(f"{name}-seed{seed}", runs) for seed in seeds}
    return {seed: place for seed, place in known.items() if place is not None}


# ------------------------------------------------------------------------------------------------ thinkdial


def against_high(place: Path) -> dict[str, Any]:
    """The comparison of a run's last evaluation, from what it saved."""
    out = place / "modes"
    if not (out / "modes.json").is_file():
        ponder("eval", "modes", "--from-trajectories", str(place), "--keep-verdicts", "--out", str(out))
    found = json.loads((out / "modes.json").read_text())
    points = {
        name: {"accuracy": m["pass@1"], "thinking_tokens": m["thinking_tokens"]} for name, m in found["modes"].items()
    }
    return {"modes": points, "against_high": found["against_base"]}


def truncated(runs: Path, caps: Sequence[int], *, quick: bool) -> dict[str, Any]:
    """The cold start at high effort, whole and closed by force after so many tokens."""
    out = runs / f"truncated-{'-'.join(map(str, caps))}"
    if not (out / "modes.json").is_file():
        model = cold_model("thinkdial", runs, quick=quick)
        modes = ",".join(["high", *map(str, caps)])
        sizes = ["--limit", "40", "--samples", "1"] if quick else ["--samples", "4"]
        place = ["--policy", str(model), "--recipe", str(RECIPES["thinkdial"]), "--set", COMMON[0], "--out", str(out)]
        ponder("eval", "modes", "--modes", modes, "--numeric-instruction", "<high>", *sizes, *place)
    found = json.loads((out / "modes.json").read_text())["modes"]
    return {name: {"accuracy": m["pass@1"], "thinking_tokens": m["thinking_tokens"]} for name, m in found.items()}


def measure_thinkdial(runs: Path, seeds: Sequence[int], *, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    places = train("thinkdial", runs, seeds, quick=quick)
    found = {seed: against_high(place) for seed, place in places.items()}
    metrics: dict[str, float] = {}
    for effort in EFFORTS:
        for figure, name in (("token", "thinking_tokens_ratio"), ("accuracy", "accuracy_ratio")):
            values = [row["against_high"][effort][name]["value"] for row in found.values()]
            metrics[f"{effort}_{figure}_ratio"] = statistics.fmean(values)
    # One cap for all seeds, in the control's favor: the most that any of them thinks.
    caps = {
        effort: max(1, math.ceil(max(row["modes"][effort]["thinking_tokens"]["mean"] for row in found.values())))
        for effort in EFFORTS
    }
    control = truncated(runs, sorted(set(caps.values()), reverse=True), quick=quick)
    wins = [dominates(row["modes"], control) for row in found.values()]
    metrics["frontier_dominates"] = statistics.fmean(wins)
    return metrics, {"seeds": found, "control": control, "caps": caps, "dominates": wins}


def dominates(modes: Mapping[str, Any], control: Mapping[str, Any]) -> bool:
    """Whether for every point of the control some effort is at least as accurate and thinks no longer."""
    ours, theirs = (
        [(row["thinking_tokens"]["mean"], row["accuracy"]["value"]) for row in points.values()]
        for points in (modes, control)
    )
    return all(any(t <= tokens and a >= accuracy for t, a in ours) for tokens, accuracy in theirs)


# ------------------------------------------------------------------------------------------------ adactrl


def measure_adactrl(runs: Path, seeds: Sequence[int], *, quick: bool) -> tuple[dict[str, float], dict[str, Any]]:
    places = train("adactrl", runs, seeds, quick=quick)
    found = {seed: tags_of_run(place) for seed, place in places.items()}
    metrics = {
        name: statistics.fmean(row[name] for row in found.values()) for name in ("override_obeyed", "tag_correlation")
    }
    return metrics, {"seeds": found}


def tags_of_run(place: Path) -> dict[str, Any]:
    """What tags did in one run: forced ones in its last evaluation, its own ones in its last training steps."""
    rows = read(sorted((place / "groups").glob("eval-*.parquet"))[-1:])
    tokens: dict[str, dict[str, int]] = {}
    for row in rows:
        tokens.setdefault(row["effort"], {})[row["task_key"]] = row["num_thinking_tokens"]
    shorter = [tokens["easy"][key] < tokens["hard"][key] for key in tokens["easy"]]
    by_effort = {
        effort: {
            "thinking_tokens": statistics.fmean(row["num_thinking_tokens"] for row in rows if row["effort"] == effort),
            "accuracy": statistics.fmean(row["score"] for row in rows if row["effort"] == effort),
        }
        for effort in tokens
    }
    steps = sorted((place / "groups").glob("step-*.parquet"))
    easy, success = siblings_of([r for r in read(steps[-LAST_STEPS:]) if r["effort"] == "auto"])
    both = bool(len(easy)) and easy.std() > 0 and success.std() > 0
    return {
        "override_obeyed": statistics.fmean(shorter),
        "tag_correlation": float(np.corrcoef(easy, success)[0, 1]) if both else 0.0,
        "easy_share": float(easy.mean()) if len(easy) else 0.0,
        "tagged": len(easy),
        "efforts": by_effort,
    }


def read(files: Sequence[Path]) -> list[dict[str, Any]]:
    columns = ["group_id", "task_key", "effort", "fate", "num_thinking_tokens", "score", "text"]
    return [row for path in files for row in pq.read_table(path, columns=columns).to_pylist()]


def siblings_of(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Per tagged attempt: whether its tag is [Easy], and the success rate of the others of its group."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["group_id"], []).append(row)
    easy, success = [], []
    for group in groups.values():
        judged = [row for row in group if row["score"] is not None]
        for row in judged:
            if len(judged) > 1 and row["text"].startswith(("[Easy]", "[Hard]")):
                easy.append(float(row["text"].startswith("[Easy]")))
                success.append((sum(r["score"] for r in judged) - row["score"]) / (len(judged) - 1))
    return np.asarray(easy), np.asarray(success)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/modes"), help="where the run directories go")
    parser.add_argument("--collect", action="store_true", help="train nothing, read the finished runs below --runs")
    parser.add_argument("--only", choices=sorted(RECIPES), help="only this recipe")
    options = parser.parse_args()
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    seeds = options.seeds[:1] if options.quick else options.seeds
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name, measure in (("thinkdial", measure_thinkdial), ("adactrl", measure_adactrl)):
        if options.only in (None, name):
            theirs = sorted(read_finished(name, runs, seeds)) if options.collect else seeds
            if not theirs:
                raise SystemExit(f"no finished run of {name} in {runs}")
            figures, details[name] = measure(runs, theirs, quick=options.quick)
            metrics |= {f"num_seeds_{name}": len(theirs), **figures}
            print(name, json.dumps(figures), file=sys.stderr, flush=True)
    finish("modes_quick" if options.quick else "modes", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
