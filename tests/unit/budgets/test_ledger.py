"""The ledger: what is booked, when a ceiling stops the run, and that a resumed run keeps counting."""

from __future__ import annotations

from typing import Any

import pytest

from budgets.config import CeilingsConfig
from budgets.ledger import Ledger
from tests.fakes.budgets import attempt, group_of


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def ledger(clock: Clock | None = None, **ceilings: Any) -> Ledger:
    return Ledger(CeilingsConfig(**ceilings), clock=clock or Clock())


def test_tokens_are_booked_per_effort_and_forced_ones_are_not() -> None:
    book = ledger()
    book.charge_generated(
        group_of([attempt(0, length=10, answer="4"), attempt(1, length=7, answer="4")], effort="high")
    )
    book.charge_generated(group_of([attempt(0, length=5, answer="4")], effort="low"))
    book.charge_judged(3)
    values = {m.name: m.value for m in book.metrics()}
    assert values["ledger/generated_tokens/high"] == 17 and values["ledger/generated_tokens/low"] == 5
    assert (book.generated_tokens, book.judge_calls) == (22, 3)
    assert book.breach() is None


@pytest.mark.parametrize(
    ("ceilings", "name"),
    [
        ({"max_generated_tokens": 10}, "max_generated_tokens"),
        ({"max_judge_calls": 1}, "max_judge_calls"),
        ({"max_seconds": 4.5}, "max_seconds"),
    ],
)
def test_a_ceiling_is_named_when_reached(ceilings: dict[str, float], name: str) -> None:
    clock = Clock()
    book = ledger(clock, **ceilings)
    assert book.breach() is None
    book.charge_generated(group_of([attempt(0, length=10, answer="4")], effort="high"))
    book.charge_judged(1)
    clock.now += 4.5
    breach = book.breach()
    assert breach is not None and breach.name == name and breach.ceiling == ceilings[name] <= breach.spent


def test_a_resumed_ledger_continues() -> None:
    clock = Clock()
    first = ledger(clock)
    first.charge_generated(group_of([attempt(0, length=10, answer="4")], effort="high"))
    first.charge_judged(2)
    clock.now += 30
    state = dict(first.state_dict())
    clock.now += 1000  # the machine was off
    second = ledger(clock, max_seconds=50)
    clock.now += 7  # start-up before the checkpoint is read is not training
    second.load_state_dict(state)
    assert (second.generated_tokens, second.judge_calls, second.seconds) == (10, 2, 30)
    clock.now += 20
    assert second.breach() is not None


def test_a_negative_number_of_calls_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        ledger().charge_judged(-1)
