"""Samples that verifiers failed on, kept in the run directory: one file of rows for each verifier.

A row is what `ponder rewards check PLUGIN --data FILE` reads, so that a failure of the night is a test in the morning.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewards.outcome import Sample
from rewards.quota import Failure

_LOG = logging.getLogger("ponder.rewards")


class FailureFiles:
    """Appends failures to `directory/<verifier>.jsonl`, and says so in the log."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path_of(self, verifier: str) -> Path:
        return self._directory / f"{label_of(verifier)}.jsonl"

    def write(self, failures: Sequence[Failure]) -> None:
        if failures:
            self._directory.mkdir(parents=True, exist_ok=True)
        for failure in failures:
            path = self.path_of(failure.verifier)
            with path.open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(row_of(failure), default=str) + "\n")
            _LOG.warning("%s (%s); the sample is in %s", failure.reason, failure.status, path)


def row_of(failure: Failure) -> dict[str, Any]:
    return {**sample_row(failure.sample), "status": str(failure.status), "reason": failure.reason}


def sample_row(sample: Sample) -> dict[str, Any]:
    """The sample as a row for `ponder rewards check`."""
    return {
        "prompt": [{"role": message.role, "content": message.content} for message in sample.prompt],
        "reference": sample.reference,
        "thinking": sample.thinking,
        "answer": sample.answer if sample.closed else None,
        "completion": sample.completion,
        "finish": str(sample.finish),
        "effort": sample.effort,
        "meta": _plain(sample.meta),
    }


def label_of(verifier: str) -> str:
    """A verifier's name for files and metrics: `stem.function` for one that is named by a path."""
    where, _, function = verifier.rpartition(":")
    if where:
        stem = Path(where).stem if where.endswith(".py") else where
        verifier = f"{stem}.{function}"
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", verifier) or "_"


def _plain(meta: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in meta.items()}
