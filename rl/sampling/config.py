"""Settings of the samplers: which task next. Imports pydantic only."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class _Sampler(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class UniformSampling(_Sampler):
    """Every task once per epoch."""

    type: Literal["uniform"] = "uniform"
    """Selects this sampler."""


class VadeSampling(_Sampler):
    """The tasks whose next group is most likely to teach, by Thompson sampling from what earlier groups showed."""

    type: Literal["vade"]
    """Selects this sampler."""

    selected_decay: Share = 0.2
    """Factor on what was known of a task when its next group is counted: the policy has moved since (lambda 1)."""

    idle_decay: Annotated[float, Field(gt=0, le=1)] = 0.999
    """Factor per pick on what is known of a task that is not picked, so that belief returns to the prior (lambda 2)."""

    lag_decay: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Weight of a group's answers per batch that was published since it was sampled."""

    worth: Literal["hard", "symmetric"] = "hard"
    """What a success rate p is worth: p (1 - p)^2, which prefers tasks solved one time in three, or p (1 - p)."""

    draw: Literal["thompson", "mean"] = "thompson"
    """Whether p is drawn from the belief or is its mean, which does not explore."""

    uniform_share: Share = 0.05
    """Share of each pick that is drawn uniformly, whatever is believed."""

    candidates: Annotated[int, Field(ge=1024)] = 16384
    """Tasks that compete in one pick; of a larger pool half are tasks tried before and half are drawn from all."""


class CurriculumSampling(_Sampler):
    """From easy to hard, in stages, as fast as the success rate allows."""

    type: Literal["curriculum"]
    """Selects this sampler."""

    difficulty: Annotated[str, Field(min_length=1)] = "difficulty"
    """Entry of the tasks' meta that holds a number, larger for harder tasks."""

    max_stages: Annotated[int, Field(ge=2, le=100)] = 10
    """Most stages; with more different difficulties, neighbours share a stage."""

    lower: Share = 0.2
    """Success rate of a stage below which the stage before it comes back."""

    upper: Share = 0.7
    """Success rate of a stage from which the next one begins."""

    window: PositiveInt = 64
    """Groups of the current stage over which its success rate is taken, anew after each decision."""

    review: Share = 0.2
    """Share of each pick that comes from the stages before."""

    @model_validator(mode="after")
    def _band_has_room(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(
                f"the band of success rates needs lower < upper, got {self.lower} and {self.upper}; 0.2 and 0.7 are "
                f"usual"
            )
        return self


class RifSampling(_Sampler):
    """Leaves out the tasks that the policy's own rollouts show to be hopeless or solved."""

    type: Literal["rif"]
    """Selects this sampler."""

    probe: Share = 0.5
    """Share of each pick for tasks never tried, while there are some."""

    later: Share = 0.05
    """Share of each pick for tasks without a right answer last time, the longest untried first."""

    audit: Share = 0.02
    """Share of each pick for tasks that were all right last time, the longest untried first."""

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        if (total := self.probe + self.later + self.audit) > 1:
            raise ValueError(f"probe + later + audit must be at most 1, got {total:g}; lower one of them")
        return self


class StatSampling(_Sampler):
    """More of the skills that the policy lacks."""

    type: Literal["stat"]
    """Selects this sampler."""

    refresh_every: PositiveInt = 100
    """Picks after which the profile of missing skills is taken anew."""

    memory: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor on the counts of a skill at each refresh, so that the profile follows the policy."""

    uniform_share: Share = 0.1
    """Share of each pick that is spread evenly over all skills."""


class TierSampling(_Sampler):
    """Tiers of difficulty whose shares move from easy to hard at set steps (RMT's entropy curriculum)."""

    type: Literal["tiers"]
    """Selects this sampler."""

    difficulty: Annotated[str, Field(min_length=1)] = "difficulty"
    """Entry of the tasks' meta that holds the tier as a number, larger for harder tasks."""

    shares: tuple[Annotated[tuple[Share, ...], Field(min_length=2)], tuple[Share, ...]] = (
        (0.6, 0.3, 0.1),
        (0.1, 0.3, 0.6),
    )
    """Shares of the tiers, easiest first, before and after they move."""

    moves: tuple[Share, Share] = (0.3, 0.7)
    """Parts of the steps after which the shares begin to move and have moved."""

    steps: PositiveInt
    """Picks, of the tasks of one step each, that are the whole of it; usually loop.num_steps."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        before, after = self.shares
        if len(before) != len(after) or min(sum(before), sum(after)) <= 0:
            raise ValueError(
                f"shares need one share per tier, twice, not all of them 0, got {list(before)} and {list(after)}"
            )
        if self.moves[0] >= self.moves[1]:
            raise ValueError(f"moves = {list(self.moves)} must ascend; swap the two")
        return self


PlainSamplerConfig = Annotated[
    UniformSampling | VadeSampling | CurriculumSampling | RifSampling | StatSampling, Field(discriminator="type")
]


class QuotaSampling(_Sampler):
    """Fixed shares of domains; inside each domain another sampler chooses."""

    type: Literal["quotas"]
    """Selects this sampler."""

    by: Literal["source", "skill"] = "source"
    """What a domain is: the tasks of one source, or those with the same first skill."""

    shares: Annotated[dict[str, PositiveFloat], Field(min_length=1)]
    """Share of each domain, in any unit; every domain of the tasks needs one."""

    inner: PlainSamplerConfig = UniformSampling()
    """Sampler inside each domain."""


SamplerConfig = Annotated[
    UniformSampling | VadeSampling | CurriculumSampling | RifSampling | StatSampling | TierSampling | QuotaSampling,
    Field(discriminator="type"),
]
