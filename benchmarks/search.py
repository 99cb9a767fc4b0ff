"""Does choosing by step scores beat majority voting at equal tokens? The quickstart's sums, its cold start model.

The model's mistakes are of two kinds: wrong additions, and stopping early with the total so far, which its careless
teacher showed it; on longer sums the second kind is so frequent that voting elects it. Three scorers guide the choice:

    implicit      a learned one: log-ratio to the start model, trained here on the outcomes of its own samples of
                  training tasks (--rounds batches of 64 tasks x 8 samples), nothing but right and wrong; value q, last
    exact_steps   checks the arithmetic of each step and does not see the answer; min
    exact         the answer is one more step to check; min. On this task that nearly decides what is right

`gain_over_majority` is the accuracy of weighted majority at all samples with the implicit scorer less that of majority
on the same samples: equal tokens by construction, paired by task, chosen before looking. Searches (beam,
tree) are compared with majority at as many tokens. Held-out tasks; finished parts are kept in --runs.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives import cold_model
from result import arguments, finish

RECIPE = "quickstart"
SEARCHES = "beam:2x4,tree:12x3"
NUM_SAMPLES, NUM_TASKS = 16, 120
QUICK = (4, 20)
TASKS_A_ROUND, SIBLINGS = 64, 8
LR, BETA = 1e-3, 0.5
SPLITTER = "prm.splitter={ type = 'separator', separator = ';' }"
IMPLICIT = [f"prm.beta={BETA}", "prm.kind=q", "prm.include_answer=true", SPLITTER]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model-dir", type=Path, help="use this cold start instead of the usual one")
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--runs", type=Path, default=Path("runs/search"), help="where results and models go")
    parser.add_argument("--train", metavar="JSON", help="internal: train the implicit scorer")
    options = parser.parse_args()
    if options.train is not None:
        return train(json.loads(options.train))
    runs = (options.runs / "quick" if options.quick else options.runs).resolve()
    runs.mkdir(parents=True, exist_ok=True)
    model = (options.model_dir or cold_model(runs, quick=options.quick)).resolve()
    rounds = 2 if options.quick else options.rounds
    out = runs / "implicit-model"
    scorer = out / "saved" / "model"
    if not (out / "training.json").is_file():
        asked = {"model": str(model), "out": str(out), "rounds": rounds}
        subprocess.run([sys.executable, __file__, "--train", json.dumps(asked)], check=True, stdout=sys.stderr)
    learned = [f"prm.path={scorer}", f"prm.reference={model}", *IMPLICIT]
    exact = ["prm.type=exact", "prm.chain=true", SPLITTER]
    scorers = {
        "implicit": (["prm.type=implicit", *learned], "last"),
        "exact_steps": (exact, "min"),
        "exact": ([*exact, "prm.include_answer=true"], "min"),
    }
    size = QUICK if options.quick else (NUM_SAMPLES, NUM_TASKS)
    found = {name: evaluate(name, *how, model=model, runs=runs, size=size) for name, how in scorers.items()}
    rule = f"weighted_majority@{size[0]}"
    gain = found["implicit"]["methods"][rule]["gain_over_majority"]
    exact_gain = found["exact_steps"]["methods"][f"weighted_best_of_n@{size[0]}"]["gain_over_majority"]
    metrics = {
        "gain_over_majority": gain["value"],
        "gain_low": gain["low"],
        "gain_high": gain["high"],
        "gain_exact_steps": exact_gain["value"],
    }
    details = {
        "rule": rule,
        "num_tasks": size[1],
        "scorer_training": json.loads((out / "training.json").read_text()),
        "scorers": {name: results["methods"] for name, results in found.items()},
        "coreset": found["implicit"]["coreset"],
    }
    finish("search_quick" if options.quick else "search", metrics, details, store=options.store)


def evaluate(
    name: str, prm: list[str], aggregate: str, *, model: Path, runs: Path, size: tuple[int, int]
) -> Mapping[str, Any]:
    """`ponder eval search`; what is on disk is not searched again."""
    out = runs / name
    command = [
        *(str(Path(sys.executable).with_name("ponder")), "eval", "search", "--policy", str(model)),
        *("--recipe", RECIPE, "--effort", "high", "--search", SEARCHES, "--samples", str(size[0])),
        *("--limit", str(size[1]), "--aggregate", aggregate, "--max-step-tokens", "32", "--bins", "3", "--coreset"),
        *(part for setting in prm for part in ("--set", setting)),
        *("--out", str(out)),
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    results: dict[str, Any] = json.loads((out / "search.json").read_text())
    return results


def train(asked: Mapping[str, Any]) -> None:
    """The implicit scorer on outcomes of the start model's own samples; writes OUT/saved and OUT/training.json."""
    from launch import cluster, plugins
    from launch.evaluation.settings import load_settings
    from launch.evaluation.tasks import find_tasks
    from rewards.judge import Judge

    model, out = Path(asked["model"]), Path(asked["out"])
    settings = load_settings(RECIPE, None, ["prm.type=implicit", f"prm.online.lr={LR}", *IMPLICIT])
    tasks = find_tasks("train", settings, changes={}, limit=asked["rounds"] * TASKS_A_ROUND)
    judge = Judge(settings.rewards, plugins.verifier_targets(settings.rewards, tasks))
    try:
        with cluster.session(settings.cluster, log_dir=out / "logs"):
            history = asyncio.run(train_in_session(settings, tasks, judge, model, out))
    finally:
        judge.close()
    (out / "training.json").write_text(json.dumps({"lr": LR, "beta": BETA, "rounds": history}))


async def train_in_session(settings: Any, tasks: Any, judge: Any, model: Path, out: Path) -> list[dict[str, float]]:
    from budgets.effort import token_budgets
    from launch.build import in_thread, start_scorer_of
    from rewards.outcome import samples_of
    from rollout.actor import start_engines
    from rollout.schema import Job, Purpose, Sampling

    pool = await in_thread(
        lambda: start_engines(settings.rollout, settings.format, str(model), log_dir=str(out / "logs"))
    )
    scorer = await in_thread(lambda: start_scorer_of(settings.prm, model_dir=model, state_dir=out / "state"))
    budget = token_budgets(settings.budgets)["high"]

    async def one(task: Any) -> tuple[list[Any], list[float | None]]:
        sampling = Sampling(seed=0)
        job = Job(
            group_id=task.key, task=task, num_siblings=SIBLINGS, budget=budget, sampling=sampling, purpose=Purpose.LABEL
        )
        group = await pool.generate(job)
        outcomes = await judge.judge(samples_of(group))
        return list(group.trajectories), [outcome.score for outcome in outcomes]

    history = []
    for start in range(0, len(tasks), TASKS_A_ROUND):
        groups = await asyncio.gather(*(one(task) for task in tasks[start : start + TASKS_A_ROUND]))
        mixed = [(t, labels) for t, labels in groups if len(set(labels)) > 1]  # equal outcomes teach only their share
        trajectories = [trajectory for t, _ in mixed for trajectory in t]
        labels = [label for _, group_labels in mixed for label in group_labels]
        if not await scorer.update(trajectories, labels):
            raise RuntimeError(f"the scorer did not train: {scorer.fault}")
        figures = {metric.name: metric.value for metric in scorer.metrics()}
        history.append(figures | {"tokens": float(sum(t.num_response_tokens for g, _ in groups for t in g))})
        print(f"round {len(history)}: {json.dumps(history[-1])}", file=sys.stderr, flush=True)
    await scorer.save(str(out / "saved"))  # beside the state that the actor keeps for a restart
    scorer.close()
    pool.close()
    return history


if __name__ == "__main__":
    main()
