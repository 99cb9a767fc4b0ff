"""The procedural task source `sums`: worked solutions, the careless teacher, determinism, split keys."""

from __future__ import annotations

import itertools
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.schema import Task, task_key
from rollout.tasks.sums import EFFORTS, generate, rewrites


def terms_of(task: Task) -> list[int]:
    return [int(x) for x in task.prompt[0].content.rstrip("=").split("+")]


def demonstration(task: Task, effort: str) -> tuple[str, str]:
    shown = task.meta["demonstrations"][effort]
    return shown["thinking"], shown["answer"]


def test_rewrites_of_a_known_sum() -> None:
    assert rewrites([3, 5, 5, 7, 4, 9]) == ["8+5+7+4+9", "13+7+4+9", "20+4+9", "24+9"]
    assert rewrites([1, 2, 3]) == ["3+3"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), min_terms=st.integers(3, 7), more=st.integers(0, 3))
def test_every_careful_solution_is_right(seed: int, min_terms: int, more: int) -> None:
    for task in generate(num_tasks=20, seed=seed, min_terms=min_terms, max_terms=min_terms + more):
        terms = terms_of(task)
        assert task.answer == str(sum(terms)) and task.verifier == "exact"
        assert task.key == task_key(task.prompt, task.answer)
        assert task.meta["split_key"] == "+".join(map(str, sorted(terms)))
        lines = demonstration(task, "high")[0].split(";")
        assert len(lines) == len(terms) - 2
        assert all(sum(map(int, line.split("+"))) == sum(terms) for line in lines)
        assert ";".join(lines[1::2]) == demonstration(task, "medium")[0]
        assert demonstration(task, "low") == ("", task.answer)
        assert {demonstration(task, effort)[1] for effort in EFFORTS} == {task.answer}


def test_lengths_are_balanced_and_prompts_distinct() -> None:
    tasks = generate(num_tasks=1002, seed=5, min_terms=4, max_terms=7)
    counts = [sum(task.skills == (f"{n}_terms",) for task in tasks) for n in range(4, 8)]
    assert counts == [251, 251, 250, 250]
    assert len({task.key for task in tasks}) == 1002


def test_the_careless_teacher_stops_early_and_answers_the_total_so_far() -> None:
    arguments = {"num_tasks": 4000, "seed": 1, "min_terms": 4, "max_terms": 7}
    careful = generate(**arguments)
    careless = generate(**arguments, flaw=0.7, flaw_min_terms=6, flaw_lines=2)
    assert [t.key for t in careful] == [t.key for t in careless]
    wrong = dict.fromkeys(range(4, 8), 0)
    for task in careless:
        terms = terms_of(task)
        thinking, answer = demonstration(task, "high")
        assert demonstration(task, "medium")[1] == demonstration(task, "low")[1] == task.answer == str(sum(terms))
        if answer != task.answer:
            wrong[len(terms)] += 1
            assert thinking.split(";") == rewrites(terms)[:2]
            assert answer == str(sum(terms[:3])) == thinking.split(";")[-1].split("+")[0]
    assert wrong[4] == wrong[5] == 0
    assert all(0.65 < wrong[n] / 1000 < 0.75 for n in (6, 7)), wrong


def test_the_teacher_slips_and_goes_on_from_the_wrong_total() -> None:
    assert rewrites([3, 5, 7, 4], [0, 2, 0, 0]) == ["10+7+4", "17+4"]
    arguments = {"num_tasks": 3000, "seed": 1, "min_terms": 5, "max_terms": 6}
    careful, slipping = generate(**arguments), generate(**arguments, slip=0.3)
    assert [t.key for t in careful] == [t.key for t in slipping]
    additions = wrong = 0
    for task in slipping:
        thinking, answer = demonstration(task, "high")
        assert demonstration(task, "medium")[1] == task.answer == str(sum(terms_of(task)))
        values = [sum(terms_of(task)), *(sum(map(int, line.split("+"))) for line in thinking.split(";"))]
        steps = [b - a for a, b in itertools.pairwise(values)]
        additions, wrong = additions + len(steps), wrong + sum(step != 0 for step in steps)
        assert all(-3 <= step <= 3 for step in steps)
        assert int(answer) == values[-1]  # the last addition is right
        assert "-" not in thinking
    assert 0.28 < wrong / additions < 0.32
    with pytest.raises(ValueError, match="slip is a probability"):
        generate(num_tasks=5, seed=0, slip=1.5)


def test_the_same_seed_gives_the_same_tasks_and_another_seed_others() -> None:
    first, again, other = (generate(num_tasks=50, seed=s, flaw=0.5) for s in (7, 7, 8))
    assert first == again
    assert not {t.key for t in first} & {t.key for t in other}
    json.dumps([dict(t.meta) for t in first])


def test_a_hundred_thousand_tasks_take_seconds() -> None:
    start = time.process_time()
    generate(num_tasks=100_000, seed=0, min_terms=5, max_terms=8, flaw=0.5)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_tasks": 0}, "num_tasks must be at least 1"),
        ({"min_terms": 2}, "3 <= min_terms"),
        ({"min_terms": 6, "max_terms": 5}, "min_terms <= max_terms"),
        ({"flaw": 1.5}, "probability"),
        ({"flaw_lines": 0}, "flaw_lines"),
        ({"flaw_min_terms": 4, "flaw_lines": 2}, "at least 5 terms"),
        ({"num_tasks": 3000, "min_terms": 3, "max_terms": 3}, "only 729 different sums of 3 terms"),
    ],
)
def test_bad_arguments_name_rule_and_value(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(**{"num_tasks": 10, "seed": 0, **arguments})  # type: ignore[arg-type]


def test_low_solutions_may_write_every_second_total() -> None:
    task = generate(num_tasks=1, seed=0, min_terms=6, max_terms=6, low="totals")[0]
    totals = [line.partition("+")[0] for line in rewrites(terms_of(task))]
    assert demonstration(task, "low") == (";".join(totals[1::2]), task.answer)
    assert generate(num_tasks=1, seed=0, min_terms=6, max_terms=6)[0].key == task.key
    with pytest.raises(ValueError, match="low must be 'nothing' or 'totals'"):
        generate(num_tasks=1, seed=0, low="some")


def test_tagged_solutions_are_sized_to_their_tag() -> None:
    for task in generate(num_tasks=40, seed=2, min_terms=4, max_terms=7, low="totals", easy_terms=5):
        shown = task.meta["demonstrations"]
        assert shown["easy"] == {"preface": "[Easy]", **shown["low"]}
        assert shown["hard"] == {"preface": "[Hard]", **shown["high"]}
        assert shown["auto"] == shown["easy" if len(terms_of(task)) <= 5 else "hard"]
