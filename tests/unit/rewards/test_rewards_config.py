from __future__ import annotations

import pytest
from pydantic import ValidationError

from rewards.config import RewardsConfig


def test_the_default_is_the_tasks_own_verifier() -> None:
    assert RewardsConfig().components["answer"].verifier == "task"


@pytest.mark.parametrize(
    "settings",
    [
        {"components": {}},
        {"components": {"a": {"weight": 0}}},
        {"components": {"a": {"wieght": 1}}},
        {"sandbox": {"num_workers": 0}},
        {"unknown": 1},
        {"deadline_s": 1.0, "sandbox": {"max_seconds": 3.0}},
    ],
)
def test_what_cannot_work_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RewardsConfig.model_validate(settings)


def test_settings_need_a_verifier_of_their_own() -> None:
    with pytest.raises(ValidationError, match="settings belong to one verifier"):
        RewardsConfig.model_validate({"components": {"a": {"settings": {"threshold": 1}}}})
