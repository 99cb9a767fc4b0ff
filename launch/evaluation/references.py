"""Tasks that cannot be judged leave an evaluation before anything is sampled."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from rewards.judge import Judge
from rewards.outcome import Sample
from rollout.schema import Task


async def judgeable(tasks: Sequence[Task], judge: Judge, console: Console) -> tuple[tuple[Task, ...], dict[str, str]]:
    """The tasks whose own reference the verifier accepts, as in training, and why the others are left out."""
    reasons = await judge.check_references([Sample.of_reference(task) for task in tasks])
    left_out = {task.key: reason for task, reason in zip(tasks, reasons, strict=True) if reason is not None}
    if len(left_out) == len(tasks):
        raise ValueError(f"no verifier can judge the reference of any task: {next(iter(left_out.values()))}")
    if left_out:
        key, reason = next(iter(left_out.items()))
        console.print(
            f"warning: {len(left_out)} of {len(tasks)} tasks are left out, no verifier can judge their reference, for "
            f"example {key}: {reason}",
            markup=False,
            highlight=False,
        )
    return tuple(task for task in tasks if task.key not in left_out), left_out
