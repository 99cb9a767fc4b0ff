"""Does `ponder eval modes` generate as fast as vLLM alone? The same requests, in pairs, one right after the other.

An evaluation samples, judges and stores every answer of --tasks tasks in one uncapped mode, so that each sample is one
request. Then `vllm.LLM.generate` is given the same prompts, limits and seeds at once, in a process of its own with the
same threads and batch size, and nothing is done with what it returns. Tokens per second count from the first request to
the last answer; neither side's start is counted. The metric is the median over --rounds pairs of (evaluation / bare),
each round with seeds of its own, the order of the two alternating. `same_length` is the share of samples that got the
same number of tokens on both sides: that they are the same requests.

--model is the cold start of the quickstart (made on first use), or smollm2 as `ponder fetch smollm2` left it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from objectives import cold_model
from result import arguments, finish

INSTRUCTIONS = {"quickstart": "<high>", "smollm2": "Think step by step, then give the number."}
THINKING = {"quickstart": 80, "smollm2": 96}
SIZES = {"quickstart": (400, 16), "smollm2": (16, 4)}  # tasks, samples
QUICK = (16, 2)


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", choices=sorted(SIZES), default="quickstart")
    parser.add_argument("--model-dir", type=Path, help="use this directory instead of the usual one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/eval_speed"), help="where results and a model go")
    parser.add_argument("--bare", metavar="JSON", help="internal: be the bare side")
    options = parser.parse_args()
    if options.bare is not None:
        return bare(json.loads(options.bare))
    runs = (options.runs / "quick" if options.quick else options.runs).resolve()
    model = options.model_dir or default_model(options.model, runs, quick=options.quick)
    size = QUICK if options.quick else SIZES[options.model]
    rounds = [
        one_round(options.model, model.resolve(), runs, size, number)
        for number in range(1 if options.quick else options.rounds)
    ]
    metrics = {"ratio_bare_vllm": statistics.median(r["ratio"] for r in rounds)}
    name = f"eval_speed_{options.model}" + ("_quick" if options.quick else "")
    details = {"model": options.model, "num_tasks": size[0], "num_samples": size[1], "rounds": rounds}
    finish("eval_speed" if name == "eval_speed_quickstart" else name, metrics, details, store=options.store)


def default_model(name: str, runs: Path, *, quick: bool) -> Path:
    return Path("models/smollm2") if name == "smollm2" else cold_model(runs, quick=quick)


def one_round(recipe: str, model: Path, runs: Path, size: tuple[int, int], number: int) -> dict[str, Any]:
    """Both sides once, the evaluation first in even rounds."""
    out = runs / f"{recipe}-{number}-{time.time_ns()}"
    asked = {"recipe": recipe, "model": str(model), "size": size, "seed": number}
    if number % 2 == 0:
        ours, theirs = evaluate(asked, out), run_bare(asked)
    else:
        theirs, ours = run_bare(asked), evaluate(asked, out)
    same = [a == b for a, b in zip(ours["tokens"], theirs["tokens"], strict=True)]
    speeds = [sum(side["tokens"]) / side["seconds"] for side in (ours, theirs)]
    found = {
        "ratio": speeds[0] / speeds[1],
        "evaluation_tokens_per_s": speeds[0],
        "bare_tokens_per_s": speeds[1],
        "tokens": sum(ours["tokens"]),
        "same_length": statistics.fmean(same),
    }
    print(f"round {number}: {json.dumps(found)}", file=sys.stderr, flush=True)
    return found


def evaluate(asked: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """Through the command line; its own record of how long sampling took."""
    num_tasks, num_samples = asked["size"]
    recipe = asked["recipe"]
    command = [
        *(str(Path(sys.executable).with_name("ponder")), "eval", "modes", "--policy", asked["model"]),
        *("--recipe", recipe, "--limit", str(num_tasks), "--samples", str(num_samples), "--seed", str(asked["seed"])),
        *("--modes", str(THINKING[recipe]), "--no-enforce", "--numeric-instruction", INSTRUCTIONS[recipe]),
        *("--out", str(out)),
    ]
    subprocess.run(command, check=True, stdout=sys.stderr)
    session = json.loads((out / "usage.json").read_text())["sessions"][-1]
    counts: dict[tuple[str, int], int] = {}
    for line in (out / "attempts.jsonl").read_text().splitlines():
        for attempt in json.loads(line)["attempts"]:
            counts[attempt["task"], attempt["sample"]] = attempt["response_tokens"]
    tasks = [json.loads(line)["key"] for line in (out / "tasks.jsonl").read_text().splitlines()]
    tokens = [counts[task, sample] for task in tasks for sample in range(num_samples)]
    return {"seconds": session["sampling_s"], "tokens": tokens}


# ------------------------------------------------------------------------------------------------ vLLM alone


def run_bare(asked: Mapping[str, Any]) -> dict[str, Any]:
    from launch.evaluation.settings import load_settings

    rollout = load_settings(asked["recipe"], None, []).rollout
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(rollout.threads_per_engine),
    }
    command = [sys.executable, __file__, "--bare", json.dumps(asked)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def bare(asked: Mapping[str, Any]) -> None:
    """Print {"seconds", "tokens"}: the requests of the evaluation, given to vLLM in one call."""
    from vllm import LLM, SamplingParams, TokensPrompt

    from launch.evaluation.settings import load_settings

    rollout = load_settings(asked["recipe"], None, []).rollout
    llm = LLM(
        model=asked["model"],
        dtype=rollout.dtype,
        max_num_seqs=rollout.max_num_seqs,
        max_model_len=rollout.max_model_len,
        kv_cache_memory_bytes=int(rollout.kv_cache_gib * 2**30),
        enforce_eager=rollout.enforce_eager,
        enable_chunked_prefill=False,
        logprobs_mode="processed_logprobs",
        generation_config="vllm",
        seed=0,
    )
    requests = bare_requests(asked)
    prompts = [TokensPrompt(prompt_token_ids=r.pop("prompt_ids")) for r in requests]
    more = {"logprobs": 0, "flat_logprobs": True} if asked.get("wants_logprobs") else {}
    params = [SamplingParams(ignore_eos=True, **r, **more) for r in requests]
    llm.generate(prompts[:1], SamplingParams(max_tokens=2), use_tqdm=False)  # the evaluation's engine is warm, too
    started = time.perf_counter()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "tokens": [len(o.outputs[0].token_ids) for o in outputs]}))


def bare_requests(asked: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the evaluation asks its engines, task by task and sample by sample."""
    from budgets.modes import parse_modes
    from launch.evaluation.sampling import Plan, blocks
    from launch.evaluation.settings import load_settings
    from launch.evaluation.tasks import find_tasks
    from rollout.generate import request_seed
    from rollout.render import Renderer
    from rollout.schema import Sampling

    num_tasks, num_samples = asked["size"]
    settings = load_settings(asked["recipe"], None, [])
    tasks = find_tasks("held_out", settings, changes={}, limit=num_tasks)
    name, said = str(THINKING[asked["recipe"]]), INSTRUCTIONS[asked["recipe"]]
    modes = parse_modes(name, settings.budgets, numeric_instruction=said, is_enforced=False)
    rollout = settings.rollout
    sampling = Sampling(temperature=rollout.temperature, top_p=rollout.top_p, top_k=rollout.top_k)
    plan = Plan(
        tasks=tasks, modes=tuple(modes), num_samples=num_samples, sampling=sampling, seed=asked["seed"], context={}
    )
    renderer = Renderer.load(asked["model"], settings.format)
    requests = []
    for block in blocks(plan, {}):
        ids = renderer.prompt_ids(block.job.task.prompt, block.job.budget.instruction)
        room = (rollout.max_model_len or 2**20) - len(ids)
        requests += [
            {
                "prompt_ids": ids,
                "max_tokens": min(block.job.budget.max_answer_tokens, room),
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "stop_token_ids": list(renderer.eos_ids),
                "seed": request_seed(block.job, sibling, 0),
            }
            for sibling in range(block.job.num_siblings)
        ]
    return requests


if __name__ == "__main__":
    main()
