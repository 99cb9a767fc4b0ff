"""Names of modes, and what each lets a job do."""

from __future__ import annotations

import pytest

from budgets.config import BudgetsConfig, EffortConfig
from budgets.modes import base_of, parse_modes
from tests.fakes.modes import BUDGETS


def limits(names: str, **options: object) -> list[tuple[str, int | None, int, bool]]:
    modes = parse_modes(names, BUDGETS, **options)  # type: ignore[arg-type]
    return [(m.kind, m.budget.max_thinking_tokens, m.budget.max_answer_tokens, m.budget.opens_thinking) for m in modes]


def test_every_kind_of_mode() -> None:
    assert limits("high,40,auto,on,off") == [
        ("effort", 60, 8, False),
        ("number", 40, 8, False),
        ("auto", None, 68, False),
        ("on", None, 68, True),
        ("off", 0, 8, False),
    ]
    modes = parse_modes(" low , 512 ", BUDGETS, numeric_instruction="max {tokens}")
    assert [m.budget.instruction for m in modes] == ["easy", "max 512"]
    assert [m.promised for m in modes] == [6, 512]
    assert all(m.budget.max_prompt_tokens == 64 and m.budget.effort == m.name for m in modes)


def test_a_cap_that_is_only_asked_for() -> None:
    (mode,) = parse_modes("512", BUDGETS, is_enforced=False)
    assert (mode.budget.max_thinking_tokens, mode.budget.max_answer_tokens, mode.promised) == (None, 520, 512)


def test_an_effort_goes_before_a_word() -> None:
    budgets = BudgetsConfig(efforts={"auto": EffortConfig(instruction="mine", max_thinking_tokens=5)})
    (mode,) = parse_modes("auto", budgets)
    assert (mode.kind, mode.budget.instruction) == ("effort", "mine")


@pytest.mark.parametrize("names", ["medium", "0", "-5", "99999999", "1e3", "high,,hgih"])
def test_what_is_no_mode_is_refused(names: str) -> None:
    with pytest.raises(ValueError, match=r"unknown mode .* an effort of the recipe \(high, low\), a number"):
        parse_modes(names, BUDGETS)


def test_modes_are_named_once() -> None:
    with pytest.raises(ValueError, match="low comes twice"):
        parse_modes("low,high,low", BUDGETS)
    with pytest.raises(ValueError, match="name at least one mode, such as --modes high,low,auto"):
        parse_modes(" , ", BUDGETS)


def test_the_base() -> None:
    modes = parse_modes("auto,low,high", BUDGETS)
    assert base_of(modes, None) == "low" and base_of(modes, "auto") == "auto"
    assert base_of(parse_modes("off,auto", BUDGETS), None) == "off"
    with pytest.raises(ValueError, match="one of the modes auto, low, high, got 'medium'"):
        base_of(modes, "medium")


def test_a_difficulty_tag_is_put_in() -> None:
    easy, hard = parse_modes("easy,hard", BUDGETS)
    assert (easy.kind, easy.budget.prefix, hard.budget.prefix) == ("easy", "[Easy]", "[Hard]")
    assert easy.budget.max_thinking_tokens is None and easy.promised is None


def test_a_number_is_said_as_in_training() -> None:
    efforts = {"n": EffortConfig.model_validate({"instruction": "<{tokens}>", "numbers": {"low": 1, "high": 9}})}
    (mode,) = parse_modes("12", BudgetsConfig(efforts=efforts))
    assert (mode.budget.instruction, mode.budget.target_tokens, mode.promised) == ("<12>", 12, 12)
