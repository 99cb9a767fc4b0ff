"""A Hugging Face model directory: what must be in it before anything is started on it."""

from __future__ import annotations

import shutil
from pathlib import Path


class ModelDirectoryError(ValueError):
    """A directory that no engine and no learner could load."""


def find_weights(model: Path) -> Path | None:
    """The first weight file of a Hugging Face model directory, or None."""
    if not model.is_dir():
        return None
    patterns = ("*.safetensors", "pytorch_model*.bin")
    return next((path for pattern in patterns for path in sorted(model.glob(pattern)) if path.stat().st_size), None)


def check_model(model: Path, *, setting: str) -> None:
    """Raise ModelDirectoryError unless `model` is a directory with a configuration, a tokenizer and weights."""
    if not model.is_dir():
        raise ModelDirectoryError(
            f"{setting} is {str(model)!r}, which is not a directory; `ponder fetch smollm2` makes one, and any Hugging "
            f"Face model directory will do"
        )
    if not (model / "config.json").is_file():
        raise ModelDirectoryError(
            f"{setting} is {str(model)!r}, which has no config.json: not a Hugging Face model directory"
        )
    if find_weights(model) is None:
        raise ModelDirectoryError(
            f"{setting} is {str(model)!r}, which has no weights (*.safetensors or pytorch_model*.bin): an interrupted "
            f"download or a bare configuration; fetch the model again"
        )
    if not any((model / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelDirectoryError(
            f"{setting} is {str(model)!r}, which has no tokenizer (tokenizer.json): save the tokenizer beside the "
            f"weights"
        )


def replace_directory(aside: Path, target: Path) -> None:
    """Put the whole directory `aside` in the place of `target`."""
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
