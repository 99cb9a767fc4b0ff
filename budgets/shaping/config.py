"""Settings of the shapers: what length, mode and manner cost beside being right.

`rank_margin` is the smallest reward of a right attempt minus the largest of a wrong one, in closed form, for outcomes
of 0 (wrong) and at least `correct_from` (right). Below 0 a wrong attempt can outrank a right one, which a recipe must
ask for by name: `allow_rank_inversion`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Share = Annotated[float, Field(ge=0)]


class _Shaping(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    remedy: ClassVar[str] = "lower its weights"
    needs_number: ClassVar[bool] = False  # the prompt must name a number of tokens: an instruction with {tokens}

    correct_from: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Outcome score from which an attempt counts as correct."""
    start_version: NonNegativeInt = 0
    """Groups sampled from weights with fewer optimizer steps than this get no terms: a warm-up on correctness alone."""
    allow_rank_inversion: bool = False
    """Whether a wrong attempt may get more than a right one, which the settings of some papers let happen."""

    def rank_margin(self, largest_miss: int) -> float:
        """See the module. `largest_miss`: most tokens by which a response can miss the number its prompt names."""
        raise NotImplementedError


class NoShapingConfig(_Shaping):
    """The verifier's reward alone."""

    type: Literal["none"] = "none"

    def rank_margin(self, largest_miss: int) -> float:
        return self.correct_from


class ThinkDialConfig(_Shaping):
    """Length and leak terms of ThinkDial, within groups of one task and effort."""

    remedy: ClassVar[str] = "set rank_safe = true, or lower alpha or leak"

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
    rank_safe: bool = True
    """Count half the leak term, and only where correct; false is the paper's, where a wrong attempt can outrank."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.leak > 0 and not self.keywords:
            raise ValueError("leak > 0 needs at least one keyword; name some, or set leak = 0")
        return self

    def rank_margin(self, largest_miss: int) -> float:
        worst_correct = self.correct_from - 0.5 * max(self.alpha.values())
        return worst_correct - (0.5 if self.rank_safe else 2.0) * self.leak


class KimiConfig(_Shaping):
    """Length term of Kimi k1.5: from the shortest to the longest attempt of a group."""

    remedy: ClassVar[str] = "set weight to at most 2 x correct_from"

    type: Literal["kimi"] = "kimi"
    weight: PositiveFloat = 0.5
    """Reward between the shortest and the longest correct attempt."""

    def rank_margin(self, largest_miss: int) -> float:
        return self.correct_from - 0.5 * self.weight


class AdaCtrlConfig(_Shaping):
    """AdaCtrl's terms: right or wrong as plus or minus one, a true difficulty tag, short answers to easy tasks."""

    remedy: ClassVar[str] = "set tag_weight to at most correct_from"

    type: Literal["adactrl"] = "adactrl"
    tag_weight: NonNegativeFloat = 0.5
    """Reward for the tag that fits the group's success rate, and penalty for none."""
    length_weight: NonNegativeFloat = 0.5
    """Largest reward for a short correct attempt tagged [Easy]."""
    easy_above: Annotated[float, Field(ge=0, lt=1)] = 0.625
    """Success rate of the group above which its task counts as easy."""

    def rank_margin(self, largest_miss: int) -> float:
        return 2 * self.correct_from - 2 * self.tag_weight


class L1ExactConfig(_Shaping):
    """L1's term for using exactly the number of tokens that the prompt names."""

    remedy: ClassVar[str] = "lower alpha, or the limits of the efforts"
    needs_number: ClassVar[bool] = True

    type: Literal["l1_exact"] = "l1_exact"
    alpha: PositiveFloat = 3e-4
    """Penalty for each token more or fewer than named."""

    def rank_margin(self, largest_miss: int) -> float:
        return self.correct_from - self.alpha * largest_miss


class L1MaxConfig(_Shaping):
    """L1's factor for staying below the number of tokens that the prompt names."""

    needs_number: ClassVar[bool] = True

    type: Literal["l1_max"] = "l1_max"
    alpha: PositiveFloat = 3e-4
    """Reward for each token fewer than named."""
    delta: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Reward of a correct attempt of exactly the named length."""

    def rank_margin(self, largest_miss: int) -> float:
        return 0.0


class O1PrunerConfig(_Shaping):
    """O1-Pruner's weight as a reward: shorter and more often right than the group's mean."""

    remedy: ClassVar[str] = "set rank_safe = true and alpha to at least 1"

    type: Literal["o1_pruner"] = "o1_pruner"
    alpha: PositiveFloat = 5.0
    """Weight of correctness against relative length."""
    lowest: Annotated[float, Field(lt=0)] = -2.0
    """Smallest reward."""
    highest: PositiveFloat = 4.0
    """Largest reward."""
    rank_safe: bool = True
    """Give wrong attempts no reward for being short; false is the released code's weight."""

    def rank_margin(self, largest_miss: int) -> float:
        if not self.rank_safe:  # a very short wrong attempt reaches the upper bound
            return -1.0
        return min(self.alpha - 1.0, 0.0)


class AdaptThinkConfig(_Shaping):
    """AdaptThink's bonus for answering without thinking."""

    remedy: ClassVar[str] = "set delta to at most correct_from"

    type: Literal["adapt_think"] = "adapt_think"
    delta: PositiveFloat = 0.05
    """Reward for an answer without thinking, right or wrong."""

    def rank_margin(self, largest_miss: int) -> float:
        return self.correct_from - self.delta


class TriangleConfig(_Shaping):
    """RMT's term for thinking about as long as the prompt says."""

    remedy: ClassVar[str] = "set weight to at most 0.5"
    needs_number: ClassVar[bool] = True

    type: Literal["triangle"] = "triangle"
    weight: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the length term in the reward; the outcome has the rest."""

    def rank_margin(self, largest_miss: int) -> float:
        return (1 - self.weight) * self.correct_from - self.weight


class OverlongConfig(_Shaping):
    """DAPO's penalty on answers that come close to their limit."""

    remedy: ClassVar[str] = "set factor to at most correct_from"

    type: Literal["overlong"] = "overlong"
    buffer_tokens: PositiveInt
    """Tokens before the limit over which the penalty grows from 0 to `factor`."""
    max_tokens: PositiveInt | None = None
    """The limit on all tokens after the prompt; None takes the thinking and answer limits of the effort together."""
    factor: PositiveFloat = 1.0
    """Largest penalty."""

    @property
    def largest_penalty(self) -> float:
        return self.factor

    def rank_margin(self, largest_miss: int) -> float:
        return self.correct_from - self.factor


class RepetitionConfig(_Shaping):
    """Penalty on responses that go round in circles."""

    remedy: ClassVar[str] = "set weight to at most correct_from"

    type: Literal["repetition"] = "repetition"
    weight: PositiveFloat = 0.5
    """Penalty on a response that is nothing but repetition."""
    window: PositiveInt = 512
    """Tokens at the end that are searched for a period."""
    max_period: PositiveInt = 64
    """Longest period looked for, in tokens."""
    min_repeats: Annotated[int, Field(ge=2)] = 4
    """Times that a period must occur in a row to count."""
    ngram: Annotated[int, Field(ge=2)] = 20
    """Length of the runs of tokens of which duplicates are counted over the whole response."""
    max_duplicates: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of duplicate runs up to which nothing is deducted."""

    @property
    def largest_penalty(self) -> float:
        return self.weight

    def rank_margin(self, largest_miss: int) -> float:
        return self.correct_from - self.weight


ShapingConfig = Annotated[
    NoShapingConfig
    | ThinkDialConfig
    | KimiConfig
    | AdaCtrlConfig
    | L1ExactConfig
    | L1MaxConfig
    | O1PrunerConfig
    | AdaptThinkConfig
    | TriangleConfig
    | OverlongConfig
    | RepetitionConfig,
    Field(discriminator="type"),
]
PenaltyConfig = Annotated[OverlongConfig | RepetitionConfig, Field(discriminator="type")]
