"""Does judging hide behind generation, and do workers grow when it does not?

A stand-in for an engine yields one group after the other, a reward function takes its time over every attempt, and each
group is judged as soon as it is there, as the training loop does. Measured against the same work done in turn, on the
real service: Ray actor, queue, killable workers. Sleeping stands in for both kinds of work, so what is measured is
the plumbing and not the cores of the machine.

    overlap              share of the shorter kind of work that was hidden behind the longer: 1 is perfect, 0 in turn
    overhead_ms          what the service adds to one group, beyond the sleeping
    speedup_by_scaling   time with one worker over time with up to four, when judging is the longer kind
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import ray
from result import arguments, finish

from rewards.actor import JudgeClient, start_judge
from rewards.config import RewardsConfig
from rollout.schema import Finish, Group, Job, Message, PolicySpan, Sampling, Task, TokenBudget, Trajectory

SIBLINGS = 4
REWARD = "import time\n\ndef nap(sample):\n    time.sleep({seconds})\n    return 1.0\n"


def attempts(verifier: str) -> Group:
    """Siblings that answered 7, one token each."""
    prompt = (Message(role="user", content="3+4=?"),)
    task = Task(key="k", prompt=prompt, answer="7", verifier=verifier, source="benchmark")
    budget = TokenBudget(effort="high", max_prompt_tokens=1, max_thinking_tokens=None, max_answer_tokens=1)
    siblings = tuple(
        Trajectory(
            group_id="g",
            sibling=sibling,
            token_ids=np.zeros(1, np.int32),
            sampled=np.ones(1, np.bool_),
            sampler_logprobs=np.zeros(1, np.float32),
            char_ends=np.ones(1, np.int32),
            prompt_len=0,
            text="7",
            thinking=None,
            answer=(0, 1),
            finish=Finish.STOP,
            policy=PolicySpan(start=0, end=0),
        )
        for sibling in range(SIBLINGS)
    )
    job = Job(group_id="g", task=task, num_siblings=SIBLINGS, budget=budget, sampling=Sampling())
    return Group(job=job, trajectories=siblings)


def start(path: Path, *, reward_s: float, max_workers: int) -> tuple[JudgeClient, Group]:
    """A judge whose reward function naps, and a group for it."""
    source = path / f"nap_{max_workers}_{reward_s}.py"
    source.write_text(REWARD.format(seconds=reward_s))
    name = f"{source}:nap"
    config = RewardsConfig.model_validate({"sandbox": {"num_workers": 1, "max_workers": max_workers}})
    client = start_judge(config, {name: name}, path / "failures")
    return client, attempts(name)


async def generate(gate: asyncio.Lock, seconds: float) -> None:
    """One engine: a group at a time."""
    async with gate:
        await asyncio.sleep(seconds)


async def loop(client: JudgeClient, of: Group, *, groups: int, generation_s: float) -> float:
    """Seconds until every group is generated and judged."""
    gate = asyncio.Lock()

    async def roll() -> None:
        await generate(gate, generation_s)
        outcomes = await client.judge(of)
        assert all(outcome.score == 1.0 for outcome in outcomes), outcomes

    started = time.perf_counter()
    await asyncio.gather(*(roll() for _ in range(groups)))
    return time.perf_counter() - started


def measure(path: Path, *, groups: int, reward_s: float, generation_s: float, max_workers: int) -> dict[str, float]:
    client, of = start(path, reward_s=reward_s, max_workers=max_workers)
    try:

        async def both() -> tuple[float, float, float]:
            await client.judge(of)  # the worker is started and the function loaded
            started = time.perf_counter()
            await client.judge(of)
            one = time.perf_counter() - started
            judging = await loop(client, of, groups=groups, generation_s=0.0)
            return one, judging, await loop(client, of, groups=groups, generation_s=generation_s)

        one, judging, together = asyncio.run(both())
        workers = {metric.name: metric.value for metric in client.metrics()}["judge/workers"]
    finally:
        client.close()
    return {"one": one, "judging": judging, "generating": groups * generation_s, "both": together, "workers": workers}


def hidden(times: dict[str, float]) -> float:
    shorter = min(times["judging"], times["generating"])
    return (times["judging"] + times["generating"] - times["both"]) / shorter


def main(words: Sequence[str] | None = None) -> None:
    options = arguments(__doc__ or "").parse_args(words)
    groups = 8 if options.quick else 40
    os.environ["PYTHONPATH"] = os.getcwd()
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name)
            light = measure(path, groups=groups, reward_s=0.02, generation_s=0.1, max_workers=1)
            heavy = measure(path, groups=groups, reward_s=0.1, generation_s=0.1, max_workers=1)
            scaled = measure(path, groups=groups, reward_s=0.1, generation_s=0.1, max_workers=4)
    finally:
        ray.shutdown()
    metrics = {
        "overlap": hidden(light),
        "overlap_when_judging_is_longer": hidden(heavy),
        "overhead_ms": 1000 * (light["one"] - SIBLINGS * 0.02),
        "speedup_by_scaling": heavy["both"] / scaled["both"],
    }
    details = {"groups": groups, "light": light, "heavy": heavy, "scaled": scaled}
    finish("reward_overlap", metrics, details, store=options.store)


if __name__ == "__main__":
    main()
