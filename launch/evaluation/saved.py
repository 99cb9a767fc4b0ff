"""Saved attempts, from a run's recorded evaluations or from an earlier evaluation of modes, to be measured again.

No model is needed. Unless the verdicts are kept, the verifier judges every text anew, so a better verifier can be
applied to what was sampled long ago.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from budgets.config import BudgetsConfig
from budgets.evaluation.attempt import Attempt
from budgets.modes import Mode, parse_modes
from launch.evaluation.sampling import SampleJudge
from launch.evaluation.store import read_jobs
from launch.evaluation.tasks import read_tasks
from rewards.outcome import Sample
from rl.verdict import CORRECT_AT, is_correct
from rollout.schema import Finish, Message, Task, TokenBudget

COLUMNS = [
    *("reason", "task_key", "source", "verifier", "prompt", "reference", "effort", "instruction"),
    *("max_thinking_tokens", "sibling", "sampled", "char_ends", "prompt_len", "text", "thinking", "answer"),
    *("num_thinking_tokens", "finish", "error", "status", "score", "outcome_reason"),
]
BATCH = 32  # samples of one call to the verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What a directory holds."""

    attempts: tuple[Attempt, ...]
    tasks: tuple[Task, ...]
    modes: tuple[Mode, ...]
    origin: Mapping[str, Any]


def read_saved(directory: Path, budgets: BudgetsConfig, *, known: Sequence[Task] = ()) -> Saved:
    """Attempts of a directory written by `ponder eval modes`, or of the newest evaluation of a run.

    `known` tasks replace recorded ones of the same key, which lack what a verifier may need beyond the reference.
    Raises ValueError for a directory that is neither.
    """
    if (directory / "attempts.jsonl").is_file() and (directory / "plan.json").is_file():
        return _of_modes(directory)
    groups = directory / "groups" if (directory / "groups").is_dir() else directory
    files = sorted(groups.glob("eval-*.parquet"), key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    if not files:
        raise ValueError(
            f"{directory} holds no saved attempts: neither attempts.jsonl with plan.json, as `ponder eval modes` "
            "writes them, nor groups/eval-*.parquet, as a run does"
        )
    return _of_run(files[-1], budgets, {task.key: task for task in known})


async def judge_again(saved: Saved, judge: SampleJudge) -> list[Attempt]:
    """The attempts with new verdicts; those without a response keep theirs."""
    tasks = {task.key: task for task in saved.tasks}
    asked = [a for a in saved.attempts if a.has_response]
    verdicts: dict[int, Attempt] = {}
    for start in range(0, len(asked), BATCH):
        batch = asked[start : start + BATCH]
        outcomes = await judge.judge([sample_of(a, tasks[a.task]) for a in batch])
        for attempt, outcome in zip(batch, outcomes, strict=True):
            verdicts[id(attempt)] = replace(
                attempt,
                status=str(outcome.status),
                score=outcome.score,
                correct=is_correct(outcome),
                reason=outcome.reason,
            )
        await asyncio.sleep(0)
    return [verdicts.get(id(a), a) for a in saved.attempts]


def sample_of(attempt: Attempt, task: Task) -> Sample:
    """What a verifier sees of a saved attempt."""
    return Sample(
        task_key=task.key,
        prompt=task.prompt,
        reference=task.answer,
        verifier=task.verifier,
        thinking=attempt.thinking_text,
        answer=attempt.answer_text,
        closed=attempt.answer is not None,
        text=attempt.text,
        finish=attempt.finish,
        effort=attempt.mode,
        sibling=attempt.sample,
        skills=task.skills,
        meta=task.meta,
    )


# ------------------------------------------------------------------------------------------------ ponder eval modes


def mode_from_json(value: Mapping[str, Any], max_prompt_tokens: int) -> Mode:
    """What `Mode.as_json` wrote."""
    budget = TokenBudget(
        effort=value["name"],
        max_prompt_tokens=max_prompt_tokens,
        max_thinking_tokens=value["max_thinking_tokens"],
        max_answer_tokens=value["max_answer_tokens"],
        instruction=value["instruction"],
        opens_thinking=value["kind"] == "on",
        prefix=value.get("prefix", ""),
    )
    return Mode(name=value["name"], kind=value["kind"], budget=budget, promised=value["promised_thinking_tokens"])


def _of_modes(directory: Path) -> Saved:
    plan = json.loads((directory / "plan.json").read_text(encoding="utf-8"))
    modes = [mode_from_json(mode, plan["max_prompt_tokens"]) for mode in plan["modes"]]
    tasks = read_tasks(directory / "tasks.jsonl")
    keys, wanted = {task.key for task in tasks}, {mode.name for mode in modes}
    newest: dict[tuple[str, str, int], Attempt] = {}
    for _, attempts in read_jobs(directory / "attempts.jsonl"):
        newest |= {(a.mode, a.task, a.sample): a for a in attempts if a.task in keys and a.mode in wanted}
    found = [a for a in newest.values() if a.sample < plan["num_samples"]]
    return Saved(attempts=tuple(found), tasks=tasks, modes=tuple(modes), origin=plan["policy"])


# ------------------------------------------------------------------------------------------------ a run's record


def _of_run(path: Path, budgets: BudgetsConfig, known: Mapping[str, Task]) -> Saved:
    rows = pq.read_table(path, columns=COLUMNS).to_pylist()
    modes: dict[str, Mode] = {}
    tasks: dict[str, Task] = {}
    attempts = []
    for row in rows:
        name = row["effort"] if row["reason"] in ("", "sampled") else f"{row['effort']} {row['reason']}"
        modes.setdefault(name, _mode_of(name, row, budgets))
        tasks.setdefault(row["task_key"], known.get(row["task_key"]) or _task_of(row))
        attempts.append(_attempt_of(name, row))
    origin = {"kind": "trajectories", "file": path.name}
    ordered = tuple(_by_name(modes, budgets))
    return Saved(attempts=tuple(attempts), tasks=tuple(tasks.values()), modes=ordered, origin=origin)


def _by_name(modes: Mapping[str, Mode], budgets: BudgetsConfig) -> Iterator[Mode]:
    """The recipe's efforts in its order, then the others."""
    first: Iterable[str] = [name for name in budgets.efforts if name in modes]
    yield from (modes[name] for name in first)
    yield from (mode for name, mode in modes.items() if name not in budgets.efforts)


def _mode_of(name: str, row: Mapping[str, Any], budgets: BudgetsConfig) -> Mode:
    if row["effort"] in budgets.efforts:
        return replace(parse_modes(row["effort"], budgets)[0], name=name)
    budget = TokenBudget(
        effort=row["effort"],
        max_prompt_tokens=budgets.max_prompt_tokens,
        max_thinking_tokens=row["max_thinking_tokens"],
        max_answer_tokens=max(effort.max_answer_tokens for effort in budgets.efforts.values()),
        instruction=row["instruction"],
    )
    return Mode(name=name, kind="effort", budget=budget, promised=row["max_thinking_tokens"])


def _task_of(row: Mapping[str, Any]) -> Task:
    return Task(
        key=row["task_key"],
        prompt=tuple(Message(role=m["role"], content=m["content"]) for m in row["prompt"]),
        answer=row["reference"],
        verifier=row["verifier"],
        source=row["source"],
    )


def _attempt_of(mode: str, row: Mapping[str, Any]) -> Attempt:
    spans = {name: None if row[name] is None else (row[name][0], row[name][1]) for name in ("thinking", "answer")}
    sampled = np.asarray(row["sampled"], dtype=bool)
    answer_tokens = 0
    if spans["answer"] is not None:
        start, end = spans["answer"]
        ends = np.asarray(row["char_ends"])
        inside = (ends > start) & (np.concatenate([[0], ends[:-1]]) < end) & sampled
        answer_tokens = int(inside.sum())
    score = row["score"]
    return Attempt(
        task=row["task_key"],
        source=row["source"],
        mode=mode,
        sample=row["sibling"],
        text=row["text"],
        thinking=spans["thinking"],
        answer=spans["answer"],
        thinking_tokens=row["num_thinking_tokens"],
        answer_tokens=answer_tokens,
        response_tokens=int(sampled.sum()),
        finish=Finish(row["finish"]),
        status=row["status"],
        score=score,
        correct=None if score is None else score >= CORRECT_AT,
        reason=row["error"] or row["outcome_reason"] or "",
    )
