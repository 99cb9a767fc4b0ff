"""Settings of replay. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from rl.losses.estimator_config import Estimator, Mask
from rl.losses.term_config import Settings

Probability = Annotated[float, Field(ge=0, le=1)]


class ReplayMask(Mask):
    """PPO's clip, IcePop's band, and the drift beyond which a trajectory is not used again."""

    clip_low: Annotated[float, Field(gt=0, lt=1)] | None = 0.2
    """A token with a negative advantage counts while learner / anchor >= 1 - clip_low; none: always."""
    clip_high: PositiveFloat | None = 0.28
    """A token with a positive advantage counts while learner / anchor <= 1 + clip_high; none: always."""
    band_low: NonNegativeFloat | None = 0.5
    """Smallest anchor / sampler of a token that counts; none sets no bound."""
    band_high: PositiveFloat | None = 5.0
    """Largest anchor / sampler of a token that counts; none sets no bound."""
    drift: PositiveFloat | None = 0.2
    """Largest mean |log (anchor / sampler)| of a sequence that counts, and may be replayed again."""


class ReplayEstimator(Estimator):
    """Importance sampling from the engines of then, with bad answers weighed at most as fresh ones."""

    mask: ReplayMask = ReplayMask()
    """Which tokens are left out."""
    denominator: Literal["policy", "anchor", "sampler", "sequence", "one"] = "sampler"
    """What divides the policy's probability; see `rl/losses/unified.py`."""
    max_negative_weight: PositiveFloat | None = 1.0
    """Largest weight of a token with a negative advantage; none takes max_weight."""


class CompensationMask(Mask):
    """Only the drift is bounded."""

    drift: PositiveFloat | None = 0.5
    """Largest mean |log (anchor / sampler)| of a sequence that counts; none sets no bound."""


class CompensationEstimator(Estimator):
    """Importance sampling from the engines of then, with weights of at most 2."""

    mask: CompensationMask = CompensationMask()
    """Which tokens are left out."""
    denominator: Literal["policy", "anchor", "sampler", "sequence", "one"] = "sampler"
    """What divides the policy's probability; see `rl/losses/unified.py`."""
    max_weight: PositiveFloat | None = 2.0
    """Largest weight of a token; none leaves it unbounded."""


class ShareReplay(Settings):
    """A share of every batch is trajectories of earlier batches, with the advantages they had."""

    type: Literal["share"] = "share"
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """Most replayed samples in a batch, as a share of all its samples."""
    max_age: PositiveInt = 8
    """Steps after which a trajectory is no longer replayed."""
    max_uses: PositiveInt = 1
    """Times a trajectory may be trained on again."""
    outcome: Literal["any", "right", "wrong"] = "any"
    """Which trajectories are kept for replay."""
    priority: Literal["variance", "uniform"] = "variance"
    """Prefer groups that were hard but solved, p (1 - p)^2 of their share p of right answers, or none."""
    age_decay: PositiveFloat = 4.0
    """Steps in which the priority falls to 1 / e."""
    capacity: PositiveInt = 8192
    """Trajectories held; the oldest go first."""
    watch_every: NonNegativeInt = 20
    """Steps between comparisons of the gradients of fresh and replayed samples; 0 never compares."""
    watch_patience: PositiveInt = 3
    """Comparisons in a row with a negative cosine after which replay is switched off for the rest of the run."""
    watch_samples: PositiveInt = 16
    """Samples of each kind that are compared."""
    estimator: ReplayEstimator = ReplayEstimator()
    """How a replayed sample pulls on the weights; `mask.drift` is also what makes one ineligible for good."""


class RoRecomp(Settings):
    """Short right and long wrong answers are trained on at once, the rest later, with a falling probability."""

    type: Literal["rorecomp"] = "rorecomp"
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a group's right answers, shortest first, and of its wrong ones, longest first, trained on at once."""
    max_age: PositiveInt = 4
    """Steps after which a left-over answer is thrown away untrained."""
    p_start: Probability = 1.0
    """Probability that a compensation batch is trained on, at the start of the run."""
    p_end: Probability = 0.25
    """The same at its end; between them it falls along a cosine."""
    batch_samples: PositiveInt | None = None
    """Left-over answers in a compensation batch; none takes as many as the step's fresh batch has."""
    capacity: PositiveInt = 8192
    """Left-over answers held; the oldest go first."""
    estimator: CompensationEstimator = CompensationEstimator()
    """How a sample of a compensation batch pulls on the weights."""

    @model_validator(mode="after")
    def _compensation_fades(self) -> Self:
        if self.p_end > self.p_start:
            raise ValueError(
                f"compensation fades: p_end = {self.p_end} must be at most p_start = {self.p_start}; swap them"
            )
        return self


ReplayConfig = Annotated[ShareReplay | RoRecomp, Field(discriminator="type")]
