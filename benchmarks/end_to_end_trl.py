"""How many tokens does a whole training step train per second, against TRL's GRPOTrainer? Both in turns, in one run.

Same model, same prompts in the same order, group size, longest response, temperature, optimizer, precision and machine;
both synchronous, one optimizer step a batch, no reference model, no filter (a group without a signal is trained on by
both). A round is one step that is not counted and --steps that are, by us and by TRL one right after the other, the
order alternating; both stay up for all rounds, and the one that waits computes nothing. Tokens are the sampled
ones in the loss, seconds those of the steps: generation, rewards, update and, for us, publishing, proof and records.
The metric is the median over rounds of ours / theirs.

TRL generates with transformers here. Its own vLLM mode cannot be had on a CPU: colocated vLLM keeps a tied output head
as it was, and its server needs NCCL. Its reward is a comparison of strings, and it gets as many threads as we do.

    python benchmarks/end_to_end_trl.py --model tiny --store
    python benchmarks/end_to_end_trl.py --model smollm2 --store    # after `ponder fetch smollm2`, or --path DIR
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from objectives import cold_model
from result import RESULTS, arguments, finish
from short_runs import ShortRuns
from trl_asked import Asked

RECIPES = {"tiny": "launch/recipes/quickstart.toml", "smollm2": "launch/recipes/smollm2.toml"}
SIZES = {"tiny": (64, 8), "smollm2": (4, 8)}  # groups, siblings
LENGTHS = {"tiny": 88, "smollm2": 128}  # longest response
STEPS = {"tiny": 8, "smollm2": 1}
TARGETS = {"tiny": 2.0, "smollm2": 2.5}
TRL_ROWS = {"tiny": 128, "smollm2": 8}  # rows of one forward pass of TRL's
PLAIN = [
    "budgets.shaping.type=none",
    "budgets.phases=[]",
    "prm.type=none",
    "credit.process=none",
    "sampling.judge_on=off",
    "evaluate.at_start=false",
    "evaluate.at_end=false",
    "learner.num_optimizer_steps=1",
    "tasks.seed=0",
]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", choices=sorted(SIZES), default="tiny")
    parser.add_argument("--path", type=Path, help="the model directory, where it is not at its usual place")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="counted steps of a round")
    parser.add_argument("--threads", type=int, default=0, help="of each side; 0 takes those of the recipe")
    parser.add_argument("--set", action="append", default=[], dest="settings", help="another setting of our recipe")
    parser.add_argument("--runs", type=Path, default=Path("runs/end_to_end_trl"), help="where run directories go")
    options = parser.parse_args()
    quick = options.quick
    runs = (options.runs / (f"{options.model}-quick" if quick else options.model)).resolve()
    model = (options.path or default_model(options.model, runs, quick=quick)).resolve()
    steps, rounds = (1, 1) if quick else (options.steps or STEPS[options.model], options.rounds)
    common = overrides(options.model, options.threads, steps, quick=quick) + options.settings
    asked = Asked(
        recipe=RECIPES[options.model],
        overrides=[*common, "sft=none", "model.type=path", f"model.path={model}"],
        rows=TRL_ROWS[options.model],
        rounds=rounds,
    )
    done = compare(asked, runs, model, common)
    metrics = {f"ratio_{options.model}": statistics.median(r["ratio"] for r in done)}
    name = "end_to_end_trl_quick" if quick else "end_to_end_trl"
    if options.store and not quick:  # the other model's figure stays
        metrics = stored(name) | metrics
    details = {"settings": common, "steps_of_a_round": steps, "target": TARGETS[options.model], "rounds": done}
    finish(name, metrics, kept_details(name, options.model, details, store=options.store), store=options.store)


def default_model(name: str, runs: Path, *, quick: bool) -> Path:
    return Path("models/smollm2") if name == "smollm2" else cold_model(runs, quick=quick)


def overrides(model: str, threads: int, steps: int, *, quick: bool) -> list[str]:
    """The recipe as a plain GRPO: one effort, no thinking cap, nothing that TRL's trainer has not."""
    groups, siblings = (2, 4) if quick else SIZES[model]
    found = [
        *PLAIN,
        "budgets.efforts.high.max_thinking_tokens=none",
        f"budgets.efforts.high.max_answer_tokens={LENGTHS[model]}",
        "budgets.efforts.high.weight=1",
        "budgets.efforts.medium.weight=0",
        "budgets.efforts.low.weight=0",
        f"loop.groups_per_step={groups}",
        f"loop.num_steps={steps + 1}",
        "loop.checkpoint_every=0",
        f"rollout.group_size={siblings}",
    ]
    if threads:
        found += [f"rollout.threads_per_engine={threads}", f"learner.threads_per_rank={threads}"]
    return found


def compare(asked: Asked, runs: Path, model: Path, common: Sequence[str]) -> list[dict[str, float]]:
    rounds = []
    with ShortRuns(Path(asked.recipe), runs, model, common=common) as session, Trl(asked) as trl:

        def ours(number: int) -> dict[str, float]:
            directory = session.run(f"round-{os.getpid()}-{number}", [f"run.seed={number}"])
            return timings(directory)

        for number in range(asked.rounds):
            sides = {"ours": ours, "trl": trl.round} if number % 2 == 0 else {"trl": trl.round, "ours": ours}
            speeds = {name: side(number) for name, side in sides.items()}
            row = {f"{name}_{key}": value for name, speed in speeds.items() for key, value in speed.items()}
            row["ratio"] = row["ours_tokens_per_s"] / row["trl_tokens_per_s"]
            rounds.append(row)
            print(f"round {number}: {json.dumps(row)}", file=sys.stderr, flush=True)
    return rounds


def timings(directory: Path) -> dict[str, float]:
    """The steps of one of our runs without its first."""
    rows = [json.loads(line)["metrics"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "time/step_s" in row][1:]
    seconds = sum(row["time/step_s"] for row in steps)
    tokens = sum(row["batch/loss_tokens"] for row in steps)
    return {
        "tokens_per_s": tokens / seconds,
        "tokens": tokens,
        "step_s": seconds / len(steps),
        "generate_s": sum(row["time/generate_s"] for row in steps) / len(steps),
        "learn_s": sum(row["time/learn_s"] for row in steps) / len(steps),
        "publish_s": sum(row["time/publish_s"] for row in steps) / len(steps),
    }


class Trl:
    """TRL's trainer in a process of its own, which waits between rounds."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked

    def __enter__(self) -> Trl:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._asked.threads())}
        command = [sys.executable, str(Path(__file__).with_name("trl_side.py")), self._asked.text()]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()  # it is up
        return self

    def round(self, number: int) -> dict[str, float]:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"TRL's side ended with code {self._process.wait()}; its error is above")
        found: dict[str, float] = json.loads(line)
        return found

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def stored(name: str) -> dict[str, float]:
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())["metrics"]) if path.is_file() else {}


def kept_details(name: str, model: str, details: Mapping[str, Any], *, store: bool) -> dict[str, Any]:
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text())["details"] if store and path.is_file() else {}
    return {**old, model: dict(details)}


if __name__ == "__main__":
    main()
