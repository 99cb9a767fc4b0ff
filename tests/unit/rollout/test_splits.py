"""Train and held-out tasks: disjoint, seeded, independent of the order of the input."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.schema import Message, Task, task_key
from rollout.tasks.splits import split_key, split_one, split_two


def number_task(number: int, *, kind: int | None = None) -> Task:
    prompt = (Message(role="user", content=str(number)),)
    meta = {} if kind is None else {"split_key": str(kind)}
    return Task(key=task_key(prompt, "0"), prompt=prompt, answer="0", verifier="math", source="test", meta=meta)


numbers = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), min_size=1, max_size=80)


def make(pairs: list[tuple[int, int]]) -> list[Task]:
    """Tasks whose split key is a function of their content, as an equivalence must be."""
    return [number_task(number * 13 + kind, kind=kind) for number, kind in pairs]


@settings(deadline=None)
@given(numbers, st.integers(1, 8), st.integers(0, 5), st.randoms(use_true_random=False))
def test_one_source_is_split_without_loss_or_overlap(
    pairs: list[tuple[int, int]], num_held_out: int, seed: int, rng: random.Random
) -> None:
    tasks = make(pairs)
    kinds = {split_key(task) for task in tasks}
    if num_held_out >= len(kinds):
        with pytest.raises(ValueError, match="must be smaller than the number of distinct tasks"):
            split_one(tasks, num_held_out=num_held_out, seed=seed)
        return
    splits = split_one(tasks, num_held_out=num_held_out, seed=seed)
    held = {split_key(task) for task in splits.held_out}
    assert len(held) == len(splits.held_out) == num_held_out
    assert {split_key(task) for task in splits.train} == kinds - held
    assert len({task.key for task in splits.train}) == len(splits.train)
    total = len(splits.train) + len(splits.held_out) + splits.num_duplicates + splits.num_withheld
    assert total == len(tasks)

    shuffled = rng.sample(tasks, len(tasks))
    again = split_one(shuffled, num_held_out=num_held_out, seed=seed)
    assert [t.key for t in again.train] == [t.key for t in splits.train]
    assert [t.key for t in again.held_out] == [t.key for t in splits.held_out]


@settings(deadline=None)
@given(numbers, numbers, st.integers(1, 8))
def test_two_sources_are_made_disjoint(
    train: list[tuple[int, int]], held: list[tuple[int, int]], num_held_out: int
) -> None:
    tasks, others = make(train), make(held)
    try:
        splits = split_two(tasks, others, num_held_out=num_held_out, seed=0)
    except ValueError as error:
        too_few = num_held_out > len({t.key for t in others})
        assert too_few or "no task is left to train on" in str(error)
        return
    held_kinds = {split_key(task) for task in splits.held_out}
    assert not held_kinds & {split_key(task) for task in splits.train}
    assert {t.key for t in splits.train} == {t.key for t in tasks if split_key(t) not in held_kinds}


def test_numbers_by_hand() -> None:
    tasks = [number_task(n, kind=n % 3) for n in (0, 1, 2, 3, 4, 5, 5)]
    splits = split_one(tasks, num_held_out=1, seed=0)
    assert splits.num_duplicates == 1
    assert splits.num_withheld == 1  # the other task of the held-out one's kind
    assert len(splits.train) == 4


def test_without_split_keys_the_content_counts() -> None:
    splits = split_one([number_task(n) for n in range(10)], num_held_out=4, seed=3)
    assert len(splits.train) == 6
    assert splits.num_withheld == 0


def test_the_seed_changes_the_order() -> None:
    tasks = [number_task(n) for n in range(50)]
    first, second = (split_one(tasks, num_held_out=5, seed=s).held_out for s in (0, 1))
    assert [t.key for t in first] != [t.key for t in second]


def test_nothing_left_to_train_on_is_an_error() -> None:
    tasks = [number_task(n, kind=0) for n in range(3)]
    with pytest.raises(ValueError, match="no task is left to train on: each of 3"):
        split_two(tasks, [number_task(99, kind=0)], num_held_out=1, seed=0)
