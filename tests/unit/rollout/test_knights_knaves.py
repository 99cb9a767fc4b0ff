"""Puzzles with one solution, solutions that arrive at it, and no puzzle on both sides of a split."""

from __future__ import annotations

import pytest

from rewards.outcome import Sample
from rewards.reasoning_gym_scorer import verify
from rollout.config import HeldOut, ProceduralSource, TasksConfig
from rollout.tasks.knights_knaves import canonical, generate, holds, solutions
from rollout.tasks.load import load_tasks
from rollout.tasks.splits import split_key


def test_statements_by_hand() -> None:
    assert holds(("and", ("telling-truth", 0), ("lying", 1)), (True, False))
    assert not holds(("->", ("telling-truth", 0), ("lying", 0)), (True,))
    assert holds(("<=>", ("lying", 0), ("not", ("telling-truth", 0))), (False,))
    # A says "B lies", B says "we are both knights": B cannot be right, so A is
    assert solutions([("lying", 1), ("and", ("telling-truth", 0), ("telling-truth", 1))]) == [(True, False)]
    with pytest.raises(ValueError, match="no part 'xor'"):
        holds(("xor", 0), (True,))


def test_the_same_puzzle_under_other_names_and_in_another_order() -> None:
    puzzle = [("lying", 1), ("and", ("telling-truth", 0), ("telling-truth", 1))]
    turned = [("and", ("telling-truth", 1), ("telling-truth", 0)), ("lying", 0)]
    assert canonical(puzzle) == canonical(turned)
    assert canonical(puzzle) != canonical([("lying", 1), ("lying", 0)])


def test_every_puzzle_has_one_solution_and_the_scorer_accepts_it() -> None:
    for task in generate(num_tasks=30, seed=5, min_people=2, max_people=4):
        metadata = task.meta["metadata"]
        assert solutions(metadata["statements"]) == [tuple(metadata["solution"])]
        assert verify(Sample.of_reference(task)).score == 1.0
        assert str(task.meta["difficulty"]) in task.skills[0]


def test_worked_solutions_try_reject_and_arrive() -> None:
    for task in generate(num_tasks=20, seed=1):
        shown = task.meta["demonstrations"]
        lines = shown["high"]["thinking"].strip().split("\n")
        assert lines[-1].endswith("All fits.") and all(line.endswith(": no.") for line in lines[:-1])
        assert shown["medium"]["thinking"].strip() == lines[-1] and shown["low"]["thinking"] == "\n"
        assert shown["high"]["answer"] == f" {task.answer}"
        terms, names = task.meta["metadata"]["knight_knave_terms"], task.meta["metadata"]["names"]
        for name, is_knight in zip(names, task.meta["metadata"]["solution"], strict=True):
            assert f"{name} is {terms['a_knight' if is_knight else 'a_knave']}" in lines[-1]


def test_no_puzzle_stands_on_both_sides_of_a_split() -> None:
    source = ProceduralSource(type="procedural", name="knights_knaves", num_tasks=120)
    splits = load_tasks(
        TasksConfig(train=source, held_out=HeldOut(num_tasks=30)),
        seed=0,
        procedural={"knights_knaves": generate},
    )
    assert not {split_key(t) for t in splits.train} & {split_key(t) for t in splits.held_out}


def test_half_a_puzzle_is_no_solution_where_the_recipe_says_so() -> None:
    (task,) = generate(num_tasks=1, seed=0, max_people=2)
    terms = task.meta["metadata"]["knight_knave_terms"]
    one, two = task.meta["metadata"]["names"]
    first, second = task.meta["metadata"]["solution"]
    answer = f"{one} is {terms['a_knight' if first else 'a_knave']}, and {two} is "
    answer += f"{terms['a_knave' if second else 'a_knight']}."
    graded = Sample.of_reference(task)
    for settings, score in (({}, 0.65), ({"whole": True}, 0.0)):
        sample = Sample(
            **{name: getattr(graded, name) for name in ("task_key", "prompt", "reference", "verifier", "meta")},
            thinking="",
            answer=answer,
            closed=True,
            text=answer,
            finish=graded.finish,
            effort="high",
            settings=settings,
        )
        assert verify(sample).score == pytest.approx(score)


def test_arguments_out_of_range() -> None:
    for wrong in ({"min_people": 1}, {"max_people": 9}, {"min_people": 4, "max_people": 3}, {"num_tasks": 0}):
        with pytest.raises(ValueError, match="knights_knaves needs 2 <= min_people"):
            generate(**({"num_tasks": 5, "seed": 0} | wrong))
