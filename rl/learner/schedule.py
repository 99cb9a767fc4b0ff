"""The learning rate as a pure function of the optimizer step: nothing to save, nothing to restore."""

from __future__ import annotations

import math

from rl.learner.config import LearnerConfig


def learning_rate(config: LearnerConfig, step: int, total_steps: int) -> float:
    """Learning rate of optimizer step `step` (0-based) out of `total_steps`.

    lr * (step + 1) / warmup_steps while warming up; then, with progress p from 0 to 1 at the last step and floor f,
    constant: lr;  linear: lr * (1 - (1 - f) p);  cosine: lr * (f + (1 - f) (1 + cos(pi p)) / 2).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    last = total_steps - 1
    progress = min(1.0, (step - config.warmup_steps) / max(1, last - config.warmup_steps))
    floor = config.final_lr_fraction
    match config.schedule:
        case "constant":
            return config.lr
        case "linear":
            return config.lr * (1.0 - (1.0 - floor) * progress)
        case "cosine":
            return config.lr * (floor + (1.0 - floor) * (1.0 + math.cos(math.pi * progress)) / 2.0)
