"""RoRecomp's worked example and its eight rules."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.batch import StepResult, TrainingBatch
from rl.plan import StepPlan
from rl.replay.config import RoRecomp
from rl.replay.recompose import Answer, compensation_probability, divide
from rl.replay.rorecomp import LABEL, RoRecompPolicy, length_push
from rl.replay.store import TrajectoryStore
from tests.fakes.replay import group, plan_of

LENGTHS = [200, 300, 500, 900, 250, 600, 1000, 1400]
RIGHT = [True] * 4 + [False] * 4


def answers(lengths: list[int], right: list[bool]) -> list[Answer]:
    return [Answer(name=str(n), length=n, is_right=r) for n, r in zip(lengths, right, strict=True)]


def policy_at(directory: Path, *, num_steps: int = 8, **config: object) -> RoRecompPolicy:
    settings = RoRecomp(**config)  # type: ignore[arg-type]
    store = TrajectoryStore(directory, tokenizer="t", capacity=settings.capacity)
    return RoRecompPolicy(settings, store, num_steps=num_steps, seed=0)


def play(policy: RoRecompPolicy, steps: range) -> list[StepPlan]:
    async def go() -> list[StepPlan]:
        plans = []
        for step in steps:
            plan = await policy.plan(plan_of(step, group(f"g{step}", RIGHT, [n // 50 for n in LENGTHS])))
            await policy.observe(plan, [StepResult(version=step, seconds=1.0) for _ in plan.batches])
            plans.append(plan)
        return plans

    return asyncio.run(go())


def named(batch: TrainingBatch) -> list[str]:
    return [f"{s.group_id}/{s.sibling}" for s in batch.samples]


def test_the_worked_example(tmp_path: Path) -> None:
    first, left = divide(answers(LENGTHS, RIGHT), 0.5)
    assert set(first) == {"200", "300", "1000", "1400"} and set(left) == {"500", "900", "250", "600"}
    _, samples = group("g", RIGHT, LENGTHS)
    by_name = {str(n): s for n, s in zip(LENGTHS, samples, strict=True)}
    assert length_push(samples) == pytest.approx(-168.75)
    assert length_push([by_name[n] for n in first]) == pytest.approx(-475.0)
    assert length_push([by_name[n] for n in left]) == pytest.approx(137.5)


@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=16), st.floats(0.01, 1.0))
def test_priority_and_left_over_are_disjoint_and_whole(found: list[tuple[int, bool]], alpha: float) -> None:
    given_ = [Answer(name=str(i), length=n, is_right=r) for i, (n, r) in enumerate(found)]
    first, left = divide(given_, alpha)
    assert sorted(first + left) == sorted(a.name for a in given_)


def test_every_record_is_trained_at_most_once_first_in_first_out_and_in_time(tmp_path: Path) -> None:
    plans = play(policy_at(tmp_path, p_end=1.0, batch_samples=8, max_age=2), range(1, 9))
    trained = [name for plan in plans for batch in plan.batches for name in named(batch)]
    assert len(trained) == len(set(trained))
    compensated = [(plan.step, name) for plan in plans for batch in plan.more for name in named(batch)]
    origins = [int(name[1 : name.index("/")]) for _, name in compensated]
    assert origins == sorted(origins) and origins
    assert all(step - origin <= 2 for (step, _), origin in zip(compensated, origins, strict=True))


def test_what_is_too_old_is_thrown_away(tmp_path: Path) -> None:
    plans = play(policy_at(tmp_path, batch_samples=100, max_age=2), range(1, 9))  # a batch that never fills
    assert not any(plan.more for plan in plans)
    policy = policy_at(tmp_path / "again", batch_samples=100, max_age=2)
    play(policy, range(1, 9))
    assert len(policy._store) == 3 * 4  # steps 6, 7 and 8


def test_alpha_one_is_the_plain_step(tmp_path: Path) -> None:
    plan = play(policy_at(tmp_path, alpha=1.0), range(1, 2))[0]
    assert named(plan.batch) == [f"g1/{i}" for i in range(8)] and not plan.more


def test_with_full_compensation_the_sum_is_the_plain_one(tmp_path: Path) -> None:
    """Summed losses, frozen policy, buffer emptied: every sample once, with the advantage it had."""
    plans = play(policy_at(tmp_path, p_end=1.0, max_age=100, batch_samples=4), range(1, 9))
    pushed: dict[str, float] = {}
    for plan in plans:
        for batch in plan.batches:
            pushed |= {f"{s.group_id}/{s.sibling}": float(s.advantages.sum()) for s in batch.samples}
    expected = {
        f"g{step}/{i}": (1.0 if right else -1.0) * (length // 50)
        for step in range(1, 9)
        for i, (right, length) in enumerate(zip(RIGHT, LENGTHS, strict=True))
    }
    assert pushed == expected


def test_equal_lengths_give_no_length_signal() -> None:
    settled, samples = group("g", RIGHT, [7] * 8)
    first, _ = divide([Answer(name=str(i), length=7, is_right=r) for i, r in enumerate(RIGHT)], 0.5)
    assert settled.fate.name == "trained" and length_push([samples[int(i)] for i in first]) == 0.0


def test_without_compensation_nothing_is_trained_later(tmp_path: Path) -> None:
    policy = policy_at(tmp_path, p_start=0.0, p_end=0.0, batch_samples=4)
    plans = play(policy, range(1, 9))
    assert not any(plan.more for plan in plans)
    assert {m.name: m.value for m in policy.metrics()}["replay/discarded_samples"] == 4


def test_the_schedule() -> None:
    values = [compensation_probability(t, 100, p_start=1.0, p_end=0.25) for t in (0, 25, 50, 75, 100)]
    assert values == pytest.approx([1.0, 0.890, 0.625, 0.360, 0.250], abs=5e-4)


def test_a_group_of_one_kind_is_trained_on_whole() -> None:
    assert divide(answers([3, 5], [True, True]), 0.5) == (["3", "5"], [])


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 7))
def test_resumed_at_any_step_it_goes_on_the_same(tmp_path_factory: pytest.TempPathFactory, kill_after: int) -> None:
    config = {"batch_samples": 6, "max_age": 3}
    root = tmp_path_factory.mktemp("rorecomp")
    whole = play(policy_at(root / "whole", **config), range(1, 9))
    first = policy_at(root / "broken", **config)
    play(first, range(1, kill_after + 1))
    (root / "checkpoint").mkdir()
    first.save(root / "checkpoint")
    state = first.state_dict()
    play(first, range(kill_after + 1, kill_after + 2))  # lost
    second = policy_at(root / "broken", **config)
    second.load_state_dict(state)
    second.restore(root / "checkpoint")
    resumed = play(second, range(kill_after + 1, 9))
    assert [[named(b) for b in p.batches] for p in resumed] == [
        [named(b) for b in p.batches] for p in whole[kill_after:]
    ]
    assert all(b.label == LABEL for p in resumed for b in p.more)
    assert np.isfinite([s.advantages.sum() for p in resumed for b in p.batches for s in b.samples]).all()
