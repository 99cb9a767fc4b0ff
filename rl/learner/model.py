"""A Hugging Face model directory becomes a model to train, and back."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import is_flash_attn_2_available

from rl.learner.config import LearnerConfig
from rl.learner.forward import check_head

WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".gguf"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def has_varlen_kernel(config: LearnerConfig) -> bool:
    """Is there an attention kernel that takes several samples in one row without a mask?"""
    return config.device == "cuda" and config.dtype == "bfloat16" and bool(is_flash_attn_2_available())


def load_model(model_dir: str, config: LearnerConfig) -> torch.nn.Module:
    """Load for training: every dropout off, no cache, weights complete.

    Raises:
        ValueError: the directory holds no weights, or not all of them.
    """
    path = Path(model_dir)
    if not path.is_dir() or not any(f.suffix in WEIGHT_SUFFIXES for f in path.iterdir()):
        raise ValueError(f"model directory {model_dir!r} holds no weights ({', '.join(sorted(WEIGHT_SUFFIXES))})")
    settings = AutoConfig.from_pretrained(model_dir)
    for name, value in settings.to_dict().items():
        # A ratio of probabilities under two dropout masks is noise: the policy is the network without dropout.
        if "drop" in name and isinstance(value, float):
            setattr(settings, name, 0.0)
    attention = "flash_attention_2" if config.layout != "buckets" and has_varlen_kernel(config) else "sdpa"
    model, report = AutoModelForCausalLM.from_pretrained(
        model_dir,
        config=settings,
        dtype=DTYPES[config.dtype],
        attn_implementation=attention,
        output_loading_info=True,
    )
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(f"model directory {model_dir!r} lacks {len(missing)} tensors, first {missing[:3]}")
    model.train()
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    check_head(model.to(config.device))
    return model


def save_model(model: torch.nn.Module, weights: Mapping[str, torch.Tensor], model_dir: str, out_dir: str) -> None:
    """Write `weights` as a Hugging Face directory, with the tokenizer and other small files of `model_dir`."""
    target = Path(out_dir)
    target.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(target, state_dict=dict(weights))
    for source in Path(model_dir).iterdir():
        is_weights = source.suffix in WEIGHT_SUFFIXES or source.name.endswith(".index.json")
        if source.is_file() and not is_weights and not (target / source.name).exists():
            shutil.copyfile(source, target / source.name)
