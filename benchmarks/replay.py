"""What replay keeps, and what RoRecomp shortens: a domain to learn and one to keep; answers with room to be shorter.

Two questions (--part), three seeds, outcome rewards alone. Each begins with a cold start of its own, and its arms are
short runs of as many steps and groups:

    domains    the cold start knows differences perfectly and, from a careless teacher, a sixth of the sums of 5 to 7
               terms that are trained (benchmarks/replay.toml)
      none       sums only: plain GRPO. What becomes of the differences is what is forgotten
      uniform    every fourth group is a difference, and all advantages count alike
      recap      the same groups, with RECAP's weights over the two domains
      solutions  the same groups; the differences learn from their worked solutions, not from rewards
    length     sums only; the cold start saw full and half solutions under one instruction, so length is free
      grpo       plain GRPO
      rorecomp   short right and long wrong answers at once, the rest later with a falling probability

Read on held-out tasks, one sampled answer each, the same tasks in all runs. target_accuracy and retained_accuracy are
of the last evaluation, over all seeds, with Wilson 95 % intervals of the answers taken together in the details; a
difference between arms is paired by task, its interval from resampled tasks, which does not hold what another seed
would do: that is what the seeds one by one are for. Arms with general groups see three quarters of the target groups;
target_accuracy_at_equal_groups compares at as many of them, on straight lines between evaluations. forgotten is none's
retained accuracy before training minus after it: without forgetting there is nothing for replay to prevent. accuracy
and length (response tokens) of RoRecomp and plain GRPO are also compared at as many generated tokens.

Finished runs are kept in --runs and not run again, so the benchmark can be stopped and started at will.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from result import arguments, finish
from short_runs import ShortRuns, cold_model, finished

from budgets.evaluation.attempt import FloatArray
from budgets.evaluation.intervals import paired
from rl.evaluate import wilson_interval

RECIPE = Path("benchmarks/replay.toml")
TARGET, GENERAL = "target", "general"
ALONE = ["sampling.sampler.shares={target = 1.0, general = 1e-9}"]
SOLUTIONS = ["mix.demonstrations={gate = -1, gates = {general = 8}}"]
RECAP = ["mix.reweight.window=3", "mix.reweight.temperature=1.0"]
# Longer sums than the cold start saw, so that there is something to learn to the end, and steps three times as large
# as the quickstart's: with those of the quickstart GRPO forgets nothing (1.000 before, 0.995 after).
FAR = ["tasks.train.sources.target.params={min_terms = 5, max_terms = 7}", "learner.lr=8e-4", "loop.num_steps=80"]
SUMS = '{type = "procedural", name = "sums", num_tasks = 12000, params = {min_terms = 4, max_terms = 6}}'
ROOM = [f"tasks.train={SUMS}", "sampling.sampler.type=uniform", "loop.num_steps=40", "loop.eval_every=10"]
TWO_LENGTHS = [
    'budgets.efforts.medium={instruction = "<high>", max_thinking_tokens = 80, max_answer_tokens = 8}',
    "sft.mix={high = 0.5, medium = 0.5}",
    "sft.num_steps=4000",
]


@dataclass(frozen=True)
class Part:
    """A question: what its arms and its cold start change of the recipe."""

    arms: Mapping[str, list[str]]
    common: Sequence[str] = ()
    cold: Sequence[str] = ()


PARTS: Mapping[str, Part] = {
    "domains": Part({"none": ALONE, "uniform": [], "recap": RECAP, "solutions": SOLUTIONS}, FAR),
    "length": Part({"grpo": [], "rorecomp": ["mix.replay.type=rorecomp"]}, ROOM, [*ROOM, *TWO_LENGTHS]),
}
PAIRS = (("uniform", "none"), ("recap", "none"), ("recap", "uniform"), ("solutions", "none"), ("solutions", "uniform"))
QUICK = ["loop.num_steps=2", "loop.groups_per_step=8", "loop.eval_every=1", "evaluate.num_tasks=16"]
QUICK_COLD = ["sft.num_steps=60"]


@dataclass(frozen=True)
class Evaluated:
    """An evaluation: by domain, for its N held-out tasks in the order of their keys, [N] right or not, [N] tokens."""

    step: int
    target_groups: int  # that were generated for training before it
    tokens: int  # the same, of all domains
    right: Mapping[str, FloatArray]
    length: Mapping[str, FloatArray]


Runs = Mapping[int, Sequence[Evaluated]]  # the evaluations of an arm, by seed


def domain_of(row: Mapping[str, Any]) -> str:
    """What is not there to be kept is what is trained."""
    return GENERAL if row["source"] == GENERAL else TARGET


def read(directory: Path) -> list[Evaluated]:
    """The evaluations of a run, in order."""
    groups, tokens = {0: 0}, {0: 0}
    for path in sorted(directory.glob("groups/step-*.parquet")):
        table = pq.read_table(path, columns=["group_id", "source", "sampled"]).to_pylist()
        step = int(path.stem.removeprefix("step-"))
        groups[step] = groups[step - 1] + len({row["group_id"] for row in table if domain_of(row) == TARGET})
        tokens[step] = tokens[step - 1] + sum(sum(row["sampled"]) for row in table)
    found = []
    for path in sorted(directory.glob("groups/eval-*.parquet")):
        step = int(path.stem.removeprefix("eval-"))
        rows = pq.read_table(path, columns=["task_key", "source", "score", "sampled"]).to_pylist()
        by_domain: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(rows, key=lambda row: row["task_key"]):
            by_domain.setdefault(domain_of(row), []).append(row)
        right = {k: np.array([float((row["score"] or 0.0) >= 0.5) for row in v]) for k, v in by_domain.items()}
        length = {k: np.array([float(sum(row["sampled"])) for row in v]) for k, v in by_domain.items()}
        found.append(Evaluated(step, groups[step], tokens[step], right, length))
    return found


def at(run: Sequence[Evaluated], count: float, axis: Literal["target_groups", "tokens"]) -> Evaluated:
    """The run after `count` groups or tokens, every task on a straight line between two evaluations."""
    places = [getattr(found, axis) for found in run]
    after = next((number for number, place in enumerate(places) if place >= count), len(run) - 1)
    if not after:
        return run[0]
    share = min(1.0, (count - places[after - 1]) / (places[after] - places[after - 1]))
    low, high = run[after - 1], run[after]

    def mixed(a: Mapping[str, FloatArray], b: Mapping[str, FloatArray]) -> Mapping[str, FloatArray]:
        return {domain: (1 - share) * a[domain] + share * b[domain] for domain in a}

    return Evaluated(
        step=high.step,
        target_groups=round((1 - share) * low.target_groups + share * high.target_groups),
        tokens=round((1 - share) * low.tokens + share * high.tokens),
        right=mixed(low.right, high.right),
        length=mixed(low.length, high.length),
    )


def by_task(runs: Sequence[Evaluated], domain: str, kind: Literal["right", "length"]) -> FloatArray:
    """[N] mean over the runs."""
    means: FloatArray = np.mean([getattr(run, kind)[domain] for run in runs], axis=0)
    return means


def with_interval(runs: Sequence[Evaluated], domain: str) -> dict[str, Any]:
    """Share of right answers of all seeds together, its Wilson interval, and the seeds one by one."""
    answers = np.concatenate([run.right[domain] for run in runs])
    low, high = wilson_interval(int(answers.sum()), len(answers))
    seeds = [float(run.right[domain].mean()) for run in runs]
    return {"accuracy": float(answers.mean()), "low": low, "high": high, "answers": len(answers), "seeds": seeds}


def compared(runs: Sequence[Evaluated], base: Sequence[Evaluated], domain: str, kind: Any) -> dict[str, Any]:
    """Difference (and for lengths the ratio) of two arms, paired by task."""
    difference, ratio = paired(by_task(runs, domain, kind), by_task(base, domain, kind), seed=0)
    return {"difference": difference.as_json()} | ({"ratio": ratio.as_json()} if kind == "length" else {})


def shared_seeds(found: Mapping[str, Runs], arm: str, base: str) -> list[int]:
    """Seeds that both arms have finished, which alone are compared."""
    return sorted(found.get(arm, {}).keys() & found.get(base, {}).keys())


def row(runs: Runs, domains: Sequence[str]) -> dict[str, Any]:
    """What one arm of any part says of itself."""
    first, last = ([run[place] for run in runs.values()] for place in (0, -1))
    names = {TARGET: "target", GENERAL: "retained"}
    found: dict[str, Any] = {}
    for domain in domains:
        found[names[domain]] = with_interval(last, domain)
        found[f"{names[domain]}_before"] = with_interval(first, domain)
    lengths = [float(run.length[TARGET].mean()) for run in last]
    return found | {
        "length": {"mean": statistics.fmean(lengths), "seeds": lengths},
        "length_before": statistics.fmean(float(run.length[TARGET].mean()) for run in first),
        "tokens": statistics.fmean(run.tokens for run in last),
        "curves": {
            seed: [[r.step, r.target_groups, r.tokens, *(float(r.right[d].mean()) for d in domains)] for r in run]
            for seed, run in runs.items()
        },
    }


def domains_summary(found: Mapping[str, Runs]) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and details of the part `domains`, from the evaluations by arm and seed."""
    count = min(run[-1].target_groups for runs in found.values() for run in runs.values())
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {"equal_target_groups": count, "arms": {}, "compared": {}}
    for arm, runs in found.items():
        details["arms"][arm] = mine = row(runs, [TARGET, GENERAL])
        level = [at(run, count, "target_groups") for run in runs.values()]
        mine["target_at_equal_groups"] = float(by_task(level, TARGET, "right").mean())
        metrics[f"target_accuracy_{arm}"] = mine["target"]["accuracy"]
        metrics[f"target_accuracy_at_equal_groups_{arm}"] = mine["target_at_equal_groups"]
        metrics[f"retained_accuracy_{arm}"] = mine["retained"]["accuracy"]
    if "none" in found:
        plain = details["arms"]["none"]
        metrics["forgotten"] = plain["retained_before"]["accuracy"] - plain["retained"]["accuracy"]
    for arm, base in PAIRS:
        if seeds := shared_seeds(found, arm, base):
            ends = [[found[name][seed][-1] for seed in seeds] for name in (arm, base)]
            both = {"target": compared(*ends, TARGET, "right"), "retained": compared(*ends, GENERAL, "right")}
            details["compared"][f"{arm}_minus_{base}"] = {"seeds": seeds, **both}
            metrics[f"retained_gain_{arm}_over_{base}"] = both["retained"]["difference"]["value"]
    return metrics, details


def length_summary(found: Mapping[str, Runs]) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and details of the part `length`, from the evaluations by arm and seed."""
    tokens = min(run[-1].tokens for runs in found.values() for run in runs.values())
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {"equal_tokens": tokens, "arms": {}, "compared": {}}
    level = {arm: [at(run, tokens, "tokens") for run in runs.values()] for arm, runs in found.items()}
    for arm, runs in found.items():
        details["arms"][arm] = mine = row(runs, [TARGET])
        metrics[f"accuracy_{arm}"] = mine["target"]["accuracy"]
        metrics[f"length_{arm}"] = mine["length"]["mean"]
        metrics[f"accuracy_at_equal_tokens_{arm}"] = float(by_task(level[arm], TARGET, "right").mean())
        metrics[f"length_at_equal_tokens_{arm}"] = float(by_task(level[arm], TARGET, "length").mean())
    if seeds := shared_seeds(found, "rorecomp", "grpo"):
        both = [[at(found[arm][seed], tokens, "tokens") for seed in seeds] for arm in ("rorecomp", "grpo")]
        accuracy, length = (compared(*both, TARGET, kind) for kind in ("right", "length"))
        details["compared"]["rorecomp_and_grpo_at_equal_tokens"] = {
            "seeds": seeds,
            "accuracy": accuracy,
            "length": length,
        }
        metrics["accuracy_gain_rorecomp_over_grpo"] = accuracy["difference"]["value"]
        metrics["length_ratio_rorecomp_to_grpo"] = length["ratio"]["value"]
    return metrics, details


SUMMARIES = {"domains": domains_summary, "length": length_summary}


def run_part(name: str, runs: Path, seeds: Sequence[int], arms: Sequence[str], *, quick: bool, until: float) -> None:
    """The runs of one part that are not finished, while there is time for another."""
    part = PARTS[name]
    wanted = [(arm, seed) for seed in seeds for arm in part.arms if arm in arms]
    if all(finished(f"{arm}-seed{seed}", runs) for arm, seed in wanted) or time.monotonic() > until:
        return
    runs.mkdir(parents=True, exist_ok=True)
    model = cold_model(RECIPE, runs, [*part.cold, *(QUICK_COLD if quick else [])])
    with ShortRuns(RECIPE, runs, model, common=part.common) as session:
        for arm, seed in wanted:
            if time.monotonic() < until:
                session.run(f"{arm}-seed{seed}", [f"run.seed={seed}", *part.arms[arm], *(QUICK if quick else [])])


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/replay"), help="where the run directories go")
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="only these questions")
    every = [arm for part in PARTS.values() for arm in part.arms]
    parser.add_argument("--only", nargs="+", choices=every, default=every, help="only these arms")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many minutes")
    options = parser.parse_args()
    seeds = options.seeds[:1] if options.quick else options.seeds
    until = time.monotonic() + 60 * options.minutes
    metrics: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name in options.part:
        runs = options.runs / ("quick" if options.quick else ".") / name
        run_part(name, runs, seeds, options.only, quick=options.quick, until=until)
        found: dict[str, dict[int, list[Evaluated]]] = {}
        for arm in PARTS[name].arms:
            places = {seed: finished(f"{arm}-seed{seed}", runs) for seed in seeds}
            if arm in options.only and any(places.values()):
                found[arm] = {seed: read(place) for seed, place in places.items() if place is not None}
        if found:
            more, details[name] = SUMMARIES[name](found)
            metrics |= more
            for arm, mine in details[name]["arms"].items():
                print(f"{arm:10} " + "  ".join(f"{k} {v}" for k, v in mine.items()), file=sys.stderr)
    if not metrics:
        raise SystemExit(f"no finished run in {options.runs}")
    finish("replay_quick" if options.quick else "replay", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
