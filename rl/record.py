"""Every group of a run in Parquet, with its fate: trained at which step, or dropped and why.

One file per step, `step-000012.parquet`, written aside and renamed, one row per trajectory; evaluations go to
`eval-000012.parquet`. Together the step files are the ledger of consumed tasks. A resumed run first moves the files
beyond its checkpoint into `set-aside-<n>/`, so that no task is counted twice and nothing is deleted.
`rl/record_reader.py` reads them back.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rl.segments import Segments, joined, thinking_tokens
from rl.verdict import final_rewards
from rollout.schema import Float32Array, ScoredGroup, StepScores, Trajectory

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

_REPEATING = [field.name for field in SCHEMA if not pa.types.is_nested(field.type)]
"""Columns worth a dictionary; numbers a token have too many values for one, and looking for it is half of the work."""

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
        partial = path.with_suffix(".parquet.tmp")
        table = _table([entry for settled in groups for entry in _with_baseline(settled)])
        pq.write_table(table, partial, compression="zstd", use_dictionary=_REPEATING)
        os.replace(partial, path)


def _with_baseline(settled: Settled) -> Iterator[Settled]:
    """The group, and the greedy attempt that it was compared with, if there was one."""
    yield settled
    if settled.scored.greedy is not None:
        fate = Fate(name="baseline", step=settled.fate.step, reason=settled.scored.group.job.group_id)
        yield Settled(scored=settled.scored.greedy, fate=fate)


def _table(entries: Sequence[Settled]) -> pa.Table:
    """One row per trajectory, in sibling order. Column by column, and what a group's rows share is converted once: row
    by row this would be a sixth of what the driver computes for a group."""
    rows_of = np.repeat(np.arange(len(entries)), [len(e.scored.group.trajectories) for e in entries])
    columns: dict[str, pa.Array] = {
        name: pa.array(values, type=SCHEMA.field(name).type).take(pa.array(rows_of))
        for name, values in _group_columns(entries).items()
    }
    trajectories = [t for e in entries for t in e.scored.group.trajectories]
    plain = _trajectory_columns(trajectories) | _verdict_columns(entries)
    columns |= {name: pa.array(v, type=SCHEMA.field(name).type, from_pandas=True) for name, v in plain.items()}
    for name in TOKEN_COLUMNS:
        columns[name] = _lists(name, [getattr(t, name) for t in trajectories])
    columns |= _step_columns([steps for e in entries for steps in e.scored.steps])
    columns |= _advantage_columns(entries, trajectories)
    return pa.Table.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def _group_columns(entries: Sequence[Settled]) -> dict[str, list[Any]]:
    """What all rows of a group share."""
    fates, jobs = [e.fate for e in entries], [e.scored.group.job for e in entries]
    return {
        "step": [f.step for f in fates],
        "fate": [f.name for f in fates],
        "reason": [f.reason for f in fates],
        "group_id": [j.group_id for j in jobs],
        "task_key": [j.task.key for j in jobs],
        "source": [j.task.source for j in jobs],
        "verifier": [j.task.verifier for j in jobs],
        "prompt": [[{"role": m.role, "content": m.content} for m in j.task.prompt] for j in jobs],
        "reference": [j.task.answer for j in jobs],
        "effort": [j.budget.effort for j in jobs],
        "instruction": [j.budget.instruction for j in jobs],
        "max_thinking_tokens": [j.budget.max_thinking_tokens for j in jobs],
        "prefix": [j.budget.prefix for j in jobs],
        "target_tokens": [j.budget.target_tokens for j in jobs],
    }


def _trajectory_columns(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    return {
        "sibling": [t.sibling for t in trajectories],
        "prompt_len": [t.prompt_len for t in trajectories],
        "text": [t.text for t in trajectories],
        "thinking": [t.thinking for t in trajectories],
        "answer": [t.answer for t in trajectories],
        "num_thinking_tokens": thinking_tokens(trajectories),
        "finish": [t.finish for t in trajectories],
        "error": [t.error for t in trajectories],
        "version_start": [t.policy.start for t in trajectories],
        "version_end": [t.policy.end for t in trajectories],
        "version_switches": [t.policy.switches for t in trajectories],
    }


def _verdict_columns(entries: Sequence[Settled]) -> dict[str, Any]:
    outcomes = [o for e in entries for o in e.scored.outcomes]
    shaped: list[list[tuple[str, float]]] = []
    for entry in entries:
        terms = [(name, values.tolist()) for name, values in entry.scored.shaped.items()]
        shaped += [[(name, values[i]) for name, values in terms] for i in range(len(entry.scored.outcomes))]
    return {
        "status": [o.status for o in outcomes],
        "score": [o.score for o in outcomes],
        "outcome_reason": [o.reason for o in outcomes],
        "parts": [list(o.parts.items()) for o in outcomes],
        "shaped": shaped,
        "reward": joined([final_rewards(e.scored) for e in entries], np.float64),
    }


def _step_columns(steps: Sequence[StepScores | None]) -> dict[str, pa.Array]:
    """Lists with one entry a step; null where there are no step scores."""
    known = [s for s in steps if s is not None]
    lengths = [None if s is None else len(s.spans) for s in steps]
    scores = joined([s.scores for s in known], np.float32)
    named = {
        "step_kind": [None if s is None else s.kind for s in steps],
        "scorer": [None if s is None else s.scorer for s in steps],
        "scorer_version": [None if s is None else s.version for s in steps],
    }
    return {
        "step_starts": _nested("step_starts", lengths, [span.start for s in known for span in s.spans]),
        "step_ends": _nested("step_ends", lengths, [span.end for s in known for span in s.spans]),
        "step_scores": _nested("step_scores", lengths, scores),
        "step_notes": _nested(
            "step_notes", [None if s is None else len(s.notes) for s in steps], [n for s in known for n in s.notes]
        ),
        **{name: pa.array(values, type=SCHEMA.field(name).type) for name, values in named.items()},
    }


def _advantage_columns(entries: Sequence[Settled], trajectories: Sequence[Trajectory]) -> dict[str, pa.Array]:
    """Mean, least and largest advantage over the loss tokens of each row; null where it is not trained on."""
    rows = [a for e in entries for a in (e.advantages or (None,) * len(e.scored.group.trajectories))]
    trained = np.flatnonzero([a is not None for a in rows])
    values = joined([a for a in rows if a is not None], np.float32)
    sampled = joined([trajectories[i].sampled for i in trained.tolist()], np.bool_)
    tokens = Segments.of([a for a in rows if a is not None]).within(sampled)
    found = {}
    for name, ufunc in (("mean", np.add), ("min", np.minimum), ("max", np.maximum)):
        column = np.full(len(rows), np.nan)
        column[trained] = tokens.reduce(ufunc, values[sampled], np.nan)
        if name == "mean":
            column[trained] /= np.maximum(tokens.lengths, 1)
        found[f"advantage_{name}"] = pa.array(column.astype(np.float32), from_pandas=True)
    return found


def _lists(name: str, arrays: Sequence[np.ndarray[Any, Any]]) -> pa.Array:
    """One list a row out of one array a row."""
    kind = SCHEMA.field(name).type.value_type
    flat = pa.array(np.concatenate(arrays), type=kind) if arrays else pa.array([], type=kind)
    return pa.ListArray.from_arrays(pa.array(np.cumsum([0, *map(len, arrays)]), pa.int32()), flat)


def _nested(name: str, lengths: Sequence[int | None], values: Any) -> pa.Array:
    """One list a row of so many of the values; null where that is None."""
    bounds = itertools.accumulate((length or 0 for length in lengths), initial=0)
    offsets = [None if length is None else start for length, start in zip((*lengths, 0), bounds, strict=True)]
    flat = pa.array(values, type=SCHEMA.field(name).type.value_type, from_pandas=True)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def _step_of(path: Path) -> int:
    match = re.fullmatch(r"(?:step|eval)-(\d+)\.parquet(?:\.tmp)?", path.name)
    return int(match[1]) if match else -1
