"""What the learner eats and what it returns. numpy only: the driver builds these and loads no torch.

One type per stage. A `TrainingSample` is one trajectory with its advantages, still unshifted: every array is aligned to
the token it describes. The one shift by a position happens in `rl/packing.py`, which turns samples into `MicroBatch`es.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rollout.schema import BoolArray, Float32Array, Int32Array, Metric, PolicySpan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSample:
    """One trajectory ready to be trained on."""

    group_id: str
    sibling: int
    effort: str
    token_ids: Int32Array  # [L]
    loss_mask: BoolArray  # [L] True where the token was sampled by the policy
    advantages: Float32Array  # [L] zero where loss_mask is False
    sampler_logprobs: Float32Array  # [L]
    policy: PolicySpan
    reference_logprobs: Float32Array | None = None  # [L] of the frozen reference model, after temperature

    def __post_init__(self) -> None:
        arrays = (self.token_ids, self.loss_mask, self.advantages, self.sampler_logprobs, self.reference_logprobs)
        shapes = {a.shape for a in arrays if a is not None}
        if len(shapes) != 1:
            raise ValueError(f"sample {self.group_id}/{self.sibling}: arrays of different shapes {shapes}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingBatch:
    """All samples of one training step. The learner splits them over ranks, optimizer steps and micro-batches.

    `version` is the learner's version before the step; `num_groups` counts the buffer slots the batch holds, including
    groups that were dropped from it, so that releasing them frees exactly what was admitted.
    """

    step: int
    version: int
    samples: tuple[TrainingSample, ...]
    num_groups: int

    @property
    def num_loss_tokens(self) -> int:
        return sum(int(s.loss_mask.sum()) for s in self.samples)

    @property
    def max_staleness(self) -> int:
        """Largest number of optimizer steps between the weights a token was drawn from and the weights now."""
        return max((self.version - s.policy.start for s in self.samples), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a training step reports. `version` counts optimizer steps since initialization."""

    version: int
    seconds: float
    metrics: tuple[Metric, ...] = field(default_factory=tuple)
