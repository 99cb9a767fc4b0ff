"""Settings of the policy losses. Imports pydantic only: the driver and `ponder --help` read this without torch.

A loss has a section only where the section means something for it; what is left is refused here with the reason.
`anchor = "sampler"` (bypass) measures the ratio from the sampler's own log-probabilities. The ratio then corrects the
mismatch itself, so a correction on top would count it twice.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from rl.losses.estimator_config import Estimator, Mask
from rl.losses.term_config import (
    Aggregation,
    AnyCorrection,
    Covariance,
    DrGrpo,
    Entropy,
    Kl,
    SequenceCorrection,
    SequenceMean,
    Settings,
    TokenMean,
    TopEntropy,
)

__all__ = ["Aggregation", "DrGrpo", "LossConfig", "PpoClip", "SequenceMean", "TokenMean"]

Anchor = Literal["learner", "sampler"]
ClipLow = Annotated[float, Field(gt=0, lt=1)]
ClipHigh = Annotated[float, Field(gt=0)]
SEQUENCE_CORRECTIONS = ("sequence_tis", "sequence_mis", "geometric_mask", "k3_mask")


class _Loss(Settings):
    aggregation: Aggregation = TokenMean()
    """How token losses are averaged over the optimizer step."""
    kl: Kl | None = None
    """Penalty on the distance from the reference model, or none."""
    entropy: Entropy | None = None
    """Entropy bonus, adaptive bonus or restriction to uncertain tokens, or none."""

    per_sequence: ClassVar[bool] = False
    """One loss a sequence: it needs one advantage a sequence, and a choice of tokens means nothing for it."""

    @property
    def takes_token_advantages(self) -> bool:
        """Advantages may differ inside a sequence, as process credit makes them."""
        return not self.per_sequence

    @property
    def reward_kl_coefficient(self) -> float:
        """Weight of the k1 penalty that credit subtracts from the rewards; 0 if there is none."""
        return self.kl.coefficient if self.kl is not None and self.kl.placement == "reward" else 0.0

    @property
    def needs_reference(self) -> bool:
        """A reference model must score the samples."""
        return self.kl is not None

    @model_validator(mode="after")
    def _top_entropy_is_for_token_losses(self) -> Self:
        if not self.takes_token_advantages and isinstance(self.entropy, TopEntropy):
            raise ValueError(
                "entropy.type = 'top_fraction' keeps the loss of single tokens, and this loss is one number a "
                "sequence; use a token loss such as ppo_clip, or leave it out"
            )
        return self


class _Anchored(_Loss):
    """Losses whose ratio starts at an anchor that a recipe may choose."""

    anchor: Anchor = "learner"
    """What the ratio is measured from: the learner before the batch, or the sampler itself (bypass, no correction)."""

    @model_validator(mode="after")
    def _mismatch_is_counted_once(self) -> Self:
        correction = getattr(self, "correction", None)
        if self.anchor == "sampler" and correction is not None:
            raise ValueError(
                f"anchor = 'sampler' puts the mismatch into the ratio, so correction.type = {correction.type!r} would "
                "count it twice; leave the correction out, or set anchor = 'learner'"
            )
        return self


class _TokenLoss(_Anchored):
    correction: AnyCorrection | None = None
    """Weight or mask for the difference between sampler and anchor, or none."""


class _SequenceLoss(_Anchored):
    per_sequence: ClassVar[bool] = True
    correction: SequenceCorrection | None = None
    """Weight or mask of a whole sequence for the difference between sampler and anchor, or none."""
    aggregation: Aggregation = SequenceMean()
    """How the losses of the sequences are averaged: each counts weight * its loss tokens."""


class PpoClip(_TokenLoss):
    """Clipped token-level policy loss (PPO's surrogate, with GRPO-family advantages)."""

    type: Literal["ppo_clip"] = "ppo_clip"
    clip_low: ClipLow = 0.2
    """How far below 1 the probability ratio may fall before its gradient is cut."""
    clip_high: ClipHigh = 0.28
    """How far above 1 the probability ratio may rise before its gradient is cut."""
    dual_clip: Annotated[float, Field(gt=1)] | None = None
    """Largest ratio that still punishes a token with a negative advantage; None leaves that side unbounded."""
    covariance: Covariance | None = None
    """Brake on the tokens that drive entropy down, or none."""

    @model_validator(mode="after")
    def _one_choice_of_tokens(self) -> Self:
        if self.covariance is not None and isinstance(self.entropy, TopEntropy):
            raise ValueError(
                f"covariance.type = {self.covariance.type!r} and entropy.type = 'top_fraction' choose tokens by two "
                "rules; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _dual_clip_is_beyond_the_clip(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"dual_clip = {self.dual_clip} must be above 1 + clip_high = {1 + self.clip_high}; 3 to 10 is usual"
            )
        return self


class Gspo(_Anchored):
    """One ratio a sequence, the geometric mean of its tokens' ratios, clipped tightly."""

    type: Literal["gspo"] = "gspo"
    clip_low: ClipLow = 3e-4
    """How far below 1 the ratio of a sequence may fall before its gradient is cut."""
    clip_high: ClipHigh = 4e-4
    """How far above 1 the ratio of a sequence may rise before its gradient is cut."""
    token: bool = False
    """GSPO-token: same values, but each token may have an advantage of its own."""
    aggregation: Aggregation = SequenceMean()
    """How token losses are averaged over the optimizer step."""
    correction: AnyCorrection | None = None
    """Weight or mask for the difference between sampler and anchor, or none; single tokens only with `token`."""

    @property
    def takes_token_advantages(self) -> bool:
        return self.token

    @model_validator(mode="after")
    def _sequences_are_corrected_whole(self) -> Self:
        if not self.token and self.correction is not None and self.correction.type not in SEQUENCE_CORRECTIONS:
            raise ValueError(
                f"gspo has one ratio a sequence, so correction.type = {self.correction.type!r} cannot weigh its "
                f"tokens; use one of {', '.join(SEQUENCE_CORRECTIONS)}, or token = true"
            )
        return self


class Cispo(_TokenLoss):
    """REINFORCE with a capped, detached ratio as weight: no token loses its gradient."""

    type: Literal["cispo"] = "cispo"
    max_ratio: Annotated[float, Field(ge=1)] = 5.0
    """The cap itself, not its distance from 1."""
    min_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Smallest weight; 0 is the published form."""


class Gmpo(_SequenceLoss):
    """Geometric mean of token ratios, each clipped before the mean."""

    type: Literal["gmpo"] = "gmpo"
    log_clip: PositiveFloat = 0.4
    """Largest absolute log-ratio of a token in the direction of its advantage."""


class Sapo(_TokenLoss):
    """A sigmoid gate on the ratio instead of a clip."""

    type: Literal["sapo"] = "sapo"
    tau_positive: PositiveFloat = 1.0
    """Steepness of the gate where the advantage is positive."""
    tau_negative: PositiveFloat = 1.05
    """Steepness where it is not; larger, because pushing down is less stable."""
    aggregation: Aggregation = SequenceMean()
    """How token losses are averaged over the optimizer step."""


class Topr(_Loss):
    """REINFORCE, off-policy: full weight for good sequences, for bad ones the ratio to the sampler, at most 1."""

    type: Literal["topr"] = "topr"
    per_sequence: ClassVar[bool] = True
    ratio: Literal["product", "geometric"] = "product"
    """Ratio of a sequence: the product over its tokens (short answers), or their geometric mean (long ones)."""
    aggregation: Aggregation = SequenceMean()
    """How token losses are averaged over the optimizer step."""


class Rloo(_SequenceLoss):
    """The probability ratio of the whole sequence, clipped."""

    type: Literal["rloo"] = "rloo"
    clip_low: ClipLow = 0.2
    """How far below 1 the ratio of a sequence may fall before its gradient is cut."""
    clip_high: ClipHigh = 0.2
    """How far above 1 the ratio of a sequence may rise before its gradient is cut."""


class Decoupled(_Loss):
    """PPO-clip around a proximal policy, the learner before the batch, weighted by proximal / sampler."""

    type: Literal["decoupled"] = "decoupled"
    clip_low: ClipLow = 0.2
    """How far below 1 the ratio of policy and proximal policy may fall before its gradient is cut."""
    clip_high: ClipHigh = 0.28
    """How far above 1 it may rise before its gradient is cut."""
    max_weight: Annotated[float, Field(ge=1)] | None = None
    """Largest weight of a token; none leaves it unbounded, as published."""


class Dppo(_TokenLoss):
    """REINFORCE with a trust region in probabilities instead of ratios."""

    type: Literal["dppo"] = "dppo"
    divergence: Literal["tv", "kl"] = "tv"
    """Distance from the anchor at the sampled token: change of its probability, or KL of token against the rest."""
    clip_low: NonNegativeFloat = 0.2
    """Largest distance a token with a negative advantage may have fallen and still be pushed down."""
    clip_high: NonNegativeFloat = 0.2
    """Largest distance a token with a positive advantage may have risen and still be pushed up."""
    max_ratio: Annotated[float, Field(ge=1)] = 20.0
    """Largest weight of a token."""


class Dro(_TokenLoss):
    """REINFORCE with a quadratic pull of log-probabilities to the anchor."""

    type: Literal["dro"] = "dro"
    beta: PositiveFloat = 0.1
    """Strength of the pull."""


class PluginLoss(_TokenLoss):
    """A loss of one's own: a function of the shape `rl.losses.contract.LossFunction`, called with these settings."""

    type: Literal["plugin"] = "plugin"
    name: Annotated[str, Field(min_length=1)]
    """Registered name, dotted path (package.module:attribute) or file (path/to/file.py:attribute)."""
    params: dict[str, Any] = Field(default={})
    """Settings of the function's own, which finds them as `config.params`."""
    whole_sequences: bool = False
    """The function gives one loss a sequence: advantages that differ inside a sequence are refused."""

    @property
    def takes_token_advantages(self) -> bool:
        return not self.whole_sequences


class Unified(_Loss):
    """A loss of one's own out of mask, denominator and likelihood."""

    type: Literal["unified"] = "unified"
    estimator: Estimator = Estimator(mask=Mask(clip_low=0.2, clip_high=0.28), denominator="anchor")
    """The choices; as they stand they make PPO's gradient."""


LossConfig = Annotated[
    PpoClip | Gspo | Cispo | Gmpo | Sapo | Topr | Rloo | Decoupled | Dppo | Dro | Unified | PluginLoss,
    Field(discriminator="type"),
]
