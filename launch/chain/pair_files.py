"""Pairs from files of rows: read, and verified; what the verifier does not agree with is left out and counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from launch import plugins
from launch.config import RunConfig
from rewards.judge import Judge
from rewards.outcome import Sample
from rl.preference.config import FilePairs
from rl.verdict import is_correct
from rollout.config import Columns, FilesSource
from rollout.schema import Finish, Task
from rollout.tasks.files import load_files

SIDES = ("chosen", "rejected")
EXAMPLE = '{"thinking": "...", "answer": "..."} or an answer alone'


def verified_rows(wanted: FilePairs, config: RunConfig) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Rows with task_key, prompt as (role, content) pairs, chosen and rejected as thinking and answer; and how many
    were left out, by reason. Raises ValueError for a row that is no pair."""
    source = FilesSource(paths=wanted.paths, columns=Columns(meta=SIDES), verifier=wanted.verifier)
    tasks = load_files(source)
    judge = Judge(config.rewards, plugins.verifier_targets(config.rewards, tasks))
    try:
        samples = [_sample(task, _response(task, side)) for task in tasks for side in SIDES]
        outcomes = asyncio.run(judge.judge(samples))
    finally:
        judge.close()
    left_out: Counter[str] = Counter()
    rows = []
    for number, task in enumerate(tasks):
        chosen, rejected = (is_correct(outcome) for outcome in outcomes[2 * number : 2 * number + 2])
        if chosen is not True or rejected is not False:
            left_out[_reason(chosen, rejected)] += 1
            continue
        row = {"task_key": task.key, "prompt": tuple((m.role, m.content) for m in task.prompt)}
        rows.append({**row, **{side: _response(task, side) for side in SIDES}})
    return rows, dict(left_out)


def _reason(chosen: bool | None, rejected: bool | None) -> str:
    if chosen is None or rejected is None:
        return "pair without a verdict"
    return "pair whose chosen is wrong" if not chosen else "pair whose rejected is right"


def _response(task: Task, side: str) -> dict[str, str]:
    value = task.meta[side]
    if isinstance(value, str):
        return {"thinking": "", "answer": value}
    if isinstance(value, dict) and isinstance(value.get("answer"), str):
        return {"thinking": str(value.get("thinking", "")), "answer": value["answer"]}
    raise ValueError(
        f"{side} of a pair must be {EXAMPLE}, got {str(value)[:80]!r} for {task.prompt[-1].content[:60]!r}"
    )


def _sample(task: Task, response: dict[str, str]) -> Sample:
    return Sample(
        task_key=task.key,
        prompt=task.prompt,
        reference=task.answer,
        verifier=task.verifier,
        thinking=response["thinking"],
        answer=response["answer"],
        closed=True,
        text=response["thinking"] + response["answer"],
        finish=Finish.STOP,
        effort="pair",
        meta=task.meta,
        source=task.source,
    )
