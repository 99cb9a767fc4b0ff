"""The run directory: one place that names every file in it.

- config.json: the resolved settings, what resume reads
- manifest.json: versions, commit and machine of every session
- phases.json: finished phases and their seconds
- base_model/, start_model/, model/: the model as it was given or built, after the cold start, after the last step
- metrics.jsonl, tensorboard/: what training measured
- quarantine.json: tasks whose reference no verifier can judge; probes.json: token sequences that prove weight sync
- geometry_prompts.json: prompts whose hidden states are looked at, as token sequences
- ledger.json: tokens, verdicts and seconds spent
- reward_failures/: samples that verifiers failed on, one file a verifier
- groups/: every group with its fate, in Parquet
- replay/: trajectories that may be trained on again; demonstrations.parquet, texts.parquet:
  worked solutions and text as tokens
- checkpoints/: written aside and renamed when whole
- usage.json: seconds and peak memory over all sessions
- summary.json, report.html: what came out
- traces/: timelines of single steps, for chrome://tracing or Perfetto
- control.jsonl: what people asked of the run while it went on; control.json: how to ask, while it does
- logs/, errors.log: of engines, learner, services and Ray; full tracebacks
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launch import recipe
from launch.config import RunConfig
from launch.manifest import write_json
from launch.model_dir import find_weights


class RunDirectoryError(ValueError):
    """A run directory that cannot be made, read, or used by two runs at once."""


class RunDirectory:
    """Paths of one run; the objects that write them are handed the paths they need."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.config = root / "config.json"
        self.manifest = root / "manifest.json"
        self.phases = root / "phases.json"
        self.ledger = root / "ledger.json"
        self.quarantine = root / "quarantine.json"
        self.contamination = root / "contamination.json"
        self.probes = root / "probes.json"
        self.geometry_prompts = root / "geometry_prompts.json"
        self.cold_start = root / "cold_start.json"
        self.evaluation = root / "evaluation.json"
        self.usage = root / "usage.json"
        self.summary = root / "summary.json"
        self.report = root / "report.html"
        self.groups = root / "groups"
        self.replay = root / "replay"
        self.demonstrations = root / "demonstrations.parquet"
        self.texts = root / "texts.parquet"
        self.reward_failures = root / "reward_failures"
        self.checkpoints = root / "checkpoints"
        self.logs = root / "logs"
        self.base_model = root / "base_model"
        self.start_model = root / "start_model"
        self.model = root / "model"
        self.errors = root / "errors.log"
        self.traces = root / "traces"
        self.control = root / "control.json"
        self.control_log = root / "control.jsonl"

    @classmethod
    def create(cls, config: RunConfig) -> RunDirectory:
        """A new directory `run.dir/run.name`, numbered from 2 where that name is taken."""
        base = Path(config.run.dir).expanduser()
        for number in range(1, 10_000):
            root = base / (config.run.name if number == 1 else f"{config.run.name}-{number}")
            try:
                root.mkdir(parents=True)
            except FileExistsError:
                continue
            except OSError as error:
                raise RunDirectoryError(
                    f"cannot create {root}: {error.strerror}; set run.dir to a writable place"
                ) from error
            directory = cls(root)
            directory.save_config(config)
            return directory
        raise RunDirectoryError(f"{base} holds 10,000 runs called {config.run.name!r}: set run.name")

    @classmethod
    def open(cls, root: Path) -> RunDirectory:
        """An existing run."""
        directory = cls(root)
        if not directory.config.is_file():
            raise RunDirectoryError(f"{root} is not a run directory: it has no config.json")
        return directory

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Exclusive use: two processes writing one run would destroy both. The lock ends with the process."""
        with (self.root / ".lock").open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunDirectoryError(f"another process is working in {self.root}; wait for it or stop it") from error
            yield

    def has_model(self, model: Path) -> bool:
        """Whether the model directory is whole: they are written aside and renamed, so one weight file says so."""
        return find_weights(model) is not None

    def save_config(self, config: RunConfig) -> None:
        write_json(self.config, recipe.dump(config))

    def newest_model(self) -> Path:
        """The trained model; of an unfinished run the newest checkpoint's, else the one training starts from."""
        checkpoints = sorted(self.checkpoints.glob("step-*/learner/model"), reverse=True)
        for model in (self.model, *checkpoints, self.start_model, self.base_model):
            if find_weights(model) is not None:
                return model
        raise RunDirectoryError(f"{self.root} holds no model yet; resume the run, or name another directory")

    def record_error(self, error: BaseException) -> None:
        """Append the full traceback to errors.log."""
        stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        text = "".join(traceback.format_exception(error))
        with self.errors.open("a", encoding="utf-8") as handle:
            handle.write(f"---- {stamp} process {os.getpid()}\n{text}")


class PhaseLog:
    """Which phases are finished and how long each took, over all sessions of the run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else {}

    def is_done(self, name: str) -> bool:
        return bool(self._entries.get(name, {}).get("is_done", False))

    def seconds(self, name: str) -> float:
        """Seconds spent on the phase so far, interrupted sessions included; 0 for a phase that never ran."""
        return float(self._entries.get(name, {}).get("seconds", 0.0))

    def names(self) -> list[str]:
        """Phases in the order in which they were first entered."""
        return list(self._entries)

    def add(self, name: str, seconds: float, *, is_done: bool) -> None:
        self._entries[name] = {"seconds": round(self.seconds(name) + seconds, 3), "is_done": is_done}
        write_json(self._path, self._entries)
