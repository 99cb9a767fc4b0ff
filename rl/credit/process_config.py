"""Settings of process credit: how step scores enter the advantages. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PositiveFloat, Tag


class Section(BaseModel):
    """A closed, frozen part of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ProcessSection(Section):
    """What every rule declares, so that it can be checked before anything starts."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob", "logratio", "q"})
    kind_remedy: ClassVar[str] = ""  # what to do about scores of another kind
    is_per_token: ClassVar[bool] = True  # the tokens of one answer may get different advantages

    on_alarm: Literal["warn", "off", "stop"] = "warn"
    """What an alarm of reward hacking does besides its warning: nothing, credit by outcome alone for the rest of the
    run, or the end of the run, with everything saved."""


class StepTerm(ProcessSection):
    """A term that is added to the outcome advantage, token by token."""

    weight: float = Field(default=1.0, gt=0, le=1)
    """Advantage per unit of the rule's own result; at most 1, so that the outcome leads."""

    share: PositiveFloat = 0.5
    """Largest root mean square of the term, as a share of the outcome advantage's, over the batch's loss tokens."""

    on_all_wrong: bool = False
    """Also apply the term to groups without a single right answer, where it would be the only signal."""


class CenteredSteps(StepTerm):
    """Each step's score above the group's mean score, on that step alone."""

    type: Literal["centered"] = "centered"
    """Selects this rule; it is the one taken when no type is given."""

    weight: float = Field(gt=0, le=1)
    """Advantage per unit of step score above the group's mean step score; at most 1, so that the outcome leads."""

    cap: PositiveFloat = 0.5
    """Largest absolute value of the step term, in units of advantage."""


class GroupReturns(StepTerm):
    """Sums of later step scores, normalized over the group (DeepSeekMath's process supervision). Pays for steps."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob", "logratio"})
    kind_remedy: ClassVar[str] = "a cumulative score would be summed twice: use progress, or kind = 'logratio'"

    type: Literal["group_returns"]
    """Selects this rule."""


class LeaveOneOutReturns(StepTerm):
    """Sums of later step scores above the mean score of the other siblings (PRIME)."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob", "logratio"})
    kind_remedy: ClassVar[str] = "a cumulative score would be summed twice: set kind = 'logratio'"

    type: Literal["leave_one_out"]
    """Selects this rule."""

    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per step, or per token where every token is scored."""

    batch_norm: bool = False
    """Divide the scores by the largest absolute return of the batch."""


class MinForm(StepTerm):
    """The value of an answer is its worst step (PURE)."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob"})
    kind_remedy: ClassVar[str] = "the worst of unbounded scores has no scale: use leave_one_out or progress"

    type: Literal["min_form"]
    """Selects this rule."""

    temperature: PositiveFloat = 0.1
    """Softness of the minimum; towards 0 it is the minimum."""

    strict: bool = False
    """A step's return is also at most that of every later step."""

    baseline: Literal["token", "answer"] = "token"
    """Value of the other siblings per token, which taxes or pays length, or per answer, which does not."""


class ClippedSteps(StepTerm):
    """Sums of what later scores lack below a threshold: never positive, so more steps earn nothing."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob", "logratio"})
    kind_remedy: ClassVar[str] = "a cumulative score would be summed twice: use progress"

    type: Literal["clip"]
    """Selects this rule."""

    threshold: float | None = None
    """Score from which a step loses nothing; none takes the batch's mean score."""


class DeltaSteps(StepTerm):
    """Differences of neighboring scores, whose sums telescope to each step's own score."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob", "logratio"})
    kind_remedy: ClassVar[str] = "a cumulative score is no score of one step: use progress"

    type: Literal["delta"]
    """Selects this rule."""

    clip: bool = False
    """Clip the scores at the threshold first."""

    threshold: float | None = None
    """With clip: score from which a step loses nothing; none takes the batch's mean score."""


class Progress(StepTerm):
    """What a step adds to the value of the attempt (process advantage verifiers)."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob", "q"})
    kind_remedy: ClassVar[str] = "an increment is a difference already: use leave_one_out, or kind = 'q'"

    type: Literal["progress"]
    """Selects this rule."""

    best_of: int = Field(default=1, ge=1, le=64)
    """Attempts of the prover whose best counts: values v become 1 - (1 - v) ** best_of; more than 1 needs kind prob."""


class StepFilter(ProcessSection):
    """Trains on a part of each group, chosen by step scores; rewards stay 0 and 1 (PROF)."""

    is_per_token: ClassVar[bool] = False

    type: Literal["filter"]
    """Selects this rule."""

    keep: float = Field(default=0.5, gt=0, lt=1)
    """Share of a group's judged answers that train."""

    right_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of right answers among those kept, as far as there are enough; none keeps the group's own."""


class FirstError(ProcessSection):
    """Penalizes a wrong answer from its first error on, and spares the right steps before it (VPPO)."""

    score_kinds: ClassVar[frozenset[str]] = frozenset({"prob"})
    kind_remedy: ClassVar[str] = "an error is a step of low probability: use a scorer of kind prob, or leave_one_out"

    type: Literal["first_error"]
    """Selects this rule."""

    threshold: float = Field(default=0.5, gt=0, le=1)
    """Score below which a step is an error."""

    prefix: float = Field(default=0.0, ge=0, le=1)
    """Advantage of the right steps of a wrong answer, as a share of its penalty's size; 0 leaves them alone."""


class RewardShaping(ProcessSection):
    """Step scores order the answers within right and within wrong, never across (Qwen2.5-Math)."""

    is_per_token: ClassVar[bool] = False

    type: Literal["shaping"]
    """Selects this rule."""

    alpha: PositiveFloat = 0.5
    """Steepness of the sigmoid over an answer's score."""

    aggregate: Literal["min", "mean", "last", "sum"] = "min"
    """How an answer's score comes from its steps'."""


def _type_of(value: Any) -> Any:
    return value.get("type", "centered") if isinstance(value, dict) else getattr(value, "type", None)


ProcessCredit = Annotated[
    Annotated[CenteredSteps, Tag("centered")]
    | Annotated[GroupReturns, Tag("group_returns")]
    | Annotated[LeaveOneOutReturns, Tag("leave_one_out")]
    | Annotated[MinForm, Tag("min_form")]
    | Annotated[ClippedSteps, Tag("clip")]
    | Annotated[DeltaSteps, Tag("delta")]
    | Annotated[Progress, Tag("progress")]
    | Annotated[StepFilter, Tag("filter")]
    | Annotated[FirstError, Tag("first_error")]
    | Annotated[RewardShaping, Tag("shaping")],
    Discriminator(_type_of),
]
