"""Settings of the parts a loss may be given besides its surrogate: averaging, KL, entropy, covariance, correction.

Imports pydantic only. Which loss takes which part is said in `rl/losses/config.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

Share = Annotated[float, Field(gt=0, lt=1)]


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


# ------------------------------------------------------------------------------------------------ averaging


class TokenMean(Settings):
    """Every loss token of the optimizer step weighs the same: sum over tokens / number of loss tokens (DAPO)."""

    type: Literal["token_mean"] = "token_mean"


class SequenceMean(Settings):
    """Every sequence weighs the same: mean over its loss tokens, then mean over sequences (the GRPO paper)."""

    type: Literal["sequence_mean"] = "sequence_mean"


class DrGrpo(Settings):
    """Sum over tokens / (number of sequences * a constant length): no length bias, no data-dependent step size."""

    type: Literal["dr_grpo"] = "dr_grpo"
    length: PositiveInt
    """Constant that stands for the length of a response, usually the largest response the budgets allow."""


Aggregation = Annotated[TokenMean | SequenceMean | DrGrpo, Field(discriminator="type")]


# ------------------------------------------------------------------------------------------------ KL


class Kl(Settings):
    """A penalty on the distance from the reference model."""

    estimator: Literal["k1", "k2", "k3"]
    """k1 in the reward; in the loss k2 (the gradient of KL(policy || reference)) or k3 (the reverse direction)."""
    placement: Literal["loss", "reward"]
    """Where the penalty acts: as a term of the loss, or subtracted from the reward before credit is given."""
    coefficient: PositiveFloat
    """Weight of the penalty, and the start value of an adaptive one."""
    unbiased: bool = False
    """Multiply k3 by the probability ratio, which turns its gradient into that of KL(policy || reference)."""
    target: PositiveFloat | None = None
    """Mean KL per token that an adaptive coefficient steers to; none keeps the coefficient constant."""
    horizon: PositiveInt | None = None
    """Sequences over which an adaptive coefficient may change by at most a fifth; needed with `target`."""

    @model_validator(mode="after")
    def _has_the_right_gradient(self) -> Self:
        if self.placement == "loss" and self.estimator == "k1":
            raise ValueError(
                "kl.estimator = 'k1' with placement = 'loss' trains nothing: the expected gradient of log p is zero; "
                "use estimator 'k2' or 'k3', or placement 'reward'"
            )
        if self.placement == "reward" and self.estimator != "k1":
            raise ValueError(
                f"kl.placement = 'reward' needs estimator 'k1', whose value gives the exact gradient through the "
                f"score function, got {self.estimator!r}; use 'k1', or placement 'loss'"
            )
        if self.unbiased and self.estimator != "k3":
            raise ValueError(f"kl.unbiased corrects k3, got estimator {self.estimator!r}; leave unbiased out")
        return self

    @model_validator(mode="after")
    def _adapts_as_a_whole(self) -> Self:
        if (self.target is None) != (self.horizon is None):
            raise ValueError(
                f"an adaptive kl needs both target and horizon, got target = {self.target} and horizon = "
                f"{self.horizon}; give both or neither"
            )
        if self.target is not None and self.placement == "reward":
            raise ValueError(
                f"kl.target = {self.target} adapts a coefficient inside the learner, which a penalty in the reward "
                "never sees; use placement 'loss', or leave target and horizon out"
            )
        return self


# ------------------------------------------------------------------------------------------------ entropy


class EntropyBonus(Settings):
    """Reward entropy with a constant coefficient."""

    type: Literal["bonus"] = "bonus"
    coefficient: PositiveFloat
    """Loss per nat of mean token entropy, subtracted."""


class AdaptiveEntropy(Settings):
    """A bonus that grows while entropy is at or below its target and shrinks above; it acts only while below."""

    type: Literal["adaptive"] = "adaptive"
    target: NonNegativeFloat = 0.2
    """Mean token entropy in nats that is defended."""
    delta: PositiveFloat = 0.005
    """Change of the coefficient per optimizer step."""
    initial: NonNegativeFloat = 0.0
    """Coefficient of the first step."""
    min: NonNegativeFloat = 0.0
    """Smallest coefficient."""
    max: PositiveFloat = 1.0
    """Largest coefficient."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not self.min <= self.initial <= self.max:
            raise ValueError(
                f"adaptive entropy needs min <= initial <= max, got {self.min}, {self.initial}, {self.max}; "
                "move the three apart"
            )
        return self


class TopEntropy(Settings):
    """Only the tokens of highest entropy keep their loss (80/20)."""

    type: Literal["top_fraction"] = "top_fraction"
    fraction: Share = 0.2
    """Share of the loss tokens of an optimizer step that keep their loss; the normalizer still counts all."""


Entropy = Annotated[EntropyBonus | AdaptiveEntropy | TopEntropy, Field(discriminator="type")]


# ------------------------------------------------------------------------------------------------ covariance


class KlCov(Settings):
    """The tokens of highest covariance of advantage and log-probability are held near the anchor."""

    type: Literal["kl_cov"] = "kl_cov"
    fraction: Share = 2e-3
    """Share of the loss tokens that are held."""
    coefficient: PositiveFloat = 1.0
    """Weight of |log p - log p_anchor| at these tokens."""


class ClipCov(Settings):
    """Some tokens of high covariance of advantage and log-probability lose their gradient."""

    type: Literal["clip_cov"] = "clip_cov"
    fraction: Share = 2e-4
    """Share of the loss tokens that lose it, drawn at random from those within the bounds."""
    low: PositiveFloat = 1.0
    """Smallest covariance of a candidate."""
    high: PositiveFloat = 5.0
    """Largest covariance of a candidate."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"clip_cov needs low < high, got {self.low} and {self.high}; raise high or lower low")
        return self


Covariance = Annotated[KlCov | ClipCov, Field(discriminator="type")]


# ------------------------------------------------------------------------------------------------ correction


class Correction(Settings):
    """A weight for the difference between the sampler and the anchor."""

    high: PositiveFloat
    """Upper bound: where the weight is cut, or beyond which a token or sequence is left out."""


class _TwoSided(Correction):
    low: NonNegativeFloat
    """Lower bound, likewise."""

    @model_validator(mode="after")
    def _bounds_are_ordered(self) -> Self:
        if not self.low < 1 < self.high:
            raise ValueError(
                f"a correction must keep the ratio 1, so low < 1 < high, got {self.low} and {self.high}; widen them"
            )
        return self


class TokenTis(Correction):
    """min(ratio, high) for each token."""

    type: Literal["token_tis"] = "token_tis"
    high: PositiveFloat = 2.0
    """Largest weight."""


class ClampTis(_TwoSided):
    """The ratio of each token, clamped to [low, high]."""

    type: Literal["clamp_tis"] = "clamp_tis"
    low: NonNegativeFloat = 0.5
    """Lower bound."""
    high: PositiveFloat = 5.0
    """Largest weight."""


class IcePop(_TwoSided):
    """The ratio of each token within [low, high], 0 outside."""

    type: Literal["icepop"] = "icepop"
    low: NonNegativeFloat = 0.5
    """Lower bound."""
    high: PositiveFloat = 5.0
    """Upper bound."""


class SequenceTis(Correction):
    """min(product of the ratios of a sequence, high) for all its tokens."""

    type: Literal["sequence_tis"] = "sequence_tis"
    high: PositiveFloat = 2.0
    """Largest weight."""


class SequenceMis(Correction):
    """The product of the ratios of a sequence up to `high`, 0 beyond."""

    type: Literal["sequence_mis"] = "sequence_mis"
    high: PositiveFloat = 3.0
    """Largest product that counts."""


class GeometricMask(_TwoSided):
    """A sequence counts only if the geometric mean of its ratios is within [low, high]; no weight otherwise."""

    type: Literal["geometric_mask"] = "geometric_mask"
    low: NonNegativeFloat = 0.98
    """Lower bound."""
    high: PositiveFloat = 1.02
    """Upper bound."""


class K3Mask(Correction):
    """A sequence counts only if its mean of ratio - 1 - log ratio is at most `high`; no weight otherwise."""

    type: Literal["k3_mask"] = "k3_mask"
    high: PositiveFloat = 0.01
    """Largest mean that counts."""


SequenceCorrection = Annotated[SequenceTis | SequenceMis | GeometricMask | K3Mask, Field(discriminator="type")]
AnyCorrection = Annotated[
    TokenTis | ClampTis | IcePop | SequenceTis | SequenceMis | GeometricMask | K3Mask, Field(discriminator="type")
]
