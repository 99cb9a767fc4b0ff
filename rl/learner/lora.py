"""Low-rank adapters through peft: the learner trains A and B of W + (alpha / rank) B A, and nothing else.

What leaves the learner is the merged matrix, computed tensor by tensor when it is published or saved: engines, records
and model directories know nothing of adapters, and no second copy of the model is held.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

from rl.learner.config import LoraConfig

ADAPTER = "default"
BASE = ".base_layer."
PUBLISHED_PREFIX = "base_model.model."  # how peft names the tensors of an adapter directory


def add_adapters(model: torch.nn.Module, config: LoraConfig, *, seed: int) -> torch.nn.Module:
    """Freeze the model and put adapters beside its matrices, in place. B starts at zero: nothing changes at first.

    Raises:
        ValueError: no module of that name, or the output head or the embedding is among them.
    """
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=0.0,
        target_modules=config.target_modules if isinstance(config.target_modules, str) else list(config.target_modules),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # every rank the same A
        peft.inject_adapter_in_model(settings, model, adapter_name=ADAPTER)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(layer, BaseTunerLayer):
            raise ValueError(
                f"learner.lora.target_modules = {config.target_modules!r} names the embedding or the output head, "
                "which the learner keeps whole; name attention and feed-forward matrices, or 'all-linear'"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_adapter(name))
    return model


def is_adapter(name: str) -> bool:
    return ".lora_" in name


def published_name(name: str) -> str:
    """Name of a parameter in the model without adapters."""
    return name.replace(BASE, ".")


def adapted_layer(model: torch.nn.Module, name: str) -> BaseTunerLayer | None:
    """The adapter beside this parameter, if there is one."""
    if not name.endswith(f"{BASE}weight"):
        return None
    layer: BaseTunerLayer = model.get_submodule(name.removesuffix(f"{BASE}weight"))
    return layer


def merge(weight: torch.Tensor, layer: BaseTunerLayer) -> torch.Tensor:
    """W + (alpha / rank) B A, added in float32 and rounded once to the dtype of W."""
    return (weight.float() + layer.get_delta_weight(ADAPTER).float()).to(weight.dtype)


def save_adapter(model: torch.nn.Module, weights: dict[str, torch.Tensor], out_dir: str) -> None:
    """Write an adapter directory that `peft.PeftModel.from_pretrained` loads. `weights` by name in the model."""
    path = Path(out_dir)
    path.mkdir(parents=True, exist_ok=True)
    settings: Any = model.peft_config[ADAPTER]
    settings.save_pretrained(path)
    named = {PUBLISHED_PREFIX + name.replace(f".{ADAPTER}.", "."): tensor for name, tensor in weights.items()}
    save_file(named, path / "adapter_model.safetensors")
