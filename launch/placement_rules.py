"""Combinations of placement settings that cannot work: rule, value, remedy."""

from __future__ import annotations

from rl.config import BufferConfig
from rl.learner.config import LearnerConfig
from rollout.config import RolloutConfig


def check(placement: str, rollout: RolloutConfig, learner: LearnerConfig, buffer: BufferConfig) -> None:
    """Raises ValueError for the first combination that cannot work."""
    width = rollout.tensor_parallel
    if width > 1 and rollout.device == "cpu":
        raise ValueError(
            f"rollout.tensor_parallel = {width} splits an engine over GPUs, and rollout.device = 'cpu' has none; set "
            "rollout.device = 'cuda', or tensor_parallel = 1 and more rollout.num_engines or threads_per_engine"
        )
    if placement == "disaggregated":
        return
    name = f"cluster.placement = {placement!r}"
    if "cpu" in (rollout.device, learner.device):
        raise ValueError(
            f"{name} puts engines and learner ranks on the same GPUs, and rollout.device = {rollout.device!r}, "
            f"learner.device = {learner.device!r}; set both to 'cuda', or placement = 'disaggregated', which on CPUs "
            "shares the cores anyway"
        )
    if rollout.num_engines * width != learner.num_ranks:
        raise ValueError(
            f"{name} gives every GPU one learner rank and its part of an engine, so rollout.num_engines x "
            f"rollout.tensor_parallel = {rollout.num_engines} x {width} must be learner.num_ranks = "
            f"{learner.num_ranks}; change one of the three"
        )
    if placement == "colocated" and buffer.max_lag > 0:
        raise ValueError(
            f"{name} lets engines sleep while the learner works, and buffer.max_lag = {buffer.max_lag} asks them to "
            "generate meanwhile; set max_lag = 0, or placement = 'split' or 'disaggregated'"
        )
