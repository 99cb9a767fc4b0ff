"""Trajectories on disk that can be trained on again: Parquet for what is read whole, an index for what is searched.

    <directory>/step-000012.parquet    the samples that step 12 put in: tokens, mask, advantages, log-probabilities
    <directory>/index.npy              memory-mapped, a fixed number of entries, used in a ring: the oldest is replaced

A record carries its advantages and the sampler's log-probabilities, so it replays without its group; the anchor is the
learner's at the time of replay and is computed there. Data files are never changed and never deleted, as the records
of groups are not; all that changes is the index, of which every checkpoint holds a copy. Restoring therefore means: the
copy becomes the index, and data files of later steps are set aside. Every data file names the tokenizer it was made
with.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from rl.batch import Stream, TrainingSample
from rl.ports import State
from rollout.schema import PolicySpan

ENTRY = np.dtype(
    [
        ("step", np.int32),  # that put the record in; also the name of its file
        ("row", np.int32),
        ("outcome", np.float32),
        ("solved", np.float32),  # share of right answers in its group
        ("tokens", np.int32),
        ("source", np.int32),  # index into `sources`
        ("priority", np.float32),
        ("drift", np.float32),  # mean |log (anchor / sampler)| when it was last trained on; NaN before
        ("uses", np.int32),
        ("held", np.bool_),
    ]
)
SCHEMA = pa.schema(
    [
        ("step", pa.int32()),
        ("group_id", pa.string()),
        ("sibling", pa.int32()),
        ("effort", pa.string()),
        ("source", pa.string()),
        ("outcome", pa.float32()),
        ("token_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.bool_())),
        ("advantages", pa.list_(pa.float32())),
        ("sampler_logprobs", pa.list_(pa.float32())),
        ("reference_logprobs", pa.list_(pa.float32())),  # null without a reference model
        ("version_start", pa.int32()),
        ("version_end", pa.int32()),
    ]
)
TOKENIZER = b"tokenizer"
ROWS_PER_GROUP = 64  # rows that are read together


class ReplayStoreError(RuntimeError):
    """The store cannot be used as it is. Nothing was changed in it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kept:
    """A sample on its way into the store. `solved` is the share of right answers in its group."""

    sample: TrainingSample
    outcome: float
    solved: float


class TrajectoryStore:
    """At most `capacity` records below `directory`."""

    def __init__(self, directory: Path, *, tokenizer: str, capacity: int) -> None:
        """`tokenizer` is a fingerprint: records of another one are refused."""
        self.directory = directory
        self._tokenizer = tokenizer
        self._capacity = capacity
        self.sources: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        self.index = self._map(np.zeros(capacity, dtype=ENTRY))
        self._next = 0

    def __len__(self) -> int:
        return int(self.index["held"].sum())

    # -------------------------------------------------------------------------------------------- writing

    def add(self, step: int, kept: Sequence[Kept]) -> None:
        """Put the records of one step in, in order. Raises FileExistsError for a step that is there already."""
        path = self._path(step)
        if path.exists():
            raise FileExistsError(f"{path} exists: a step puts its samples in once. Resume the run, or use a new one")
        rows = [_row(step, k) for k in kept]
        schema = SCHEMA.with_metadata({TOKENIZER: self._tokenizer.encode()})
        partial = path.with_suffix(".parquet.tmp")
        pq.write_table(
            pa.Table.from_pylist(rows, schema=schema), partial, compression="zstd", row_group_size=ROWS_PER_GROUP
        )
        os.replace(partial, path)
        for row, k in enumerate(kept[-self._capacity :], start=max(0, len(kept) - self._capacity)):
            self.index[self._next % self._capacity] = (
                step,
                row,
                k.outcome,
                k.solved,
                int(k.sample.loss_mask.sum()),
                self._source(k.sample.source),
                0.0,
                np.nan,
                0,
                True,
            )
            self._next += 1

    def release(self, positions: npt.NDArray[np.int64]) -> None:
        """Forget these records; their data stays on disk."""
        self.index["held"][positions] = False

    # -------------------------------------------------------------------------------------------- reading

    def held(self) -> npt.NDArray[np.int64]:
        """Positions of all records, oldest first."""
        positions = np.flatnonzero(self.index["held"])
        order = np.lexsort((self.index["row"][positions], self.index["step"][positions]))
        ordered: npt.NDArray[np.int64] = positions[order]
        return ordered

    def read(self, positions: npt.NDArray[np.int64]) -> list[TrainingSample]:
        """The samples at these positions, in this order, marked as replayed. Raises ReplayStoreError."""
        found: dict[int, TrainingSample] = {}
        for step in np.unique(self.index["step"][positions]).tolist():
            mine = positions[self.index["step"][positions] == step]
            rows = self._rows(step, self.index["row"][mine].tolist())
            found |= {int(p): _sample(row) for p, row in zip(mine, rows, strict=True)}
        return [found[int(p)] for p in positions]

    def _rows(self, step: int, rows: Sequence[int]) -> list[dict[str, Any]]:
        file = self._open(step)
        groups = sorted({row // ROWS_PER_GROUP for row in rows})
        try:
            table = file.read_row_groups(groups).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise self._broken(self._path(step), str(error)) from error
        place = {group: i * ROWS_PER_GROUP for i, group in enumerate(groups)}
        return [table[place[row // ROWS_PER_GROUP] + row % ROWS_PER_GROUP] for row in rows]

    def _open(self, step: int) -> Any:
        path = self._path(step)
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise self._broken(path, str(error)) from error
        found = (file.schema_arrow.metadata or {}).get(TOKENIZER, b"").decode()
        if found != self._tokenizer:
            raise ReplayStoreError(
                f"{path} was made with tokenizer {found or 'unknown'!r}, and this run has {self._tokenizer!r}: its "
                "tokens mean something else here. Resume with the model of the interrupted run, or start a new run; "
                "nothing was changed"
            )
        return file

    # -------------------------------------------------------------------------------------------- checkpoints

    def state_dict(self) -> State:
        return {"sources": self.sources, "next": self._next}

    def save(self, folder: Path) -> None:
        """Write the index into a checkpoint."""
        np.save(folder / "index.npy", np.asarray(self.index), allow_pickle=False)

    def restore(self, folder: Path | None, state: State) -> None:
        """Go back to what `save` and `state_dict` wrote, or to the empty store. Later data files are set aside.

        With another capacity the newest records that it can hold are kept.

        Raises ReplayStoreError, before anything is changed, when a file that is still needed is missing, cut short or
        of another tokenizer.
        """
        saved = np.zeros(0, dtype=ENTRY) if folder is None else self._saved_index(folder / "index.npy")
        kept = saved[saved["held"]]
        kept = kept[np.lexsort((kept["row"], kept["step"]))]
        for step in np.unique(kept["step"]).tolist():
            needed = int(kept["row"][kept["step"] == step].max()) + 1
            rows = self._open(step).metadata.num_rows
            if rows < needed:
                raise self._broken(self._path(step), f"{rows} rows, and row {needed} is needed")
        self._set_aside(after_step=int(saved["step"].max(initial=0)))
        if saved.size == self._capacity:
            entries, self._next = saved, int(state["next"])
        else:
            entries = np.zeros(self._capacity, dtype=ENTRY)
            newest = kept[-self._capacity :]
            entries[: newest.size], self._next = newest, int(newest.size)
        self.index = self._map(entries)
        self.sources = list(state.get("sources", ()))

    def _saved_index(self, path: Path) -> npt.NDArray[Any]:
        try:
            saved: npt.NDArray[Any] = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise self._broken(path, str(error)) from error
        if saved.dtype != ENTRY or saved.ndim != 1:
            raise self._broken(path, f"entries of {saved.dtype}")
        return saved

    def _set_aside(self, *, after_step: int) -> None:
        late = [path for path in sorted(self.directory.glob("step-*.parquet*")) if _step_of(path) > after_step]
        if late:
            aside = self.directory / f"set-aside-{1 + sum(1 for _ in self.directory.glob('set-aside-*'))}"
            aside.mkdir()
            for path in late:
                path.rename(aside / path.name)

    # -------------------------------------------------------------------------------------------- places

    def _map(self, entries: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The index file, holding `entries`; replaced as a whole, so that no reader sees a half of it."""
        path = self.directory / "index.npy"
        partial = path.with_suffix(".npy.tmp")
        with partial.open("wb") as file:
            np.save(file, entries, allow_pickle=False)
        os.replace(partial, path)
        mapped: npt.NDArray[Any] = np.load(path, mmap_mode="r+", allow_pickle=False)
        return mapped

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:06d}.parquet"

    def _source(self, name: str) -> int:
        if name not in self.sources:
            self.sources.append(name)
        return self.sources.index(name)

    def _broken(self, path: Path, what: str) -> ReplayStoreError:
        return ReplayStoreError(
            f"the replay store needs {path}, which is missing or cut short ({what}): put the file back, or resume "
            "without the [mix.replay] section; nothing was changed"
        )


def _row(step: int, kept: Kept) -> dict[str, Any]:
    sample = kept.sample
    return {
        "step": step,
        "group_id": sample.group_id,
        "sibling": sample.sibling,
        "effort": sample.effort,
        "source": sample.source,
        "outcome": kept.outcome,
        "token_ids": sample.token_ids,
        "loss_mask": sample.loss_mask,
        "advantages": sample.advantages,
        "sampler_logprobs": sample.sampler_logprobs,
        "reference_logprobs": sample.reference_logprobs,
        "version_start": sample.policy.start,
        "version_end": sample.policy.end,
    }


def _sample(row: dict[str, Any]) -> TrainingSample:
    reference = row["reference_logprobs"]
    return TrainingSample(
        group_id=row["group_id"],
        sibling=row["sibling"],
        effort=row["effort"],
        source=row["source"],
        token_ids=np.asarray(row["token_ids"], dtype=np.int32),
        loss_mask=np.asarray(row["loss_mask"], dtype=np.bool_),
        advantages=np.asarray(row["advantages"], dtype=np.float32),
        sampler_logprobs=np.asarray(row["sampler_logprobs"], dtype=np.float32),
        policy=PolicySpan(start=row["version_start"], end=row["version_end"]),
        reference_logprobs=None if reference is None else np.asarray(reference, dtype=np.float32),
        stream=Stream.REPLAY,
    )


def _step_of(path: Path) -> int:
    match = re.fullmatch(r"step-(\d+)\.parquet(?:\.tmp)?", path.name)
    return int(match[1]) if match else -1
