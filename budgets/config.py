"""Settings of the efforts: how long each may think, how often it is drawn, and what its length costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0)]
Mix = Annotated[dict[str, Share], Field(min_length=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class EffortConfig(_Settings):
    """One named way of thinking."""

    instruction: str = ""
    """Text that asks for this effort: the system message, or the prompt's prefix where there is no chat template."""
    max_thinking_tokens: NonNegativeInt | None = None
    """Most tokens between the thinking marks, after which thinking is closed by force; None leaves it to the total."""
    max_answer_tokens: PositiveInt = 256
    """Most tokens after the thinking."""
    weight: Share = 1.0
    """Relative share of jobs with this effort, in cold start and training, where no phase says otherwise."""


class PhaseConfig(_Settings):
    """A first part of training with its own mix of efforts."""

    until_step: PositiveInt
    """Last training step of this phase; the first phase starts at step 1."""
    mix: Mix
    """Relative share of each effort in this phase; an effort left out is not drawn."""

    @model_validator(mode="after")
    def _something_is_drawn(self) -> Self:
        _require_positive_sum("the mix of a phase", self.mix)
        return self


class NoShapingConfig(_Settings):
    """The verifier's reward alone."""

    type: Literal["none"] = "none"


class ThinkDialConfig(_Settings):
    """Length and leak terms of ThinkDial, within groups of one task and effort."""

    type: Literal["thinkdial"] = "thinkdial"
    alpha: Annotated[dict[str, Share], Field(min_length=1)] = {"high": 0.0, "medium": 0.5, "low": 1.0}
    """Weight of the length term per effort; every effort needs one."""
    leak: NonNegativeFloat = 0.5
    """Reward for an answer free of `keywords`, and penalty for one that goes on thinking; 0 leaves the term out."""
    keywords: tuple[Annotated[str, Field(min_length=1)], ...] = (
        "wait",
        "let me think",
        "actually",
        "alternatively",
        "however",
    )
    """Whole words or phrases, in any case, that betray thinking in the answer."""
    rank_safe: bool = False
    """Count half the leak term, and only where correct, so that no wrong answer outranks a correct one."""
    correct_from: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Outcome score from which an attempt counts as correct."""
    start_version: NonNegativeInt = 0
    """Groups sampled from weights with fewer optimizer steps than this get no terms: a warm-up on correctness alone."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.leak > 0 and not self.keywords:
            raise ValueError("leak > 0 needs at least one keyword; name some, or set leak = 0")
        worst_correct = self.correct_from - 0.5 * max(self.alpha.values()) - 0.5 * self.leak
        if self.rank_safe and worst_correct <= 0:
            raise ValueError(
                "rank_safe needs correct_from - max(alpha) / 2 - leak / 2 > 0, so that the worst correct reward stays "
                f"above that of a wrong answer; got {worst_correct:g}. Lower alpha or leak"
            )
        return self


class OverlongConfig(_Settings):
    """DAPO's penalty on answers that come close to their limit."""

    type: Literal["overlong"] = "overlong"
    buffer_tokens: PositiveInt
    """Tokens before the limit over which the penalty grows from 0 to `factor`."""
    max_tokens: PositiveInt | None = None
    """The limit on all tokens after the prompt; None takes the thinking and answer limits of the effort together."""
    factor: Annotated[float, Field(gt=0)] = 1.0
    """Largest penalty."""


ShapingConfig = Annotated[NoShapingConfig | ThinkDialConfig | OverlongConfig, Field(discriminator="type")]


class CeilingsConfig(_Settings):
    """What a run may spend before it stops; None means no ceiling."""

    max_generated_tokens: PositiveInt | None = None
    """Tokens sampled by the engines, evaluation included."""
    max_judge_calls: PositiveInt | None = None
    """Attempts handed to the verifier."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock seconds of training, added up over resumed parts."""


class BudgetsConfig(_Settings):
    """Which efforts exist, how they are mixed, what their length costs and what a run may spend."""

    efforts: Annotated[dict[str, EffortConfig], Field(min_length=1)]
    """Efforts by name, the most thorough first; the order is the one of tables and plots."""
    max_prompt_tokens: PositiveInt = 1024
    """Longest prompt, instruction included; a longer one is not attempted."""
    phases: tuple[PhaseConfig, ...] = ()
    """Parts of training, in order, that replace the efforts' weights by a mix of their own."""
    shaping: ShapingConfig = NoShapingConfig()
    """Reward term on length, computed within a group."""
    ceilings: CeilingsConfig = CeilingsConfig()
    """Spending at which the run stops."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        _require_positive_sum("the weights of the efforts", {name: e.weight for name, e in self.efforts.items()})
        for number, phase in enumerate(self.phases, start=1):
            self._require_known(f"the mix of phase {number}", phase.mix)
        ends = [phase.until_step for phase in self.phases]
        if any(a >= b for a, b in pairwise(ends)):
            raise ValueError(f"phases must end at increasing steps, got until_step {ends}; sort them")
        if isinstance(self.shaping, ThinkDialConfig):
            self._require_known("shaping.alpha", self.shaping.alpha)
            missing = sorted(set(self.efforts) - set(self.shaping.alpha))
            if missing:
                raise ValueError(f"shaping.alpha needs every effort, {missing} missing; add each with its weight or 0")
        if isinstance(self.shaping, OverlongConfig):
            self._require_room(self.shaping)
        return self

    def _require_room(self, shaping: OverlongConfig) -> None:
        for name, effort in self.efforts.items():
            limit = shaping.max_tokens or (effort.max_thinking_tokens or 0) + effort.max_answer_tokens
            if shaping.buffer_tokens >= limit:
                raise ValueError(
                    f"shaping.buffer_tokens = {shaping.buffer_tokens} must be less than the limit it stands before, "
                    f"which is {limit} for effort {name!r}: every answer would be penalized. Lower buffer_tokens, or "
                    "raise shaping.max_tokens or the effort's limits"
                )

    def _require_known(self, what: str, names: dict[str, float]) -> None:
        unknown = sorted(set(names) - set(self.efforts))
        if unknown:
            raise ValueError(f"{what} names unknown efforts {unknown}; efforts are {sorted(self.efforts)}")


def _require_positive_sum(what: str, shares: dict[str, float]) -> None:
    if sum(shares.values()) <= 0:
        raise ValueError(f"{what} must not all be 0, got {shares}; give at least one effort a positive share")
