"""Worked solutions as token ids, for updates that learn from them: rendered once, in a process of its own, and kept."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from budgets.coldstart_data import Demonstration as WorkedSolution
from budgets.config import EffortConfig
from launch import cluster, preparation
from launch.config import RunConfig
from launch.rundir import RunDirectory
from rl.hybrid.policy import Demonstration
from rollout.config import FormatConfig
from rollout.schema import Task

SCHEMA = pa.schema(
    [
        ("task_key", pa.string()),
        ("effort", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("num_given", pa.int32()),
        ("is_right", pa.bool_()),
    ]
)


def load(config: RunConfig, directory: RunDirectory, tasks: Sequence[Task]) -> dict[tuple[str, str], Demonstration]:
    """The solutions of the training tasks by task key and effort. Raises ValueError when there is none at all."""
    if not directory.demonstrations.is_file():
        cluster.run_isolated(
            render,
            config.format,
            tasks,
            num_threads=1,
            efforts=config.budgets.efforts,
            model_dir=str(directory.start_model),
            out_path=str(directory.demonstrations),
        )
    rows = pq.read_table(directory.demonstrations).to_pylist()
    if not rows:
        raise ValueError(
            "mix.demonstrations needs tasks with worked solutions, and no training task has one for any effort: give "
            "the source `solutions`, or leave the section out"
        )
    return {
        (row["task_key"], row["effort"]): Demonstration(
            token_ids=np.asarray(row["token_ids"], dtype=np.int32),
            num_given=row["num_given"],
            is_right=row["is_right"],
        )
        for row in rows
    }


def render(
    format: FormatConfig,
    tasks: Sequence[Task],
    *,
    efforts: Mapping[str, EffortConfig],
    model_dir: str,
    out_path: str,
) -> None:
    """Write every solution that the tasks carry for these efforts, as the rollouts would render it."""
    from rollout.render import Renderer

    renderer = Renderer.load(model_dir, format)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for effort, shown in (task.meta.get("demonstrations") or {}).items():
            if effort not in efforts:
                continue
            row = preparation.sft_row(renderer, WorkedSolution(task=task, effort=effort, **shown), efforts[effort])
            rows.append(
                {
                    "task_key": task.key,
                    "effort": effort,
                    "token_ids": row["input_ids"],
                    "num_given": row["completion_mask"].index(1),
                    "is_right": shown["answer"].strip() == task.answer.strip(),
                }
            )
    partial = Path(f"{out_path}.tmp")
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial, compression="zstd")
    os.replace(partial, out_path)
