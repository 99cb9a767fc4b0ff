"""The four choices of the unified policy-gradient estimator, as settings. Imports pydantic only.

What each choice does is in `rl/losses/unified.py`. A new hybrid of supervised and reinforcement learning is one of
these sections in a recipe: where samples come from is said elsewhere, how they pull on the weights is said here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from rl.losses.term_config import Settings


class Mask(Settings):
    """Which tokens are left out so that the update stays stable; a token must pass every rule that is set."""

    clip_low: Annotated[float, Field(gt=0, lt=1)] | None = None
    """PPO's rule: a token with a negative advantage counts while learner / anchor >= 1 - clip_low; none: always."""
    clip_high: PositiveFloat | None = None
    """PPO's rule: a token with a positive advantage counts while learner / anchor <= 1 + clip_high; none: always."""
    band_low: NonNegativeFloat | None = None
    """IcePop's rule: smallest anchor / sampler of a token that counts; none sets no bound."""
    band_high: PositiveFloat | None = None
    """IcePop's rule: largest anchor / sampler of a token that counts; none sets no bound."""
    drift: PositiveFloat | None = None
    """Largest mean |log (anchor / sampler)| of a sequence that counts; none sets no bound."""

    @model_validator(mode="after")
    def _the_band_is_not_empty(self) -> Self:
        if self.band_low is not None and self.band_high is not None and self.band_low >= self.band_high:
            raise ValueError(
                f"mask.band_low = {self.band_low} must be below band_high = {self.band_high}; 0.5 and 5 are usual"
            )
        return self


class Estimator(Settings):
    """Stabilization mask, reference denominator and likelihood; the advantage comes with the sample."""

    mask: Mask = Mask()
    """Which tokens are left out."""
    denominator: Literal["policy", "anchor", "sampler", "sequence", "one"] = "policy"
    """What divides the policy's probability: itself (SFT, REINFORCE), the anchor (PPO, CISPO), the sampler (plain
    importance sampling), what makes the ratio the geometric mean over the sequence (GSPO), or 1 (LUFFY)."""
    likelihood: Literal["plain", "shaped"] = "plain"
    """Gradient of the ratio r itself, or of r / (r + gamma), which lifts improbable tokens and spares certain ones."""
    gamma: PositiveFloat = 0.1
    """The constant of the shaped likelihood."""
    max_weight: PositiveFloat | None = None
    """Largest weight of a token; none leaves it unbounded."""
    max_negative_weight: PositiveFloat | None = None
    """Largest weight of a token with a negative advantage, as in TOPR; none takes max_weight."""


class StreamEstimators(Settings):
    """How the samples that are not fresh pull on the weights; each stream has an estimator of its own."""

    replay: Estimator = Estimator(denominator="sampler")
    """Trajectories of earlier weights."""
    demonstration: Estimator = Estimator()
    """Worked solutions that the policy did not write."""
    text: Estimator = Estimator()
    """Plain text, next token by next token."""

    @model_validator(mode="after")
    def _teachers_have_no_sampler(self) -> Self:
        for name in ("demonstration", "text"):
            estimator: Estimator = getattr(self, name)
            mask = estimator.mask
            compares = mask.band_low is not None or mask.band_high is not None or mask.drift is not None
            if estimator.denominator == "sampler" or compares:
                raise ValueError(
                    f"{name}: the policy's engines did not draw these tokens, so there is no sampler to compare with; "
                    "leave out band_low, band_high and drift, and use another denominator (policy, anchor, sequence "
                    f"or one), got {estimator.denominator!r}"
                )
        return self
