"""Every group of a run in Parquet, with its fate: trained at which step, or dropped and why.

One file per step, `step-000012.parquet`, written aside and renamed, one row per trajectory; evaluations go to
`eval-000012.parquet`. Together the step files are the ledger of consumed tasks. A resumed run first moves the files
beyond its checkpoint into `set-aside-<n>/`, so that no task is counted twice and nothing is deleted.
`rl/record_reader.py` reads them back.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rl.verdict import final_rewards
from rollout.schema import Float32Array, ScoredGroup

FateName = Literal["trained", "dropped", "evaluated", "baseline"]

SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("fate", pa.string()),
        ("reason", pa.string()),  # why dropped; decoding mode of an evaluation; group that a baseline belongs to
        ("group_id", pa.string()),
        ("task_key", pa.string()),
        ("source", pa.string()),
        ("verifier", pa.string()),
        ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("reference", pa.string()),
        ("effort", pa.string()),
        ("instruction", pa.string()),
        ("max_thinking_tokens", pa.int32()),
        ("prefix", pa.string()),  # what the response was made to begin with
        ("target_tokens", pa.int32()),  # the number of tokens that the instruction names, or null
        ("sibling", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("sampled", pa.list_(pa.bool_())),
        ("sampler_logprobs", pa.list_(pa.float32())),
        ("char_ends", pa.list_(pa.int32())),
        ("prompt_len", pa.int32()),
        ("text", pa.string()),
        ("thinking", pa.list_(pa.int32())),  # [start, end) in characters of text, or null
        ("answer", pa.list_(pa.int32())),
        ("num_thinking_tokens", pa.int32()),
        ("finish", pa.string()),
        ("error", pa.string()),
        ("version_start", pa.int32()),
        ("version_end", pa.int32()),
        ("version_switches", pa.map_(pa.int32(), pa.int32())),  # token position: the newer version from there on
        ("status", pa.string()),
        ("score", pa.float32()),  # null where unjudged
        ("outcome_reason", pa.string()),
        ("parts", pa.map_(pa.string(), pa.float64())),
        ("shaped", pa.map_(pa.string(), pa.float64())),
        ("reward", pa.float64()),  # score plus shaping terms; null where unjudged
        ("step_starts", pa.list_(pa.int32())),  # token spans; null without step scores
        ("step_ends", pa.list_(pa.int32())),
        ("step_scores", pa.list_(pa.float32())),  # null inside: a step the scorer could not judge
        ("step_notes", pa.list_(pa.string())),
        ("step_kind", pa.string()),
        ("scorer", pa.string()),
        ("scorer_version", pa.int32()),
        ("advantage_mean", pa.float32()),  # over loss tokens; null where not trained on
        ("advantage_min", pa.float32()),
        ("advantage_max", pa.float32()),
    ]
)

TOKEN_COLUMNS = ("token_ids", "sampled", "sampler_logprobs", "char_ends")
"""Columns with one number a token, which every trajectory has as an array."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What became of a group: trained at `step`, or dropped from it for `reason`, or evaluated in mode `reason`; or it
    was the greedy baseline of group `reason`."""

    name: FateName
    step: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settled:
    """A group whose fate is final. `advantages` is empty when the group was dropped or evaluated."""

    scored: ScoredGroup
    fate: Fate
    advantages: tuple[Float32Array | None, ...] = ()  # [G] of [L]


class Recorder:
    """Writer of the Parquet files below `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    async def write(self, step: int, groups: Sequence[Settled]) -> None:
        """Write the file of a training step. Raises FileExistsError when the step is recorded already."""
        await asyncio.to_thread(self._write, f"step-{step:06d}.parquet", groups)

    async def write_evaluation(self, step: int, groups: Sequence[Settled]) -> None:
        """Write the file of the evaluation after `step`, replacing one that a killed run may have left."""
        await asyncio.to_thread(self._write, f"eval-{step:06d}.parquet", groups, replace=True)

    def set_aside(self, after_step: int) -> list[Path]:
        """Move the files of later steps into a fresh `set-aside-<n>/`; return their new places."""
        late = [path for path in sorted(self.directory.glob("*.parquet*")) if _step_of(path) > after_step]
        if not late:
            return []
        number = 1 + sum(1 for path in self.directory.glob("set-aside-*"))
        aside = self.directory / f"set-aside-{number}"
        aside.mkdir()
        return [path.rename(aside / path.name) for path in late]

    def _write(self, name: str, groups: Sequence[Settled], *, replace: bool = False) -> None:
        path = self.directory / name
        if path.exists() and not replace:
            raise FileExistsError(
                f"{path} exists: a step is recorded once. Resume the run, which sets later files aside, or use a new "
                "directory"
            )
        rows = [row for settled in groups for row in (*_rows(settled), *_baseline_rows(settled))]
        partial = path.with_suffix(".parquet.tmp")
        pq.write_table(_table(rows), partial, compression="zstd")
        os.replace(partial, path)


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The rows as columns. Lists of one number a token go over as arrays: number by number they would be half of what
    the driver computes for a group."""
    columns = []
    for field in SCHEMA:
        values: list[Any] = [row.get(field.name) for row in rows]
        if field.name in TOKEN_COLUMNS and rows:
            offsets = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype(np.int32)
            flat = pa.array(np.concatenate(values), type=field.type.value_type)
            columns.append(pa.ListArray.from_arrays(pa.array(offsets), flat))
        else:
            columns.append(pa.array(values, type=field.type))
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _step_of(path: Path) -> int:
    match = re.fullmatch(r"(?:step|eval)-(\d+)\.parquet(?:\.tmp)?", path.name)
    return int(match[1]) if match else -1


def _baseline_rows(settled: Settled) -> Iterator[dict[str, Any]]:
    """The row of the greedy attempt that the group was compared with, if there was one."""
    if settled.scored.greedy is not None:
        fate = Fate(name="baseline", step=settled.fate.step, reason=settled.scored.group.job.group_id)
        yield from _rows(Settled(scored=settled.scored.greedy, fate=fate))


def _rows(settled: Settled) -> Iterator[dict[str, Any]]:
    """One row per trajectory of the group, in sibling order."""
    scored, fate = settled.scored, settled.fate
    job = scored.group.job
    shared = {
        "step": fate.step,
        "fate": fate.name,
        "reason": fate.reason,
        "group_id": job.group_id,
        "task_key": job.task.key,
        "source": job.task.source,
        "verifier": job.task.verifier,
        "prompt": [{"role": m.role, "content": m.content} for m in job.task.prompt],
        "reference": job.task.answer,
        "effort": job.budget.effort,
        "instruction": job.budget.instruction,
        "max_thinking_tokens": job.budget.max_thinking_tokens,
        "prefix": job.budget.prefix,
        "target_tokens": job.budget.target_tokens,
    }
    rewards = final_rewards(scored)
    for sibling in range(job.num_siblings):
        advantages = settled.advantages[sibling] if settled.advantages else None
        yield {
            **shared,
            **_trajectory_columns(scored, sibling),
            **_verdict_columns(scored, sibling, float(rewards[sibling])),
            **_step_columns(scored, sibling),
            **_advantage_columns(scored, sibling, advantages),
        }


def _trajectory_columns(scored: ScoredGroup, sibling: int) -> dict[str, Any]:
    trajectory = scored.group.trajectories[sibling]
    return {
        "sibling": sibling,
        "token_ids": trajectory.token_ids,
        "sampled": trajectory.sampled,
        "sampler_logprobs": trajectory.sampler_logprobs,
        "char_ends": trajectory.char_ends,
        "prompt_len": trajectory.prompt_len,
        "text": trajectory.text,
        "thinking": None if trajectory.thinking is None else list(trajectory.thinking),
        "answer": None if trajectory.answer is None else list(trajectory.answer),
        "num_thinking_tokens": trajectory.num_thinking_tokens,
        "finish": str(trajectory.finish),
        "error": trajectory.error,
        "version_start": trajectory.policy.start,
        "version_end": trajectory.policy.end,
        "version_switches": list(trajectory.policy.switches),
    }


def _verdict_columns(scored: ScoredGroup, sibling: int, reward: float) -> dict[str, Any]:
    outcome = scored.outcomes[sibling]
    return {
        "status": str(outcome.status),
        "score": outcome.score,
        "outcome_reason": outcome.reason,
        "parts": list(outcome.parts.items()),
        "shaped": [(name, float(values[sibling])) for name, values in scored.shaped.items()],
        "reward": None if np.isnan(reward) else reward,
    }


def _step_columns(scored: ScoredGroup, sibling: int) -> dict[str, Any]:
    steps = scored.steps[sibling]
    if steps is None:
        return {}
    return {
        "step_starts": [span.start for span in steps.spans],
        "step_ends": [span.end for span in steps.spans],
        "step_scores": [None if np.isnan(score) else float(score) for score in steps.scores],
        "step_notes": list(steps.notes),
        "step_kind": str(steps.kind),
        "scorer": steps.scorer,
        "scorer_version": steps.version,
    }


def _advantage_columns(scored: ScoredGroup, sibling: int, advantages: Float32Array | None) -> dict[str, Any]:
    sampled = scored.group.trajectories[sibling].sampled
    if advantages is None or not sampled.any():
        return {}
    values = advantages[sampled]
    return {
        "advantage_mean": float(values.mean()),
        "advantage_min": float(values.min()),
        "advantage_max": float(values.max()),
    }
