"""Settings of the efforts: how long each may think, how often it is drawn, and what its length costs.

An effort is a thinking mode: an instruction, limits, and what is put in for the model. A *number* is a count of tokens
that the instruction names with {tokens}: drawn for each job (`numbers`), else the thinking cap, else the answer limit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from budgets.shaping.config import (
    NoShapingConfig,
    OverlongConfig,
    PenaltyConfig,
    ShapingConfig,
    ThinkDialConfig,
)

Share = Annotated[float, Field(ge=0)]
PLACE = "{tokens}"  # where an instruction names its number
Mix = Annotated[dict[str, Share], Field(min_length=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class NumbersConfig(_Settings):
    """Numeric budgets: the number of tokens that the prompt names, drawn for each job."""

    low: PositiveInt
    """Smallest number."""
    high: PositiveInt
    """Largest number."""
    spacing: Literal["uniform", "log"] = "uniform"
    """Whether all numbers are equally likely, or all orders of magnitude."""
    is_cap: bool = True
    """Whether the number is also the thinking cap in decoding, or only said."""
    evaluate: PositiveInt | None = None
    """The number at which the effort is evaluated; None takes `high`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"numbers need low <= high, got {self.low} and {self.high}; swap them")
        return self


class DecayConfig(_Settings):
    """RMT's schedule: the number that the prompt names falls from step to step. It is said, and no cap."""

    first: PositiveInt = 800
    """Number of the first step."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """What is left of it at the end."""
    least: PositiveInt = 1
    """Smallest number."""
    steps: PositiveInt
    """Training steps over which it falls; usually loop.num_steps."""


class StageConfig(_Settings):
    """A stage of ThinkPrune's schedule: limits that hold from a step on."""

    from_step: PositiveInt
    """First training step of the stage."""
    max_thinking_tokens: NonNegativeInt | None = None
    """Most tokens of thinking from then on; None leaves it as it was."""
    max_answer_tokens: PositiveInt | None = None
    """Most tokens after the thinking from then on; None leaves it as it was."""


class EffortConfig(_Settings):
    """One named way of thinking."""

    instruction: str = ""
    """Text that asks for this effort: the system message, or the prompt's prefix where there is no chat template.
    {tokens} in it is replaced by a number of tokens."""
    max_thinking_tokens: NonNegativeInt | None = None
    """Most tokens between the thinking marks, after which thinking is closed by force; None leaves it to the total."""
    max_answer_tokens: PositiveInt = 256
    """Most tokens after the thinking."""
    weight: Share = 1.0
    """Relative share of jobs with this effort, in cold start and training, where no phase says otherwise."""
    prefix: str = ""
    """Text that every response is made to begin with, such as [Easy]; its tokens are not trained on."""
    opens_thinking: bool = False
    """Whether the thinking is opened for the model, which otherwise decides whether to think."""
    forced_close: str = ""
    """Text put in when this effort's thinking cap is reached; empty means the one of [format]."""
    numbers: NumbersConfig | None = None
    """Numeric budgets, drawn for each job; None names the limits as they are."""
    decay: DecayConfig | None = None
    """A number that falls over training (RMT); evaluation names the last one."""
    stages: tuple[StageConfig, ...] = ()
    """Limits that shrink during training (ThinkPrune); evaluation uses the last ones."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.numbers is not None and self.decay is not None:
            raise ValueError("an effort's number is drawn (numbers) or falls (decay), not both; leave one of them out")
        if (self.numbers or self.decay) is not None and PLACE not in self.instruction:
            raise ValueError(
                f"an effort with numbers must name them: put {PLACE} into its instruction, got {self.instruction!r}"
            )
        starts = [stage.from_step for stage in self.stages]
        if any(a >= b for a, b in pairwise(starts)):
            raise ValueError(f"stages must start at increasing steps, got from_step {starts}; sort them")
        return self

    @property
    def most_thinking_tokens(self) -> int | None:
        """The largest thinking cap that a job may get; None where one may get none."""
        caps = [self.max_thinking_tokens, *(s.max_thinking_tokens for s in self.stages if s.max_thinking_tokens)]
        if self.numbers is not None and self.numbers.is_cap:
            return self.numbers.high
        return None if self.max_thinking_tokens is None else max(c for c in caps if c is not None)

    @property
    def most_answer_tokens(self) -> int:
        """The largest answer limit that a job may get."""
        return max(self.max_answer_tokens, *(s.max_answer_tokens or 1 for s in self.stages), 1)


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


class CeilingsConfig(_Settings):
    """What a run may spend before it stops; None means no ceiling."""

    max_generated_tokens: PositiveInt | None = None
    """Tokens sampled by the engines, evaluation included."""
    max_judge_calls: PositiveInt | None = None
    """Attempts handed to the verifier."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Wall-clock seconds of training, added up over resumed parts."""


class AllocationConfig(_Settings):
    """Effort and group size of a task from its own history; a task without one keeps what was drawn."""

    group_size: bool = True
    """Give a task as many siblings as it takes to see right and wrong answers with probability `informative`."""
    effort: bool = False
    """Give hard tasks the most thorough effort and easy ones the least, instead of the effort that was drawn."""
    min_siblings: Annotated[int, Field(ge=2)] = 4
    """Smallest group."""
    max_siblings: Annotated[int, Field(ge=2)] = 16
    """Largest group."""
    informative: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Wanted probability that a group holds both right and wrong answers."""
    memory: Annotated[float, Field(ge=0, le=1)] = 0.2
    """What is left of a task's counts when its next group comes in: the policy has moved since."""
    explore: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of jobs that keep the effort that was drawn."""

    @model_validator(mode="after")
    def _sizes_are_ordered(self) -> Self:
        if self.min_siblings > self.max_siblings:
            raise ValueError(
                f"min_siblings = {self.min_siblings} must be at most max_siblings = {self.max_siblings}; swap them"
            )
        return self


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
    penalties: tuple[PenaltyConfig, ...] = ()
    """Penalties beside the shaping; one of each type."""
    allocation: AllocationConfig | None = None
    """Effort and group size by the history of a task; left out, every job is as it was drawn."""
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
        for section in (self.shaping, *self.penalties):
            if isinstance(section, OverlongConfig):
                self._require_room(section)
        self._require_numbers()
        self._require_ranks()
        return self

    def _require_numbers(self) -> None:
        silent = [name for name, effort in self.efforts.items() if PLACE not in effort.instruction]
        if self.shaping.needs_number and silent:
            raise ValueError(
                f"shaping.type = {self.shaping.type!r} compares lengths with a number in the prompt, and efforts "
                f"{silent} name none; put {PLACE} into their instructions"
            )

    def _require_ranks(self) -> None:
        """A wrong attempt must not get more than a right one, unless the recipe asks for it."""
        sections = (self.shaping, *self.penalties)
        if len({section.type for section in sections}) < len(sections):
            raise ValueError(
                f"each type of shaping and penalty can be used once, got {[section.type for section in sections]}"
            )
        if any(section.allow_rank_inversion for section in sections):
            return
        margin = self.shaping.rank_margin(self._largest_miss()) - sum(p.largest_penalty for p in self.penalties)
        # One penalty may at most take all of a right answer's reward, as DAPO's does at the limit.
        if margin < -1e-9:
            remedy = self.shaping.remedy if not self.penalties else "lower the weights of shaping and penalties"
            raise ValueError(
                f"with {' and '.join(s.type for s in sections)} a wrong attempt can get {-margin:g} more than a right "
                f"one; {remedy}, or set allow_rank_inversion = true to have it so"
            )

    def _largest_miss(self) -> int:
        """Most tokens by which a response can miss the number that its prompt names."""
        return max(
            max(
                effort.numbers.high if effort.numbers else 0,
                effort.decay.first if effort.decay else 0,
                (effort.most_thinking_tokens or 0) + effort.most_answer_tokens,
            )
            for effort in self.efforts.values()
        )

    def _require_room(self, shaping: OverlongConfig) -> None:
        for name, effort in self.efforts.items():
            limit = shaping.max_tokens or (effort.max_thinking_tokens or 0) + effort.max_answer_tokens
            if shaping.buffer_tokens >= limit:
                raise ValueError(
                    f"buffer_tokens = {shaping.buffer_tokens} must be less than the limit it stands before, "
                    f"which is {limit} for effort {name!r}: every answer would be penalized. Lower buffer_tokens, or "
                    "raise its max_tokens or the effort's limits"
                )

    def _require_known(self, what: str, names: dict[str, float]) -> None:
        unknown = sorted(set(names) - set(self.efforts))
        if unknown:
            raise ValueError(f"{what} names unknown efforts {unknown}; efforts are {sorted(self.efforts)}")


def _require_positive_sum(what: str, shares: dict[str, float]) -> None:
    if sum(shares.values()) <= 0:
        raise ValueError(f"{what} must not all be 0, got {shares}; give at least one effort a positive share")
