"""What the learner eats and what it returns. numpy only: the driver builds these and loads no torch.

One type per stage. A `TrainingSample` is one trajectory with its advantages, still unshifted: every array is aligned to
the token it describes. The one shift by a position happens in `rl/packing.py`, which turns samples into `MicroBatch`es.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rollout.schema import BoolArray, Float32Array, Int32Array, Metric, PolicySpan


class Stream(enum.IntEnum):
    """Where a sample comes from, which decides the estimator it is trained with.

    FRESH: drawn for this batch, trained with the recipe's loss. REPLAY: drawn for an earlier one. DEMONSTRATION and
    TEXT: not drawn by the policy at all; their loss tokens have no sampler, and their advantage is a coefficient.
    """

    FRESH = 0
    REPLAY = 1
    DEMONSTRATION = 2
    TEXT = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSample:
    """One trajectory ready to be trained on."""

    group_id: str
    sibling: int
    effort: str
    token_ids: Int32Array  # [L]
    loss_mask: BoolArray  # [L] True where the token was sampled by the policy, or is to be learned from a teacher
    advantages: Float32Array  # [L] zero where loss_mask is False
    sampler_logprobs: Float32Array  # [L]
    policy: PolicySpan
    reference_logprobs: Float32Array | None = None  # [L] of the frozen reference model, after temperature
    source: str = ""  # of the task: the domain
    stream: Stream = Stream.FRESH

    def __post_init__(self) -> None:
        shape = self.token_ids.shape
        arrays = (self.loss_mask, self.advantages, self.sampler_logprobs, self.reference_logprobs)
        if any(a is not None and a.shape != shape for a in arrays):
            shapes = {shape, *(a.shape for a in arrays if a is not None)}
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
    label: str = ""  # names a batch that is trained beside the step's own; its metrics are prefixed with it

    @property
    def num_loss_tokens(self) -> int:
        return sum(int(np.count_nonzero(s.loss_mask)) for s in self.samples)

    @property
    def fresh(self) -> tuple[TrainingSample, ...]:
        """The samples that were drawn for this batch, to which the staleness bound applies."""
        return tuple(s for s in self.samples if s.stream is Stream.FRESH)

    @property
    def max_staleness(self) -> int:
        """Largest number of optimizer steps between the weights a token was drawn from and the weights now."""
        return max((self.version - s.policy.start for s in self.fresh), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a training step reports. `version` counts optimizer steps since initialization.

    `drift` is the mean |log (anchor / sampler)| over the loss tokens of each replayed sample, by "group/sibling";
    `spans` is what each rank did when: name, start and end in seconds on its own clock.
    """

    version: int
    seconds: float
    metrics: tuple[Metric, ...] = field(default_factory=tuple)
    drift: Mapping[str, float] = field(default_factory=dict)
    spans: Mapping[str, Sequence[tuple[str, float, float]]] = field(default_factory=dict)
