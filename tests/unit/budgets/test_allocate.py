"""Worked group sizes and efforts by history; the state survives."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from budgets.allocate import HistoryAllocator, effort_place, group_size
from budgets.config import AllocationConfig, BudgetsConfig, EffortConfig
from rollout.schema import Job, Message, Sampling, Task, TokenBudget

CONFIG = AllocationConfig(min_siblings=2, max_siblings=16, effort=True, explore=0.0)
EFFORTS = {name: EffortConfig(max_thinking_tokens=n, max_answer_tokens=4) for name, n in (("high", 9), ("low", 1))}
BUDGETS = BudgetsConfig(efforts=EFFORTS)


@dataclass(frozen=True)
class Counted:
    num_right: int
    num_judged: int


def job(key: str = "a", *, seed: int = 0) -> Job:
    task = Task(key=key, prompt=(Message(role="user", content=key),), answer="1", verifier="exact", source="s")
    budget = TokenBudget(effort="high", max_prompt_tokens=8, max_thinking_tokens=9, max_answer_tokens=4)
    return Job(group_id="g", task=task, num_siblings=8, budget=budget, sampling=Sampling(seed=seed))


@pytest.mark.parametrize(("p", "size"), [(0.5, 5), (0.2, 11), (0.8, 11), (0.1, 16), (0.0, 16), (1.0, 16)])
def test_worked_group_sizes(p: float, size: int) -> None:
    """1 - .5^5 - .5^5 = .9375 >= .9 > 1 - .5^4 - .5^4 = .875; at .2 eleven siblings give .914, ten .893."""
    assert group_size(p, CONFIG) == size


@given(st.floats(0, 1), st.integers(1, 6))
def test_places_are_in_range_and_follow_the_difficulty(p: float, num_efforts: int) -> None:
    assert 0 <= effort_place(p, num_efforts) < num_efforts
    assert effort_place(0.0, num_efforts) == 0 and effort_place(1.0, num_efforts) == num_efforts - 1


def test_history_decides_and_a_new_task_keeps_what_was_drawn() -> None:
    allocator = HistoryAllocator(CONFIG, BUDGETS)
    assert allocator.allot(job(), 1) == job()
    allocator.observe(job().task, Counted(num_right=8, num_judged=8))  # p = 9 / 10: easy
    easy = allocator.allot(job(), 1)
    assert easy.budget.effort == "low" and easy.budget.max_thinking_tokens == 1 and easy.num_siblings == 16
    allocator.observe(job().task, Counted(num_right=0, num_judged=8))  # .2 * 8 of .2 * 8 + 8: p = 2.6 / 11.6
    hard = allocator.allot(job(), 1)
    assert hard.budget.effort == "high" and hard.num_siblings == group_size(2.6 / 11.6, CONFIG) == 10


def test_explored_jobs_keep_their_effort() -> None:
    allocator = HistoryAllocator(CONFIG.model_copy(update={"explore": 0.5}), BUDGETS)
    allocator.observe(job().task, Counted(num_right=8, num_judged=8))
    kept = [allocator.allot(job(seed=n), 1).budget.effort == "high" for n in range(400)]
    assert 0.4 < sum(kept) / 400 < 0.6
    assert kept == [allocator.allot(job(seed=n), 1).budget.effort == "high" for n in range(400)]


def test_state_survives_json() -> None:
    allocator = HistoryAllocator(CONFIG, BUDGETS)
    for n in range(5):
        allocator.observe(job(str(n)).task, Counted(num_right=n, num_judged=5))
        allocator.allot(job(str(n)), 1)
    again = HistoryAllocator(CONFIG, BUDGETS)
    again.load_state_dict(json.loads(json.dumps(allocator.state_dict())))
    for n in range(6):
        assert again.allot(job(str(n)), 2) == allocator.allot(job(str(n)), 2)
    assert again.metrics() == allocator.metrics()
    assert replace(job(), num_siblings=8) == job()
