"""The size of a model: from its settings, or from a Hugging Face directory without loading a weight."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

from launch.config import ModelConfig, PathModel
from launch.model_dir import check_model
from rl.learner.config import ScratchModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """What memory and time depend on. Widths are numbers of values, not of bytes."""

    num_parameters: int
    num_layers: int
    hidden: int
    intermediate: int
    num_heads: int
    kv_width: int  # key heads times head size; a token's cache holds twice that a layer
    vocab: int


def shape_of(model: ModelConfig) -> ModelShape:
    """Raises ModelDirectoryError for a directory without a model."""
    return _of_directory(Path(model.path)) if isinstance(model, PathModel) else _of_settings(model)


def _of_settings(model: ScratchModel) -> ModelShape:
    width, inner = model.hidden_size, model.intermediate_size
    layer = 4 * width * width + 3 * width * inner + 2 * width
    embeddings = (1 if model.tied else 2) * model.vocab_size * width
    return ModelShape(
        num_parameters=embeddings + model.num_layers * layer + width,
        num_layers=model.num_layers,
        hidden=width,
        intermediate=inner,
        num_heads=model.num_heads,
        kv_width=width,
        vocab=model.vocab_size,
    )


def _of_directory(path: Path) -> ModelShape:
    check_model(path, setting="model.path")
    config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
    head = int(config.get("head_dim") or width // heads)
    shape = ModelShape(
        num_parameters=0,
        num_layers=int(config["num_hidden_layers"]),
        hidden=width,
        intermediate=int(config.get("intermediate_size") or 4 * width),
        num_heads=heads,
        kv_width=head * int(config.get("num_key_value_heads") or heads),
        vocab=int(config["vocab_size"]),
    )
    return replace(shape, num_parameters=_stored_parameters(path) or _counted(shape))


def _stored_parameters(path: Path) -> int:
    """Parameters in the weight files, read from their headers; 0 where there is no safetensors file."""
    return sum(_in_header(file) for file in sorted(path.glob("*.safetensors")))


def _in_header(file: Path) -> int:
    with file.open("rb") as handle:
        (size,) = struct.unpack("<Q", handle.read(8))
        if size > 100_000_000:  # the format's own limit
            raise ValueError(f"{file} is no safetensors file: its header claims {size} bytes; fetch the model again")
        header = json.loads(handle.read(size))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _counted(shape: ModelShape) -> int:
    """A Llama of this shape with an output head of its own."""
    layer = 2 * shape.hidden * (shape.hidden + shape.kv_width) + 3 * shape.hidden * shape.intermediate
    return 2 * shape.vocab * shape.hidden + shape.num_layers * layer
