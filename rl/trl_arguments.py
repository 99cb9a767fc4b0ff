"""What every run of a TRL trainer is told, whatever it optimizes."""

from __future__ import annotations

from typing import Any, Protocol


class Config(Protocol):
    """The settings that trainers share."""

    @property
    def num_steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def max_grad_norm(self) -> float: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def report_every(self) -> int: ...


def trainer_arguments(config: Config, scratch: str, seed: int) -> dict[str, Any]:
    """Arguments of TRL's configuration classes: rows in the order given, nothing cut or saved, every loss logged."""
    return {
        "output_dir": scratch,
        "max_steps": config.num_steps,
        "per_device_train_batch_size": config.batch_size,
        "max_grad_norm": config.max_grad_norm,
        "max_length": None,  # what is too long was refused or left out
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": config.dtype == "bfloat16",
        "use_cpu": config.device == "cpu",
        "logging_strategy": "steps",
        "logging_steps": config.report_every,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": config.device == "cuda",
        "seed": seed,
    }
