"""Settings of the learner: bounds, rules across fields, the learning-rate schedule."""

from typing import Any

import pytest
from pydantic import ValidationError

from rl.learner.actor import start_learner
from rl.learner.config import LearnerConfig, ScratchModel
from rl.learner.schedule import learning_rate
from rl.learner.zero import deepspeed_config
from rl.losses.config import DrGrpo, PpoClip


@pytest.mark.parametrize("model", [LearnerConfig, ScratchModel])
def test_a_section_has_at_most_twenty_fields_and_each_is_explained(model: type[Any]) -> None:
    assert len(model.model_fields) <= 20
    undocumented = [name for name, field in model.model_fields.items() if name != "type" and not field.description]
    assert not undocumented


def test_bfloat16_needs_sharded_master_weights() -> None:
    with pytest.raises(ValidationError, match="dtype bfloat16 needs zero_stage >= 1"):
        LearnerConfig(dtype="bfloat16", zero_stage=0)
    assert LearnerConfig(dtype="bfloat16", zero_stage=1).zero_stage == 1


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_the_learner_refuses_a_temperature_that_samples_nothing(temperature: float) -> None:
    """Before any process is started: log-probabilities of a greedy choice are no policy."""
    options: dict[str, Any] = {"log_dir": "nowhere", "seed": 0, "total_steps": 1}
    with pytest.raises(ValueError, match=rf"temperature must be above 0, got {temperature}"):
        start_learner(LearnerConfig(), PpoClip(), "nowhere", temperature=temperature, **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 129, "num_heads": 4}, r"multiple of 2 \* num_heads"),
        ({"characters": "0120"}, "must not repeat"),
        ({"special_tokens": ("<eos>",)}, "special tokens must be distinct"),
        ({"special_tokens": ("h",)}, "longer than one character"),
    ],
)
def test_impossible_scratch_models_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScratchModel(**changes)


def test_an_aggregation_owns_its_options() -> None:
    loss = PpoClip.model_validate({"aggregation": {"type": "dr_grpo", "length": 80}})
    assert loss.aggregation == DrGrpo(length=80)
    with pytest.raises(ValidationError):
        PpoClip.model_validate({"aggregation": {"type": "token_mean", "length": 80}})


# lr 1, 2 warm-up steps, 6 steps in all, floor 0.1: progress after the warm-up is 0, 1/3, 2/3, 1.
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.7, 0.4, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.775, 0.325, 0.1]),
    ],
)
def test_learning_rate_by_hand(schedule: Any, expected: list[float]) -> None:
    config = LearnerConfig(lr=1.0, warmup_steps=2, schedule=schedule, final_lr_fraction=0.1)
    assert [learning_rate(config, step, 6) for step in range(6)] == pytest.approx(expected)
    assert learning_rate(config, 99, 6) == pytest.approx(expected[-1])


def test_reduction_buckets_are_no_larger_than_the_model() -> None:
    settings = deepspeed_config(LearnerConfig(zero_stage=2), num_parameters=1000)
    assert settings["zero_optimization"]["reduce_bucket_size"] == 1000
