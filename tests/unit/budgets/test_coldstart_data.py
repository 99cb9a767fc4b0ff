"""Worked solutions drawn from tasks: order, mix, reuse and missing ones."""

from __future__ import annotations

from collections import Counter

import pytest

from budgets.coldstart_data import draw_demonstrations
from rollout.schema import Message, Task


def task(number: int, efforts: tuple[str, ...] = ("high", "low")) -> Task:
    return Task(
        key=str(number),
        prompt=(Message(role="user", content=f"{number}="),),
        answer=str(number),
        verifier="exact",
        source="fake",
        meta={"demonstrations": {e: {"thinking": f"{e} {number}", "answer": str(number)} for e in efforts}},
    )


TASKS = [task(n) for n in range(50)]


def test_every_task_is_used_before_any_is_used_again() -> None:
    drawn = list(draw_demonstrations(TASKS, mix={"high": 1, "low": 1}, num_draws=120, seed=0))
    rounds = [Counter(d.task.key for d in drawn[i : i + 50]) for i in (0, 50)]
    assert all(set(r.values()) == {1} and len(r) == 50 for r in rounds)
    assert len(drawn) == 120
    assert [d.task.key for d in drawn[:50]] != [d.task.key for d in drawn[50:100]]


def test_efforts_follow_the_mix_and_bring_their_own_solution() -> None:
    drawn = list(draw_demonstrations(TASKS, mix={"high": 3, "low": 1, "medium": 0}, num_draws=4000, seed=1))
    assert abs(Counter(d.effort for d in drawn)["high"] / 4000 - 0.75) < 0.03
    assert all((d.thinking, d.answer) == (f"{d.effort} {d.task.key}", d.task.key) for d in drawn)


def test_the_seed_decides() -> None:
    def keys(seed: int) -> list[str]:
        return [d.task.key for d in draw_demonstrations(TASKS, mix={"high": 1}, num_draws=30, seed=seed)]

    assert keys(4) == keys(4) != keys(5)


def test_a_task_without_a_solution_is_named() -> None:
    with pytest.raises(ValueError, match=r"task 7 .* no worked solution for effort 'medium'"):
        list(draw_demonstrations([task(7)], mix={"medium": 1}, num_draws=1, seed=0))
    with pytest.raises(ValueError, match="no task at all"):
        list(draw_demonstrations([], mix={"medium": 1}, num_draws=1, seed=0))
    with pytest.raises(ValueError, match="positive share"):
        list(draw_demonstrations(TASKS, mix={"high": 0}, num_draws=1, seed=0))


def test_efforts_that_only_some_tasks_show_are_drawn_from_those() -> None:
    tasks = [task(n, ("high", "low") if n % 5 == 0 else ("high",)) for n in range(50)]
    drawn = list(draw_demonstrations(tasks, mix={"high": 1, "low": 1}, num_draws=200, seed=0))
    low = [d.task.key for d in drawn if d.effort == "low"]
    assert abs(len(low) / 200 - 0.5) < 0.12
    assert all(int(key) % 5 == 0 for key in low)
    assert all(len(set(low[i : i + 10])) == 10 for i in range(0, len(low) - 9, 10))  # each once before any again


def test_what_is_written_before_the_thinking_comes_along() -> None:
    shown = {"high": {"thinking": "t", "answer": "1", "preface": "[Easy]"}}
    made = Task(
        key="1", prompt=TASKS[0].prompt, answer="1", verifier="exact", source="fake", meta={"demonstrations": shown}
    )
    (drawn,) = draw_demonstrations([made], mix={"high": 1}, num_draws=1, seed=0)
    assert drawn.preface == "[Easy]"
