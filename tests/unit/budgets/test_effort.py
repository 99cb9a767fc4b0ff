"""The effort schedule: shares per phase, reproducible draws, resume, and the rules of its settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from budgets.config import BudgetsConfig
from budgets.effort import EffortSchedule, mix_at, token_budgets

EFFORTS = {
    "high": {"instruction": "<high>", "max_thinking_tokens": 80, "max_answer_tokens": 8, "weight": 2.0},
    "medium": {"instruction": "<medium>", "max_thinking_tokens": 20, "max_answer_tokens": 8},
    "low": {"instruction": "<low>", "max_thinking_tokens": 0, "max_answer_tokens": 8},
}
PHASES = [{"until_step": 3, "mix": {"high": 1.0}}, {"until_step": 5, "mix": {"low": 3.0, "medium": 1.0}}]


def settings(**changes: Any) -> BudgetsConfig:
    return BudgetsConfig.model_validate({"efforts": EFFORTS, "max_prompt_tokens": 32, **changes})


def test_budgets_carry_the_settings() -> None:
    budget = token_budgets(settings())["low"]
    assert (budget.effort, budget.instruction, budget.max_thinking_tokens) == ("low", "<low>", 0)
    assert (budget.max_prompt_tokens, budget.max_answer_tokens) == (32, 8)


@pytest.mark.parametrize(
    ("step", "mix"),
    [
        (1, {"high": 1.0, "medium": 0.0, "low": 0.0}),
        (3, {"high": 1.0, "medium": 0.0, "low": 0.0}),
        (4, {"high": 0.0, "medium": 0.25, "low": 0.75}),
        (6, {"high": 0.5, "medium": 0.25, "low": 0.25}),
    ],
)
def test_mix_of_a_step(step: int, mix: dict[str, float]) -> None:
    assert mix_at(settings(phases=PHASES), step) == mix


def test_draws_follow_the_mix_and_never_leave_it() -> None:
    schedule = EffortSchedule(settings(phases=PHASES), seed=3)
    assert {schedule.next(1).effort for _ in range(200)} == {"high"}
    second = Counter(schedule.next(4).effort for _ in range(2000))
    assert set(second) == {"low", "medium"} and abs(second["low"] / 2000 - 0.75) < 0.04
    last = Counter(schedule.next(9).effort for _ in range(2000))
    assert abs(last["high"] / 2000 - 0.5) < 0.04 and set(last) == set(EFFORTS)


def test_a_resumed_schedule_continues_the_same_draws() -> None:
    straight = EffortSchedule(settings(), seed=7)
    expected = [straight.next(1).effort for _ in range(60)]
    interrupted = EffortSchedule(settings(), seed=7)
    drawn = [interrupted.next(1).effort for _ in range(25)]
    resumed = EffortSchedule(settings(), seed=7)
    resumed.load_state_dict(interrupted.state_dict())
    assert drawn + [resumed.next(1).effort for _ in range(35)] == expected
    assert expected != [EffortSchedule(settings(), seed=8).next(1).effort for _ in range(60)]


def test_a_state_of_another_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed 1 and this run has seed 2"):
        EffortSchedule(settings(), seed=2).load_state_dict(EffortSchedule(settings(), seed=1).state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"efforts": {}}, "at least 1 item"),
        ({"efforts": {"low": {"weight": 0}}}, "must not all be 0"),
        ({"phases": [{"until_step": 2, "mix": {"turbo": 1}}]}, r"unknown efforts \['turbo'\]"),
        ({"phases": [{"until_step": 2, "mix": {"low": 0}}]}, "must not all be 0"),
        ({"phases": PHASES[::-1]}, "increasing steps"),
        ({"shaping": {"type": "thinkdial", "alpha": {"low": 1}}}, r"\['high', 'medium'\] missing"),
        ({"shaping": {"type": "thinkdial", "alpha": {"low": 1, "tiny": 1}}}, r"unknown efforts \['tiny'\]"),
        ({"shaping": {"type": "thinkdial", "keywords": []}}, "at least one keyword"),
        ({"shaping": {"type": "thinkdial", "rank_safe": True, "leak": 1.0}}, "Lower alpha or leak"),
        ({"shaping": {"type": "adactrl"}}, "does not match any of the expected tags"),
        ({"budget": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)
