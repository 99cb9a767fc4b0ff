"""The effort schedule: shares per phase, reproducible draws, resume, and the rules of its settings."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pydantic import ValidationError

from budgets.config import BudgetsConfig
from budgets.decay import tokens_at
from budgets.effort import EffortSchedule, budget_at, draw_number, mix_at, token_budgets

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
        ({"shaping": {"type": "thinkdial", "leak": 1.2}}, "or lower alpha or leak, or set allow_rank_inversion"),
        ({"shaping": {"type": "adacontrol"}}, "does not match any of the expected tags"),
        ({"budget": 3}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_settings_say_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(**changes)


# -------------------------------------------------------------------------- numbers, stages, what is put in

NUMERIC = {"instruction": "At most {tokens}.", "numbers": {"low": 10, "high": 40}, "max_answer_tokens": 8}


def test_a_numeric_effort_draws_a_number_for_every_job_and_names_it() -> None:
    schedule = EffortSchedule(settings(efforts={"number": NUMERIC}), seed=4)
    drawn = [schedule.next(1) for _ in range(600)]
    assert {b.target_tokens for b in drawn} == set(range(10, 41))
    assert all(
        b.instruction == f"At most {b.target_tokens}." and b.max_thinking_tokens == b.target_tokens for b in drawn
    )
    assert {b.effort for b in drawn} == {"number"}
    evaluated = token_budgets(settings(efforts={"number": NUMERIC}))["number"]
    assert (evaluated.target_tokens, evaluated.instruction) == (40, "At most 40.")


def test_a_number_that_is_only_said_leaves_the_cap() -> None:
    said = {**NUMERIC, "numbers": {"low": 10, "high": 40, "is_cap": False, "evaluate": 20}, "max_thinking_tokens": 99}
    budget = token_budgets(settings(efforts={"number": said}))["number"]
    assert (budget.target_tokens, budget.max_thinking_tokens, budget.instruction) == (20, 99, "At most 20.")


def test_log_spacing_draws_every_order_of_magnitude_alike() -> None:
    numbers = settings(efforts={"n": {**NUMERIC, "numbers": {"low": 10, "high": 9999, "spacing": "log"}}})
    config = numbers.efforts["n"].numbers
    assert config is not None
    drawn = [draw_number(config, (i + 0.5) / 3000) for i in range(3000)]
    assert min(drawn) == 10 and max(drawn) <= 9999
    shares = Counter(len(str(n)) for n in drawn)
    assert [shares[k] for k in (2, 3, 4)] == pytest.approx([1000] * 3, abs=2)


def test_a_resumed_schedule_draws_the_same_numbers() -> None:
    config = settings(efforts={"number": NUMERIC, "low": EFFORTS["low"]})
    straight, first, second = (EffortSchedule(config, seed=7) for _ in range(3))
    expected = [straight.next(1) for _ in range(40)]
    begun = [first.next(1) for _ in range(15)]
    second.load_state_dict(first.state_dict())
    assert [*begun, *(second.next(1) for _ in range(25))] == expected


def test_stages_shrink_the_cap_and_the_instruction_says_so() -> None:
    high = {
        "instruction": "At most {tokens}.",
        "max_thinking_tokens": 80,
        "stages": [{"from_step": 3, "max_thinking_tokens": 60}, {"from_step": 6, "max_thinking_tokens": 40}],
    }
    config = settings(efforts={"high": high})
    found = [budget_at(config, "high", step=step) for step in (1, 3, 5, 6, 99)]
    assert [b.max_thinking_tokens for b in found] == [80, 60, 60, 40, 40]
    assert found[1].instruction == "At most 60." and token_budgets(config)["high"].max_thinking_tokens == 40


def test_what_is_put_in_reaches_the_job() -> None:
    easy = {"prefix": "[Easy]", "opens_thinking": True, "forced_close": "so</think>", "max_answer_tokens": 8}
    budget = token_budgets(settings(efforts={"easy": easy}))["easy"]
    assert (budget.prefix, budget.opens_thinking, budget.forced_close) == ("[Easy]", True, "so</think>")
    assert budget.target_tokens is None


@pytest.mark.parametrize(
    ("effort", "message"),
    [
        ({**NUMERIC, "instruction": "Be brief."}, r"put \{tokens\} into its instruction"),
        ({**NUMERIC, "numbers": {"low": 9, "high": 3}}, "low <= high"),
        ({"stages": [{"from_step": 4}, {"from_step": 4}]}, "increasing steps"),
    ],
)
def test_impossible_efforts_say_what_is_wrong(effort: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(efforts={"high": effort})


# ------------------------------------------------------------------------------------------------ decay


@pytest.mark.parametrize(
    ("share", "tokens"),
    [(0, 800), (0.25, 534), (0.3, 493), (0.5, 357), (0.7, 259), (0.75, 239), (0.9, 187), (1, 160), (2, 160)],
)
def test_the_budget_falls_by_a_power(share: float, tokens: int) -> None:
    assert tokens_at(share * 400, 400, first=800, least=1, factor=0.2) == tokens


def test_a_falling_number_is_said_and_is_no_cap() -> None:
    decay = {"first": 100, "factor": 0.1, "least": 20, "steps": 10}
    told = {"instruction": "{tokens} tokens", "max_thinking_tokens": 200, "max_answer_tokens": 8, "decay": decay}
    config = settings(efforts={"told": told})
    said = [budget_at(config, "told", step=step) for step in (1, 6, 11, 99)]
    assert [b.instruction for b in said] == ["100 tokens", "31 tokens", "20 tokens", "20 tokens"]
    assert [(b.target_tokens, b.max_thinking_tokens) for b in said] == [(n, 200) for n in (100, 31, 20, 20)]
    assert token_budgets(config)["told"].target_tokens == 20


@pytest.mark.parametrize(
    ("effort", "message"),
    [
        ({"instruction": "think", "decay": {"steps": 3}}, "must name them"),
        ({"instruction": "{tokens}", "decay": {"steps": 3}, "numbers": {"low": 1, "high": 2}}, "not both"),
    ],
)
def test_a_decay_that_says_nothing_is_refused(effort: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings(efforts={"told": effort})
