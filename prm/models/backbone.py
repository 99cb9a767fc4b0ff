"""A Hugging Face directory becomes the network under a step scorer, and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
SETTINGS_FILE = "ponder_prm.json"
_WEIGHTS = "model.safetensors"
_WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
FORMAT = 1


def load_causal(path: str, dtype: str) -> torch.nn.Module:
    """A causal language model without dropout. Raises ValueError when the directory holds no whole model."""
    return _load(AutoModelForCausalLM, path, dtype)


def load_backbone(path: str, dtype: str) -> torch.nn.Module:
    """The network under the output head, without dropout. Raises ValueError when it is not whole."""
    return _load(AutoModel, path, dtype)


def _load(factory: Any, path: str, dtype: str) -> torch.nn.Module:
    root = Path(path)
    if not (root / "config.json").is_file() or not any(f.suffix in _WEIGHT_SUFFIXES for f in root.iterdir()):
        raise ValueError(f"a model directory holds config.json and weights, {path!r} does not; check prm.path")
    settings = AutoConfig.from_pretrained(path)
    for name, value in settings.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(settings, name, 0.0)
    model, report = factory.from_pretrained(
        path, config=settings, dtype=DTYPES[dtype], attn_implementation="sdpa", output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"model directory {path!r} lacks {len(missing)} tensors, first {missing[:3]}")
    return model


def read_settings(path: str) -> dict[str, Any]:
    """What `save_settings` wrote beside the weights; empty for a model that is not ours."""
    file = Path(path) / SETTINGS_FILE
    if not file.is_file():
        return {}
    settings = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(settings, dict) or settings.get("format") != FORMAT:
        raise ValueError(f"{file} is of another format than {FORMAT}; save the model again with this version")
    return settings


def save_settings(path: str, settings: Mapping[str, Any]) -> None:
    """Write what the weights alone do not say: the kind of model, its labels, its calibration."""
    text = json.dumps({"format": FORMAT, **settings}, indent=1)
    (Path(path) / SETTINGS_FILE).write_text(text + "\n", encoding="utf-8")


def read_tensors(path: str, prefix: str) -> dict[str, torch.Tensor]:
    """All tensors of a directory whose name starts with `prefix`, by the rest of their name."""
    found: dict[str, torch.Tensor] = {}
    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no mapping
            found |= {name.removeprefix(prefix): tensors.get_tensor(name) for name in names}
    return found


def save_with_head(
    backbone: torch.nn.Module, head: torch.nn.Module, source: str, out_dir: str, *, architecture: str
) -> None:
    """Write one directory in the layout of Qwen's process reward models: tensors `model.*` and `score.*`."""
    target = Path(out_dir)
    target.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": t.detach().cpu().contiguous() for name, t in backbone.state_dict().items()}
    tensors |= {f"score.{name}": t.detach().cpu().contiguous() for name, t in head.state_dict().items()}
    save_file(tensors, str(target / _WEIGHTS), metadata={"format": "pt"})
    settings = backbone.config.to_dict() | {"architectures": [architecture]}
    settings.pop("auto_map", None)
    (target / "config.json").write_text(json.dumps(settings, indent=1, default=str) + "\n", encoding="utf-8")
    copy_small_files(source, out_dir)


def save_causal(model: torch.nn.Module, source: str, out_dir: str) -> None:
    """Write a causal language model with the tokenizer of `source`."""
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_dir)
    copy_small_files(source, out_dir)


def copy_small_files(source: str, out_dir: str) -> None:
    """The tokenizer and whatever else is no weight and not there yet."""
    for file in Path(source).iterdir():
        is_weights = file.suffix in _WEIGHT_SUFFIXES or file.name.endswith(".index.json")
        target = Path(out_dir) / file.name
        if file.is_file() and not is_weights and file.name != SETTINGS_FILE and not target.exists():
            shutil.copyfile(file, target)
