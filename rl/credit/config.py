"""Settings of the advantage estimators. Imports pydantic only.

What an estimator needs from the rest of a run is declared here, as class variables, so that the rules between sections
can be checked before anything starts.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from rl.credit.process_config import ProcessCredit, Section


class _Estimator(Section):
    compares_siblings: ClassVar[bool] = True  # the baseline is the siblings', so a lone attempt has no signal
    needs_equal_rewards: ClassVar[bool] = False  # a group of equal rewards carries signal and must not be dropped
    needs_greedy_baseline: ClassVar[bool] = False  # every group needs one greedy attempt beside its siblings
    reads_final_reward: ClassVar[bool] = True  # False: terms added to the reward, such as a KL penalty, have no effect

    @property
    def reads_steps(self) -> bool:
        """Whether it needs step scores."""
        return False

    def gives_token_advantages(self, *, kl_in_reward: bool) -> bool:
        """Whether the tokens of one answer may have different advantages, which a sequence loss cannot take."""
        return False


class _WithProcess(_Estimator):
    process: ProcessCredit | None = None
    """How step scores join, or none for outcome credit alone."""

    @property
    def reads_steps(self) -> bool:
        return self.process is not None

    def gives_token_advantages(self, *, kl_in_reward: bool) -> bool:
        return self.process is not None and self.process.is_per_token


class GrpoCredit(_WithProcess):
    """Group-relative advantage divided by the group's standard deviation."""

    type: Literal["grpo"] = "grpo"
    """Selects this rule."""

    epsilon: PositiveFloat = 1e-6
    """Added to the standard deviation, so that a group without variance divides by something."""


class DrGrpoCredit(_WithProcess):
    """Group-relative advantage without the division by the standard deviation."""

    type: Literal["dr_grpo"] = "dr_grpo"
    """Selects this rule."""


class BatchScaledCredit(_WithProcess):
    """Group-relative advantage divided by the standard deviation of the whole batch."""

    type: Literal["batch_scaled"] = "batch_scaled"
    """Selects this rule."""

    epsilon: PositiveFloat = 1e-4
    """Added to the standard deviation."""


class RlooCredit(_WithProcess):
    """Reward minus the mean of the other siblings."""

    type: Literal["rloo"] = "rloo"
    """Selects this rule."""


class ReinforcePlusPlusCredit(_Estimator):
    """Discounted return of every token, whitened over all tokens of the batch; no group baseline."""

    compares_siblings: ClassVar[bool] = False
    needs_equal_rewards: ClassVar[bool] = True

    type: Literal["reinforce_pp"] = "reinforce_pp"
    """Selects this rule."""

    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount per sampled token."""

    def gives_token_advantages(self, *, kl_in_reward: bool) -> bool:
        return kl_in_reward or self.gamma < 1


class ReinforceBaselineCredit(_WithProcess):
    """Group-relative advantage, whitened over all tokens of the batch (REINFORCE++-baseline)."""

    type: Literal["reinforce_pp_baseline"] = "reinforce_pp_baseline"
    """Selects this rule."""


class RemaxCredit(_WithProcess):
    """Reward minus the reward of a greedy attempt, which is generated for every group and not trained on."""

    compares_siblings: ClassVar[bool] = False
    needs_equal_rewards: ClassVar[bool] = True
    needs_greedy_baseline: ClassVar[bool] = True

    type: Literal["remax"] = "remax"
    """Selects this rule."""


class OpoCredit(_WithProcess):
    """Reward minus the length-weighted mean of the group."""

    type: Literal["opo"] = "opo"
    """Selects this rule."""


class GpgCredit(_WithProcess):
    """Group-relative advantage, scaled up by the share of attempts that carry any."""

    type: Literal["gpg"] = "gpg"
    """Selects this rule."""


class BestOfGroupCredit(_Estimator):
    """Only the best attempt of a group is credited, by how far it leads (pass@k)."""

    type: Literal["best_of_group"] = "best_of_group"
    """Selects this rule."""

    epsilon: PositiveFloat = 1e-6
    """Added to the standard deviation."""


class WeightedReinforceCredit(_Estimator):
    """Fixed weights for right and wrong answers, without a baseline (W-REINFORCE, NSR, PSR)."""

    compares_siblings: ClassVar[bool] = False
    needs_equal_rewards: ClassVar[bool] = True
    reads_final_reward: ClassVar[bool] = False

    type: Literal["w_reinforce"] = "w_reinforce"
    """Selects this rule."""

    positive: NonNegativeFloat = 0.1
    """Advantage of a right answer; 0 with negative = 1 is NSR."""

    negative: NonNegativeFloat = 1.0
    """Minus the advantage of a wrong answer; 0 with positive = 1 is PSR."""

    @model_validator(mode="after")
    def _something_is_learned(self) -> WeightedReinforceCredit:
        if self.positive == self.negative == 0:
            raise ValueError(
                "credit.positive and credit.negative are both 0, so no answer has an advantage; raise one of them"
            )
        return self


class GdpoCredit(_Estimator):
    """Every reward component normalized within the group, then summed, then normalized over the batch."""

    reads_final_reward: ClassVar[bool] = False

    type: Literal["gdpo"] = "gdpo"
    """Selects this rule."""

    weights: dict[str, PositiveFloat] = Field(default={"outcome": 1.0}, min_length=1)
    """Weight per component: `outcome`, `process` (mean step score), a shaping term, or a named part of the outcome."""

    epsilon: PositiveFloat = 1e-4
    """Added to both standard deviations."""

    process_on_all_wrong: bool = False
    """Also count `process` in groups without a single right answer, where it would be the only signal."""

    @property
    def reads_steps(self) -> bool:
        return "process" in self.weights


CreditConfig = Annotated[
    GrpoCredit
    | DrGrpoCredit
    | BatchScaledCredit
    | RlooCredit
    | ReinforcePlusPlusCredit
    | ReinforceBaselineCredit
    | RemaxCredit
    | OpoCredit
    | GpgCredit
    | BestOfGroupCredit
    | WeightedReinforceCredit
    | GdpoCredit,
    Field(discriminator="type"),
]
