"""What happens to a response that a publish finds unfinished: recomputed or kept keys and values?

One engine answers SIZE sums x siblings, twice: with `rollout.in_flight` "recompute" and "keep". When PUBLISH_AT of the
usual time is over, other weights are published: each weight moved by lr x optimizer steps of the recipe in a random
direction, which is as far as AdamW moves a weight in one step of training. Then, over the tokens that were drawn after
the switch, the engine's log-probability is compared with that of the new weights in a float32 forward pass over the
whole response:

    mismatch_<mode>   mean |log p_engine - log p_new|; what an importance ratio of "sampler against learner" carries
                      besides the age of the tokens
    worst_<mode>      the largest of them
    seconds_ratio     time of all groups, "recompute" over "keep", median over --rounds pairs
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives import cold_model
from result import arguments, finish

MODES = ("recompute", "keep")
PUBLISH_AT = 0.4
SIZE, QUICK = (96, 8), (8, 4)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model-dir", type=Path, help="use this directory instead of the quickstart's cold start")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/in_flight"), help="where a model goes")
    parser.add_argument("--side", metavar="JSON", help="internal: be one side of one round")
    options = parser.parse_args()
    if options.side is not None:
        print(json.dumps(side(json.loads(options.side))))
        return
    runs = (options.runs / "quick" if options.quick else options.runs).resolve()
    model = options.model_dir or cold_model(runs, quick=options.quick)
    rounds: list[dict[str, Any]] = []
    for number in range(1 if options.quick else options.rounds):
        asked = {"model": str(model.resolve()), "size": QUICK if options.quick else SIZE, "seed": number}
        order = MODES if number % 2 == 0 else MODES[::-1]
        rounds.append({mode: run_side({**asked, "mode": mode}) for mode in order})
        print(f"round {number}: {json.dumps(rounds[-1])}", file=sys.stderr, flush=True)
    metrics = {f"mismatch_{mode}": statistics.fmean(r[mode]["mean"] for r in rounds) for mode in MODES}
    metrics |= {f"worst_{mode}": max(r[mode]["worst"] for r in rounds) for mode in MODES}
    metrics["seconds_ratio"] = statistics.median(r["recompute"]["seconds"] / r["keep"]["seconds"] for r in rounds)
    name = "in_flight_quick" if options.quick else "in_flight"
    finish(name, metrics, {"rounds": rounds, "publish_at": PUBLISH_AT}, store=options.store)


def run_side(asked: Mapping[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", json.dumps(asked)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def side(asked: Mapping[str, Any]) -> dict[str, Any]:
    from launch import cluster, recipe
    from launch.config import ClusterConfig

    settings = ["sft=none", "model.type=path", f"model.path={asked['model']}", f"rollout.in_flight={asked['mode']}"]
    config = recipe.load(Path("launch/recipes/quickstart.toml"), [*settings, f"run.seed={asked['seed']}"])
    with tempfile.TemporaryDirectory() as logs, cluster.session(ClusterConfig(num_cpus=2), log_dir=Path(logs)):
        from rollout.actor import start_engines

        engines = start_engines(config.rollout, config.format, asked["model"], log_dir=logs)
        model = moved_model(asked["model"], asked["seed"], by=config.learner.lr * config.learner.num_optimizer_steps)
        found = asyncio.run(measure(engines, jobs(config, asked["size"]), model))
        engines.close()
    return found


def jobs(config: Any, size: tuple[int, int]) -> list[Any]:
    """Training jobs of the effort that thinks longest."""
    from budgets.effort import token_budgets
    from launch.task_splits import load_task_splits
    from rollout.schema import Job, Purpose, Sampling

    tasks = load_task_splits(config.tasks, seed=0).train[: size[0]]
    budget = token_budgets(config.budgets)["high"]
    return [
        Job(
            group_id=f"g{number}",
            task=task,
            num_siblings=size[1],
            budget=budget,
            sampling=Sampling(seed=number),
            purpose=Purpose.TRAIN,
        )
        for number, task in enumerate(tasks)
    ]


def moved_model(path: str, seed: int, *, by: float) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randint_like(parameter, 2) * 2 - 1, alpha=by)
    return model


async def measure(engines: Any, work: list[Any], model: Any) -> dict[str, Any]:
    import ray

    started = time.perf_counter()
    await asyncio.gather(*map(engines.generate, work))
    usual = time.perf_counter() - started

    started = time.perf_counter()
    running = asyncio.gather(*map(engines.generate, work))
    await asyncio.sleep(PUBLISH_AT * usual)
    await engines.begin_update(1)
    await engines.receive(ray.put([(name, tensor.detach()) for name, tensor in model.named_parameters()]))
    await engines.finish_update(1)
    groups = await running
    seconds = time.perf_counter() - started
    continued = [t for group in groups for t in group.trajectories if t.policy.switches]
    if not continued:
        raise RuntimeError("no response was in flight during the publish; raise SIZE or change PUBLISH_AT")
    differences = [d for trajectory in continued for d in after_the_switch(trajectory, model)]
    return {
        "seconds": seconds,
        "continued": len(continued),
        "tokens": len(differences),
        "mean": statistics.fmean(differences),
        "worst": max(differences),
    }


def after_the_switch(trajectory: Any, model: Any) -> list[float]:
    """|log p_engine - log p_new| of the tokens drawn after the publish."""
    import torch

    ids = torch.tensor([trajectory.token_ids.tolist()])
    with torch.no_grad():
        table = model(ids).logits[0, :-1].log_softmax(-1)
    expected = table.gather(-1, ids[0, 1:, None])[:, 0].numpy()
    first = trajectory.policy.switches[0][0]
    places = [t for t in range(first, len(trajectory.token_ids)) if trajectory.sampled[t]]
    return [abs(float(expected[t - 1]) - float(trajectory.sampler_logprobs[t])) for t in places]


if __name__ == "__main__":
    main()
