"""What `parity_trl.py` compares: TRL's settings, ours for the same objective, and where the conventions differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from rl.losses.config import LossConfig

CONFIG: TypeAdapter[Any] = TypeAdapter(LossConfig)
LENGTH = 24  # longest completion, and the constant of dr_grpo
CLIP = {"epsilon": 0.2, "epsilon_high": 0.28}
SEQUENCE_CLIP = {"epsilon": 0.01, "epsilon_high": 0.015, "importance_sampling_level": "sequence"}
SEQUENCE_BOUNDS = {"clip_low": 0.01, "clip_high": 0.015}
PPO: dict[str, Any] = {"type": "ppo_clip"}
SEQUENCE_MEAN = {"type": "sequence_mean"}
CORRECTED = {"vllm_importance_sampling_correction": True}
UNCORRECTED = {"vllm_importance_sampling_correction": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One comparison. `credit` names our estimator, `step` is the size of the random step between the two policies."""

    name: str
    trl: Mapping[str, Any]
    ours: Mapping[str, Any]
    credit: str = "grpo"
    note: str = ""
    step: float = 0.01
    uses_sampler: bool = False
    is_rloo: bool = field(default=False)

    @property
    def config(self) -> Any:
        return CONFIG.validate_python(self.ours)


def _loss(name: str, **options: Any) -> Case:
    return Case(name=name, trl=CLIP | UNCORRECTED | options.pop("trl"), **options)


def _correction(mode: str, bounds: Mapping[str, float], ours: Mapping[str, Any], note: str = "") -> Case:
    settings = {"loss_type": "dapo", "vllm_importance_sampling_mode": mode} | {
        f"vllm_importance_sampling_clip_{side}": bounds.get(side) for side in ("min", "max")
    }
    return Case(
        name=f"correction {mode}", trl=CLIP | CORRECTED | settings, ours=PPO | {"correction": ours}, note=note,
        uses_sampler=True,
    )  # fmt: skip


CASES: tuple[Case, ...] = (
    _loss("grpo", trl={"loss_type": "grpo"}, ours=PPO | {"aggregation": SEQUENCE_MEAN}),
    _loss(
        "grpo, rewards unscaled",
        trl={"loss_type": "grpo", "scale_rewards": "none"},
        ours=PPO | {"aggregation": SEQUENCE_MEAN},
        credit="dr_grpo",
    ),
    _loss(
        "grpo, rewards scaled by the batch",
        trl={"loss_type": "grpo", "scale_rewards": "batch"},
        ours=PPO | {"aggregation": SEQUENCE_MEAN},
        credit="batch_scaled",
    ),
    _loss(
        "dr_grpo",
        trl={"loss_type": "dr_grpo", "scale_rewards": "none"},
        ours=PPO | {"aggregation": {"type": "dr_grpo", "length": LENGTH}},
        credit="dr_grpo",
        note="their constant is max_completion_length, ours aggregation.length",
    ),
    _loss("dapo", trl={"loss_type": "dapo"}, ours=PPO, note="aggregation token_mean is our default"),
    _loss(
        "bnpo",
        trl={"loss_type": "bnpo"},
        ours=PPO,
        note="they divide by the tokens of the micro-batch, we by those of the step: equal with one micro-batch",
    ),
    _loss(
        "two-sided clip",
        trl={"loss_type": "dapo", "delta": 1.3},
        ours=PPO | {"dual_clip": 1.3},
        note="their delta caps the ratio for both signs; for A > 0 the clip at 1 + clip_high is below it",
        step=0.03,
    ),
    _loss(
        "cispo",
        trl={"loss_type": "cispo", "epsilon_high": 1.2},
        ours={"type": "cispo", "max_ratio": 1.2},
        note="epsilon_high is the cap itself, as max_ratio",
        step=0.03,
    ),
    _loss(
        "sapo",
        trl={"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
        ours={"type": "sapo"},
    ),
    _loss(
        "gspo",
        trl={"loss_type": "grpo"} | SEQUENCE_CLIP,
        ours={"type": "gspo"} | SEQUENCE_BOUNDS,
        note="their importance_sampling_level = sequence",
    ),
    _loss(
        "gspo, token form",
        trl={"loss_type": "grpo"} | SEQUENCE_CLIP,
        ours={"type": "gspo", "token": True} | SEQUENCE_BOUNDS,
        note="theirs is not the token form; value and gradient are equal for one advantage a sequence",
    ),
    _loss(
        "luspo",
        trl={"loss_type": "luspo"} | SEQUENCE_CLIP,
        ours={"type": "gspo", "aggregation": {"type": "dr_grpo", "length": 1}} | SEQUENCE_BOUNDS,
        note="sum over tokens in the place of the mean",
    ),
    _loss(
        "kl k3",
        trl={"loss_type": "dapo", "beta": 0.1, "use_bias_correction_kl": False},
        ours=PPO | {"kl": {"estimator": "k3", "placement": "loss", "coefficient": 0.1}},
        note="with use_bias_correction_kl = False",
    ),
    _loss(
        "kl k3, unbiased",
        trl={"loss_type": "grpo", "beta": 0.1, "use_bias_correction_kl": True},
        ours=PPO
        | {
            "aggregation": SEQUENCE_MEAN,
            "kl": {"estimator": "k3", "placement": "loss", "coefficient": 0.1, "unbiased": True},
        },
    ),
    _loss(
        "top entropy tokens",
        trl={"loss_type": "dapo", "top_entropy_quantile": 0.2},
        ours=PPO | {"entropy": {"type": "top_fraction", "fraction": 0.2}},
        note="they choose within a micro-batch, we over the step: equal with one micro-batch",
    ),
    _loss(
        "entropy bonus",
        trl={"loss_type": "dapo", "entropy_coef": 0.05},
        ours=PPO | {"entropy": {"type": "bonus", "coefficient": 0.05}},
        note="a mean over tokens on both sides, of the micro-batch there, of the step here",
    ),
    _correction("token_truncate", {"max": 1.05}, {"type": "token_tis", "high": 1.05}),
    _correction(
        "token_truncate", {"min": 0.95, "max": 1.05}, {"type": "clamp_tis", "low": 0.95, "high": 1.05}, "with clip_min"
    ),
    _correction("token_mask", {"min": 0.95, "max": 1.05}, {"type": "icepop", "low": 0.95, "high": 1.05}),
    _correction("sequence_truncate", {"max": 1.1}, {"type": "sequence_tis", "high": 1.1}),
    _correction("sequence_mask", {"max": 1.1}, {"type": "sequence_mis", "high": 1.1}),
    Case(
        name="gspo and sequence_mask",
        trl=SEQUENCE_CLIP
        | CORRECTED
        | {
            "loss_type": "grpo",
            "vllm_importance_sampling_mode": "sequence_mask",
            "vllm_importance_sampling_clip_max": 1.1,
        },
        ours={"type": "gspo", "correction": {"type": "sequence_mis", "high": 1.1}} | SEQUENCE_BOUNDS,
        uses_sampler=True,
    ),
    Case(
        name="rloo",
        trl={"beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28},
        ours={"type": "rloo", "clip_low": 0.2, "clip_high": 0.28},
        credit="rloo",
        is_rloo=True,
        note="they subtract sums of log-probabilities, about 100 nats, which costs digits; we sum differences",
    ),
    Case(
        name="rloo, kl in the reward",
        trl={"beta": 0.05, "epsilon": 0.2, "epsilon_high": 0.28},
        ours={
            "type": "rloo",
            "clip_low": 0.2,
            "clip_high": 0.28,
            "kl": {"estimator": "k1", "placement": "reward", "coefficient": 0.05},
        },
        credit="rloo",
        is_rloo=True,
        note="their k1 is taken under the learner before the step, ours under the sampler: equal for equal numbers",
    ),
)
