"""Arithmetic stories: right, distinct, seeded, with solutions that arrive at the answer."""

from __future__ import annotations

import re

import pytest

from rollout.tasks.stories import generate

CLAIM = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")


def test_every_solution_is_right_and_arrives_at_the_answer() -> None:
    for task in generate(num_tasks=500, seed=3, min_events=1, max_events=5):
        shown = task.meta["demonstrations"]
        count = re.findall(r"\d+", task.prompt[0].content)[0]
        claims = CLAIM.findall(shown["high"]["thinking"])
        assert claims == CLAIM.findall(shown["medium"]["thinking"])
        for left, sign, right, result in claims:
            assert left == count
            value = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[sign]
            assert value == int(result) > 0
            count = result
        assert task.answer == count
        assert {demonstration["answer"] for demonstration in shown.values()} == {f" {task.answer}"}
        assert shown["low"]["thinking"] == "\n"


def test_the_seed_decides_and_stories_are_distinct() -> None:
    one, again, other = (generate(num_tasks=200, seed=seed) for seed in (1, 1, 2))
    assert [t.key for t in one] == [t.key for t in again]
    assert len({t.key for t in one}) == 200
    assert len({t.key for t in one} & {t.key for t in other}) < 5


def test_too_few_stories_and_bad_arguments_are_explained() -> None:
    with pytest.raises(ValueError, match="raise largest or max_events"):
        generate(num_tasks=5000, seed=0, min_events=1, max_events=1, largest=2)
    with pytest.raises(ValueError, match="1 <= min_events <= max_events"):
        generate(num_tasks=5, seed=0, min_events=3, max_events=2)
