"""How well does each kind of step scorer find the first wrong step? A small model, sums, planted errors.

A solution of the quickstart's task rewrites a sum one addition at a time. In half of the solutions one rewrite is made
wrong (its total is off by 1 to 3) and everything after it is right arithmetic on the wrong total, answer included:
what a policy does that slips once. The scorers start from the quickstart's cold start and learn from

    exact         labels of the exact checker                       a classifier with hard labels
    monte_carlo   8 completions of the policy a prefix              a classifier with hard labels (any completion right)
    value         the same, as shares                               a value model
    implicit      outcomes of whole solutions alone                 a log-ratio, CE
    implicit_dpo  the same, in pairs

Monte-Carlo labels and outcomes are bought with the same number of generated tokens: completions for some solutions on
one side, whole solutions on the other. First-error F1 (ProcessBench's protocol) on held-out sums, its threshold chosen
on other sums. Labels and models are kept in --runs, so that the benchmark can be stopped and started again.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from result import arguments, finish

from launch import recipe
from prm.config import ExactPrmConfig, SeparatorSplitter
from prm.data import StepRow, read_rows, write_rows
from prm.evaluate import best_threshold, localization, step_figures
from prm.label.completion import Completer, label_by_completion, row_of_solution
from prm.label.exact import label_by_exact
from prm.label.ports import Opening, Written
from prm.score_rows import score_exactly, score_with_model
from prm.steps import cut_steps
from rollout.config import FormatConfig
from rollout.continuation import Continuation, continue_all
from rollout.render import Renderer
from rollout.schema import Finish, Job, PolicySpan, Purpose, Sampling, Task, TokenBudget, Trajectory
from rollout.tasks import sums

RECIPE = Path("launch/recipes/quickstart.toml")
FORMAT = FormatConfig(prefill_thinking=True)
SPLITTER = SeparatorSplitter(separator=";")
BUDGET = TokenBudget(
    effort="high", max_prompt_tokens=24, max_thinking_tokens=80, max_answer_tokens=8, instruction="<high>"
)
ENGINE_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}
SETTINGS: dict[str, Any] = {
    "lr": 1e-3,
    "batch_size": 64,
    "evaluations": 12,
    "patience": 4,
    "held_out": 0.15,
    "machine.max_tokens": 128,
}
KINDS: dict[str, dict[str, Any]] = {
    "exact": {"labels": "hard", "epochs": 8},
    "monte_carlo": {"labels": "hard", "epochs": 8},
    "value": {"kind": "value", "epochs": 8},
    "implicit": {"kind": "implicit", "beta": 0.5, "lr": 1e-3, "epochs": 5},
    "implicit_dpo": {"kind": "implicit", "objective": "dpo", "beta": 0.5, "lr": 1e-3, "epochs": 5},
}


@dataclass(frozen=True)
class Size:
    labelled: int  # solutions whose prefixes are completed
    tuning: int
    tested: int


FULL, QUICK = Size(400, 300, 500), Size(24, 20, 20)


def cold_model(runs: Path, *, quick: bool) -> Path:
    """The quickstart's cold start, made on first use."""
    model = runs / "cold-start" / "start_model"
    if not (model / "config.json").is_file():
        ponder = str(Path(sys.executable).with_name("ponder"))
        settings = [f"run.dir={runs}", "run.name=cold-start", *(["sft.num_steps=60"] if quick else [])]
        command = [ponder, "sft", str(RECIPE), *(part for s in settings for part in ("--set", s))]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return model.resolve()


def solution(task: Task, rng: np.random.Generator, *, planted: bool) -> tuple[list[str], str, int]:
    """Rewrites, answer and index of the planted error (-1 for none)."""
    terms = [int(t) for t in task.prompt[-1].content.rstrip("=").split("+")]
    totals = list(accumulate(terms))
    at = int(rng.integers(len(terms) - 2)) if planted else -1
    off = int(rng.choice([-3, -2, -1, 1, 2, 3])) if planted else 0
    texts = []
    for index in range(1, len(terms) - 1):
        total = totals[index] + (off if planted and index > at else 0)
        texts.append("+".join(map(str, (max(total, 0), *terms[index + 1 :]))))
    return texts, str(totals[-1] + off), at


def solutions(tasks: Sequence[Task], model: Path, *, seed: int) -> list[tuple[StepRow, Trajectory]]:
    """One solution an entry, every second with a planted error, as the tokens the policy would have written."""
    renderer = Renderer.load(str(model), FORMAT)
    rng = np.random.default_rng(seed)
    found = []
    for number, task in enumerate(tasks):
        thoughts, answer, at = solution(task, rng, planted=number % 2 == 1)  # a right one, then a wrong one of each sum
        trajectory = trajectory_of(renderer, task, ";".join(thoughts), answer)
        steps = cut_steps(trajectory, SPLITTER)
        labels = [1.0 if at < 0 or i < at else 0.0 if i == at else None for i in range(len(steps))]
        outcome = float(answer == task.answer)
        row = row_of_solution(task, trajectory, steps, labels, kind="hard", labeller="planted", outcome=outcome)
        found.append((row, trajectory))
    return found


def trajectory_of(renderer: Renderer, task: Task, thinking: str, answer: str) -> Trajectory:
    prompt = renderer.prompt_ids(task.prompt, "<high>")
    response = renderer.response_ids(thinking, answer)
    text, ends = renderer.text_of(response)
    start = text.index(thinking)
    ids = np.array([*prompt, *response], np.int32)
    return Trajectory(
        group_id=task.key,
        sibling=0,
        token_ids=ids,
        sampled=np.arange(len(ids)) >= len(prompt),
        sampler_logprobs=np.zeros(len(ids), np.float32),
        char_ends=np.concatenate([np.zeros(len(prompt)), ends]).astype(np.int32),
        prompt_len=len(prompt),
        text=text,
        thinking=(start, start + len(thinking)),
        answer=(text.rindex(answer), text.rindex(answer) + len(answer)),
        finish=Finish.STOP,
        policy=PolicySpan(start=0, end=0),
    )


# ------------------------------------------------------------------------------------------------ Monte-Carlo labels


class Engine:
    """The model in this process, as writer and as judge of answers that are one number."""

    def __init__(self, engine: Any, renderer: Renderer) -> None:
        self._engine = engine
        self._renderer = renderer

    async def write(self, task: Task, openings: Sequence[Opening], *, stop: str = "") -> list[Written]:
        job = Job(
            group_id=task.key,
            task=task,
            num_siblings=len(openings),
            budget=BUDGET,
            sampling=Sampling(),
            purpose=Purpose.LABEL,
        )
        prefixes, seeds = tuple(o.prefix for o in openings), tuple(o.seed for o in openings)
        continuation = Continuation(job=job, prefixes=prefixes, seeds=seeds, stop=stop)
        found = await continue_all(continuation, self._engine, self._renderer)
        return [Written(trajectory=c.trajectory, ended=c.ended, num_new_tokens=c.num_new_tokens) for c in found]

    async def judge(self, task: Task, responses: Sequence[Trajectory]) -> list[float | None]:
        return [float(t.answer_text.strip() == task.answer) for t in responses]


async def complete(pairs: Sequence[tuple[Task, Trajectory]], model: Path, out: Path) -> None:
    """Monte-Carlo labels of given solutions, and what they cost."""
    from rollout.vllm_engine import VllmEngine

    config = recipe.load(RECIPE, ["rollout.block_size=32"]).rollout  # prefixes are shorter than the usual 128
    engine = await VllmEngine.start(config, str(model), seed=0)
    room = Engine(engine, Renderer.load(str(model), FORMAT))
    completer = Completer(room, room, num=8)
    places = asyncio.Semaphore(48)

    async def one(task: Task, trajectory: Trajectory) -> StepRow:
        async with places:
            outcome = float(trajectory.answer_text == task.answer)
            return await label_by_completion(task, trajectory, cut_steps(trajectory, SPLITTER), outcome, completer)

    rows = await asyncio.gather(*(one(*pair) for pair in pairs))
    hits = engine.num_cached_tokens / max(1, engine.num_prompt_tokens)
    await engine.close()
    cost = {"completions": completer.spent.completions, "tokens": completer.spent.tokens, "prefix_cache_hit_rate": hits}
    write_rows(out, rows)
    out.with_suffix(".json").write_text(json.dumps(cost))


# ------------------------------------------------------------------------------------------------ the experiment


def splits(size: Size) -> dict[str, list[Task]]:
    """Tasks of each part, each twice; no two parts share a sum, whatever its order."""
    pool = sums.generate(num_tasks=12_000, seed=7, min_terms=4, max_terms=6)
    unique = list({task.meta["split_key"]: task for task in pool}.values())
    cuts = np.cumsum([0, size.tested // 2, size.tuning // 2, size.labelled // 2]).tolist()
    parts = {name: unique[a:b] for name, a, b in zip(("test", "tune", "label"), cuts, cuts[1:], strict=False)}
    parts["more"] = unique[cuts[-1] :]
    return {name: [task for task in part for _ in range(2)] for name, part in parts.items()}


def child(*arguments: str, text: str) -> None:
    """A stage in a process of its own: vLLM and DeepSpeed do not share one."""
    print(text, file=sys.stderr, flush=True)
    environment = os.environ | ENGINE_ENVIRONMENT
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr, env=environment)


def prepare(runs: Path, model: Path, size: Size) -> dict[str, Any]:
    """All files of labels; returns what they cost."""
    parts = splits(size)
    made = {name: [row for row, _ in solutions(parts[name], model, seed=i)] for i, name in enumerate(("test", "tune"))}
    for name, rows in made.items():
        write_rows(runs / f"{name}.jsonl", rows)
    labels = runs / "monte_carlo.jsonl"
    if not labels.is_file():
        child(__file__, "--complete", str(model), "--runs", str(runs), "--size", str(size.labelled), text="completing")
    cost: dict[str, Any] = json.loads(labels.with_suffix(".json").read_text())
    labelled = read_rows(labels)
    write_rows(runs / "value.jsonl", labelled)
    # As many further solutions as the completions' tokens pay for.
    further, tokens = [], 0
    for row, _ in solutions(parts["more"], model, seed=9):
        tokens += len(row.token_ids or ()) - row.prompt_len
        if tokens > cost["tokens"]:
            break
        further.append(row)
    nothing = [dataclasses.replace(row, labels=(None,) * len(row.steps)) for row in (*labelled, *further)]
    exact = [label_by_exact(row, ExactPrmConfig(chain=True)) for row in nothing]
    write_rows(runs / "exact.jsonl", exact)
    for name in ("implicit", "implicit_dpo"):
        write_rows(runs / f"{name}.jsonl", nothing)
    return cost | {"labelled_solutions": len(labelled), "outcome_solutions": len(nothing)}


def train(kind: str, runs: Path, model: Path, *, quick: bool) -> Path:
    """The trained directory of one kind, made now or before."""
    out = runs / f"model-{kind}"
    log = out / "train.json"
    if not (log.is_file() and json.loads(log.read_text())["done"]):
        settings = {**SETTINGS, **KINDS[kind], **({"epochs": 1, "evaluations": 1} if quick else {})}
        given = [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
        ponder = ["-c", "import sys; from launch.cli import main; sys.exit(main())", "prm", "train"]
        paths = [str(runs / f"{kind}.jsonl"), "--model", str(model), "--out", str(out)]
        child(*ponder, *paths, *given, text=f"training {kind}")
    return out / "best"


def measure(kind: str, runs: Path, best: Path | None, model: Path) -> dict[str, Any]:
    """First-error figures on the test solutions, the threshold from the tuning ones."""
    tune, test = read_rows(runs / "tune.jsonl"), read_rows(runs / "test.jsonl")
    if best is None:
        scored = [score_exactly(rows, ExactPrmConfig(chain=True)) for rows in (tune, test)]
    else:
        size = {"max_tokens": 128, "batch_tokens": 8192}
        reference = str(model)
        scored = [
            score_with_model(rows, str(best), reference=reference, advance=lambda n: None, **size)
            for rows in (tune, test)
        ]
        if kind.startswith("implicit"):  # the increment of a step says more about the step than the sum up to it
            scored = [[np.diff(s, prepend=np.float32(0)) for s in found] for found in scored]
    labels = [[row.first_error for row in rows] for rows in (tune, test)]
    truth = [[-1 if label is None else label for label in part] for part in labels]
    found = localization(truth[1], scored[1], best_threshold(truth[0], scored[0]))
    return {**dataclasses.asdict(found), "auc": step_figures(test, scored[1])["auc"]}


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--runs", type=Path, default=Path("runs/prm_small"), help="where labels and models go")
    parser.add_argument("--model", type=Path, help="the quickstart's cold start, if there is one already")
    parser.add_argument("--complete", type=Path, help="a stage of the benchmark: label with this model")
    parser.add_argument("--size", type=int, default=FULL.labelled, help="a stage's number of solutions")
    options = parser.parse_args()
    if options.complete is not None:
        size = QUICK if options.size == QUICK.labelled else FULL
        tasks = splits(size)["label"]
        pairs = [(t, trajectory) for t, (_, trajectory) in
                 zip(tasks, solutions(tasks, options.complete, seed=5), strict=True)]  # fmt: skip
        asyncio.run(complete(pairs, options.complete, options.runs / "monte_carlo.jsonl"))
        return
    runs = options.runs / "quick" if options.quick else options.runs
    runs.mkdir(parents=True, exist_ok=True)
    model = options.model.resolve() if options.model else cold_model(runs, quick=options.quick)
    cost = prepare(runs, model, QUICK if options.quick else FULL)
    figures = {"exact_checker": measure("exact_checker", runs, None, model)}
    for kind in KINDS:
        figures[kind] = measure(kind, runs, train(kind, runs, model, quick=options.quick), model)
        print(f"{kind}: F1 {figures[kind]['f1']:.3f}", file=sys.stderr, flush=True)
    learned = {kind: figures[kind]["f1"] for kind in KINDS}
    metrics = {
        "best_f1": max(learned.values()),
        "implicit_f1": max(learned["implicit"], learned["implicit_dpo"]),
        "monte_carlo_f1": max(learned["monte_carlo"], learned["value"]),
        "exact_f1": figures["exact_checker"]["f1"],
        **{f"f1_{kind}": value for kind, value in learned.items()},
        "prefix_cache_hit_rate": cost["prefix_cache_hit_rate"],
    }
    finish(
        "prm_small_quick" if options.quick else "prm_small",
        metrics,
        {"cost": cost, "kinds": figures},
        store=options.store,
    )


if __name__ == "__main__":
    main()
