"""One rank that trains a step scorer: DeepSpeed around a module. The only file of this room that knows DeepSpeed.

Losses handed to `backward` are shares that add up over micro-batches and ranks to the loss of the optimizer step:
DeepSpeed's mean over ranks is undone here. A non-finite loss or gradient is refused before the update.
"""

from __future__ import annotations

import json
import logging
import math
import socket
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch

HEAD = "score."
"""How the names of a head's parameters begin."""
_TAG = "engine"
_TIMEOUT = timedelta(minutes=30)
_STATE = "engine.json"


class NonFiniteTrainingError(RuntimeError):
    """A loss or a gradient is not a number; the update that needed it was not made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Which rank this is, and where the ranks meet ("tcp://host:port" of rank 0)."""

    rank: int = 0
    num_ranks: int = 1
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What an optimizer needs to be told."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    zero_stage: int = 0
    dtype: str = "float32"
    device: str = "cpu"


class TrainEngine:
    """Module, optimizer and the number of updates made. Every method is entered by all ranks."""

    def __init__(self, module: torch.nn.Module, settings: EngineSettings, place: Place) -> None:
        self.version = 0
        self.place = place
        self._settings = settings
        self._module = module
        _join(place, settings.device)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        groups, self._of_head = [], []
        for of_head in (False, True):
            own = [p for name, p in trained.items() if name.startswith(HEAD) == of_head]
            for is_matrix, decay in ((True, settings.weight_decay), (False, 0.0)):
                if params := [p for p in own if (p.ndim >= 2) == is_matrix]:
                    groups.append({"params": params, "weight_decay": decay})
                    self._of_head.append(of_head)
        optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas)
        size = sum(p.numel() for p in trained.values())
        self.engine, *_ = deepspeed.initialize(
            model=module, optimizer=optimizer, config=_deepspeed_settings(settings, size)
        )

    def backward(self, loss: torch.Tensor) -> None:
        """Add the gradient of a share of the loss. Raises NonFiniteTrainingError, before anything is added."""
        if not bool(torch.isfinite(loss)):
            raise NonFiniteTrainingError(f"update {self.version + 1} was not made: its loss is {float(loss.detach())}")
        self.engine.backward(loss * self.place.num_ranks, scale_wrt_gas=False)

    def step(self, lr: float | None = None, *, head_alone: bool = False) -> float:
        """Update with what was added since the last call; returns the gradient's norm before clipping.

        `head_alone` leaves all but the head as it is, weight decay included.
        """
        for group, of_head in zip(self.engine.optimizer.param_groups, self._of_head, strict=True):
            group["lr"] = 0.0 if head_alone and not of_head else self._settings.lr if lr is None else lr
        norm = math.nan
        if self._settings.zero_stage == 0:
            norm = float(torch.nn.utils.clip_grad_norm_(self._module.parameters(), self._settings.max_grad_norm))
            if not math.isfinite(norm):
                raise NonFiniteTrainingError(f"update {self.version + 1} was not made: its gradient's norm is {norm}")
        self.engine.step()
        if not self.engine.was_step_applied():
            raise NonFiniteTrainingError(f"update {self.version + 1} was not made: its gradient is not finite")
        self.version += 1
        return norm if self._settings.zero_stage == 0 else float(self.engine.get_global_grad_norm())

    def save(self, path: str, extra: dict[str, Any] | None = None) -> None:
        """Write weights, optimizer and `extra` (plain data) below `path`."""
        self.engine.save_checkpoint(path, tag=_TAG)
        if self.place.rank == 0:
            state = {"version": self.version, **self._shape(), "extra": extra or {}}
            (Path(path) / _STATE).write_text(json.dumps(state), encoding="utf-8")

    def load(self, path: str) -> dict[str, Any]:
        """Restore what `save` wrote and return its `extra`. Raises ValueError for something else."""
        file = Path(path) / _STATE
        if not file.is_file():
            raise ValueError(f"{path!r} is no checkpoint of a step scorer: it has no {_STATE}")
        state = json.loads(file.read_text(encoding="utf-8"))
        saved = {name: state[name] for name in self._shape()}
        if saved != self._shape():
            raise ValueError(
                f"the checkpoint was written with {saved}, now it is {self._shape()}; use the same settings"
            )
        self.engine.load_checkpoint(path, tag=_TAG)
        self.version = state["version"]
        extra: dict[str, Any] = state["extra"]
        return extra

    def _shape(self) -> dict[str, Any]:
        return {
            "num_ranks": self.place.num_ranks,
            "zero_stage": self._settings.zero_stage,
            "dtype": self._settings.dtype,
        }


def free_address() -> str:
    """An address on the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def _join(place: Place, device: str) -> None:
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # An optional kernel that DeepSpeed would compile on first use, which takes a minute and a C++ compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="nccl" if device == "cuda" else "gloo",
        auto_mpi_discovery=False,
        verbose=False,
        timeout=_TIMEOUT,
        init_method=place.address or free_address(),
        rank=place.rank,
        world_size=place.num_ranks,
    )


def _deepspeed_settings(settings: EngineSettings, num_parameters: int) -> dict[str, Any]:
    bucket = min(num_parameters, 200_000_000)
    told: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        # Stage 0 is clipped in `step`, where a non-finite norm can be refused.
        "gradient_clipping": settings.max_grad_norm if settings.zero_stage > 0 else 0.0,
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 2**31,
        "zero_optimization": {
            "stage": settings.zero_stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": bucket,
        },
    }
    if settings.dtype == "bfloat16":
        told["bf16"] = {"enabled": True, "check_grad_overflow": True}
        told["data_types"] = {"grad_accum_dtype": "fp32"}
    return told
