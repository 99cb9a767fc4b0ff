"""What DeepSpeed is told."""

from __future__ import annotations

from typing import Any

from rl.learner.config import LearnerConfig

MAX_BUCKET_ELEMENTS = 200_000_000  # reduction buckets are allocated whole, so no larger than the model needs


def deepspeed_config(config: LearnerConfig, num_parameters: int) -> dict[str, Any]:
    """DeepSpeed's settings. Batch sizes are 1: it never sees a batch, and the learner owns the accumulation."""
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        # Stage 0 clips in `GuardedAdamW`, where a non-finite norm can be refused.
        "gradient_clipping": config.max_grad_norm if config.zero_stage > 0 else 0.0,
        "zero_allow_untested_optimizer": True,  # GuardedAdamW is AdamW with a check in front
        "steps_per_print": 2**31,
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": False,  # with unmanaged accumulation DeepSpeed overlaps at stage 2 only
            "reduce_bucket_size": min(num_parameters, MAX_BUCKET_ELEMENTS),
            "allgather_bucket_size": min(num_parameters, MAX_BUCKET_ELEMENTS),
        },
    }
    if config.dtype == "bfloat16":
        settings["bf16"] = {"enabled": True, "check_grad_overflow": True}
        settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings
