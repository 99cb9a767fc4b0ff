"""Checkpoints of a run: written aside, sealed, renamed when whole.

    step-000010/    learner/ (whatever the learner saves)   driver_state.json   arrays/*.npy   seal.json
`seal.json` lists every other file with its size, and with a digest up to DIGEST_LIMIT. It is written last, everything
is synced to the disk, then `step-000010.tmp` gets its name. So a kill, a crash or a full disk at any moment leaves the
previous checkpoint as it was; and one that was damaged later is recognized, skipped with a warning, and the one before
it is used.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rl.checkpoint_arrays import read_arrays, write_arrays
from rl.ports import State

STATE_FORMAT = 1
DIGEST_LIMIT = 64 * 2**20
"""Bytes up to which a file's content is part of the seal. Of larger ones (weights, optimizer) only the size is:
reading a big model twice would double the time of a checkpoint, and the faults seen in practice are missing and
shortened files."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the ones before it are untouched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint. `learner_path` is what `Learner.load` takes."""

    step: int
    path: Path
    state: State

    @property
    def learner_path(self) -> Path:
        return self.path / "learner"


class Checkpointer:
    """Writes and finds checkpoints below `directory`; keeps the newest `keep`, and of the others the `keep_best` with
    the highest score."""

    def __init__(self, directory: Path, *, keep: int, keep_best: int = 0) -> None:
        self.directory = directory
        self._keep, self._keep_best = keep, keep_best
        directory.mkdir(parents=True, exist_ok=True)

    async def save(
        self, step: int, *, save_learner: Callable[[str], Awaitable[None]], state: State, score: float | None = None
    ) -> Path:
        """Write the checkpoint of `step`. Raises CheckpointError, after removing what was written of it.

        `score` says how good it is, for retention; one without a score is kept by its age alone.
        """
        path = self._path(step)
        partial = path.with_suffix(".tmp")
        try:
            await asyncio.to_thread(_make_empty, partial)
            await save_learner(str(partial / "learner"))
            await asyncio.to_thread(self._seal, partial, path, {"format": STATE_FORMAT, **state}, score)
        # A boundary: a full disk surfaces as OSError here, but as RuntimeError in the learner's own writers.
        except Exception as error:
            await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
            raise CheckpointError(
                f"checkpoint of step {step} could not be written to {self.directory} ({self._room()}): "
                f"{type(error).__name__}: {error}. Earlier checkpoints are untouched; make room there or move them away"
            ) from error
        await asyncio.to_thread(self._prune, step)
        return path

    def latest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint, or None; `warn` is told of every damaged one that is passed over."""
        for step, path in reversed(self._saved()):
            damage = _damage(path)
            if damage is None:
                state = json.loads((path / "driver_state.json").read_text(encoding="utf-8"))
                return Checkpoint(step=step, path=path, state=read_arrays(state, path))
            warn(f"checkpoint {path} is damaged and passed over: {damage}")
        return None

    def _room(self) -> str:
        """How much there is, and how much the newest checkpoint took."""
        free = shutil.disk_usage(self.directory).free / 2**20
        saved = self._saved()
        if not saved:
            return f"{free:,.1f} MiB free"
        size = sum(file.stat().st_size for file in saved[-1][1].rglob("*") if file.is_file()) / 2**20
        return f"{free:,.1f} MiB free, the newest one takes {size:,.1f}"

    def _path(self, step: int) -> Path:
        return self.directory / f"step-{step:06d}"

    def _saved(self) -> list[tuple[int, Path]]:
        matches = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in self.directory.iterdir()]
        return sorted((int(match[1]), path) for match, path in matches if match)

    def _seal(self, partial: Path, path: Path, state: dict[str, Any], score: float | None) -> None:
        plain = write_arrays(state, partial)
        (partial / "driver_state.json").write_text(json.dumps(plain, indent=1, allow_nan=False), encoding="utf-8")
        files = {str(f.relative_to(partial)): _fingerprint(f) for f in sorted(partial.rglob("*")) if f.is_file()}
        seal = {"files": files, "score": score}
        (partial / "seal.json").write_text(json.dumps(seal, indent=1), encoding="utf-8")
        for entry in (*partial.rglob("*"), partial):
            _sync(entry)
        if path.exists():  # only a damaged one: a step with a whole checkpoint is never saved again
            shutil.rmtree(path)
        partial.rename(path)
        _sync(self.directory)

    def _prune(self, step: int) -> None:
        """Delete all but the newest up to `step` and the best. Later ones are damaged: the run would have resumed from
        them."""
        saved = [path for number, path in self._saved() if number <= step]
        scored = [(score, path) for path in saved[: -self._keep] if (score := _score(path)) is not None]
        best = {path for _, path in sorted(scored, reverse=True)[: self._keep_best]}
        for path in set(saved[: -self._keep]) - best:
            shutil.rmtree(path, ignore_errors=True)


def _make_empty(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)
    path.mkdir()


def _fingerprint(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if size > DIGEST_LIMIT:
        return {"size": size}
    with path.open("rb") as file:
        return {"size": size, "blake2b": hashlib.file_digest(file, _hash).hexdigest()}


def _hash() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _score(path: Path) -> float | None:
    """The score in a checkpoint's seal; None without one, or without a seal that can be read."""
    try:
        score = json.loads((path / "seal.json").read_text(encoding="utf-8")).get("score")
    except (OSError, ValueError):
        return None
    return None if score is None else float(score)


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint directory, or None when it is whole."""
    try:
        seal = json.loads((path / "seal.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"seal.json cannot be read ({error})"
    for name, expected in seal["files"].items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if _fingerprint(file) != expected:
            return f"{name} is not the file that was written"
    return None


def _sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
