"""The procedural task source `differences`: every line of every solution equals the answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.schema import task_key
from rollout.tasks.differences import generate, rewrites


def value(line: str) -> int:
    first, *steps = map(int, line.split("-"))
    return first - sum(steps)


def test_rewrites_of_a_known_difference() -> None:
    assert rewrites(41, [5, 7, 4]) == ["36-7-4", "29-4"]
    assert rewrites(9, [1, 2]) == ["8-2"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), min_terms=st.integers(3, 7), more=st.integers(0, 3))
def test_every_solution_is_right(seed: int, min_terms: int, more: int) -> None:
    tasks = generate(num_tasks=20, seed=seed, min_terms=min_terms, max_terms=min_terms + more)
    assert [t.key for t in tasks] == [
        t.key for t in generate(num_tasks=20, seed=seed, min_terms=min_terms, max_terms=min_terms + more)
    ]
    assert len({t.key for t in tasks}) == 20
    for task in tasks:
        question = task.prompt[0].content.rstrip("=")
        first, *steps = question.split("-")
        assert value(question) == int(task.answer) >= 0
        assert task.key == task_key(task.prompt, task.answer)
        assert task.meta["split_key"] == "-".join((first, *map(str, sorted(map(int, steps)))))
        assert min_terms <= task.meta["difficulty"] == len(steps) + 1 <= min_terms + more
        shown = task.meta["demonstrations"]
        lines = shown["high"]["thinking"].split(";")
        assert len(lines) == len(steps) - 1
        assert {value(line) for line in lines} == {int(task.answer)}
        assert shown["medium"]["thinking"] == ";".join(lines[1::2])
        assert {solution["answer"] for solution in shown.values()} == {task.answer}


@pytest.mark.parametrize("arguments", [{"num_tasks": 0}, {"min_terms": 2}, {"min_terms": 5, "max_terms": 4}])
def test_bad_arguments_are_named(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="differences need num_tasks >= 1 and 3 <= min_terms"):
        generate(**{"num_tasks": 3, "seed": 0, **arguments})


def test_too_few_distinct_tasks() -> None:
    with pytest.raises(ValueError, match="fewer than 2000 distinct differences found"):
        generate(num_tasks=2000, seed=0, min_terms=3, max_terms=3)
