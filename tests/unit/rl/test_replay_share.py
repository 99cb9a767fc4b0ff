"""Replay of a share: cap, age, uses, drift, priorities, watch; and a run killed in its middle draws the same again."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.batch import StepResult, Stream
from rl.plan import StepPlan
from rl.replay.config import ShareReplay
from rl.replay.eligible import draw, eligible, how_many, priorities
from rl.replay.share import SharePolicy
from rl.replay.store import ENTRY, TrajectoryStore
from rl.replay.watch import Watch
from tests.fakes.replay import FakeComparer, group, plan_of

CONFIG = ShareReplay(watch_every=0)


def policy_at(directory: Path, config: ShareReplay = CONFIG, **more: object) -> SharePolicy:
    store = TrajectoryStore(directory, tokenizer="t", capacity=config.capacity)
    options = {"comparer": FakeComparer([]), "seed": 0, "warn": lambda message: None, **more}
    return SharePolicy(config, store, **options)  # type: ignore[arg-type]


def fresh(step: int, groups: int = 3) -> StepPlan:
    return plan_of(step, *(group(f"g{step}-{i}", [True, False, True, False], [3, 4, 5, 6]) for i in range(groups)))


def run_steps(policy: SharePolicy, steps: range, drift: float = 0.01) -> list[list[str]]:
    """Names of the replayed samples of each step."""
    found = []

    async def go() -> None:
        for step in steps:
            plan = await policy.plan(fresh(step))
            replayed = [s for s in plan.batch.samples if s.stream is Stream.REPLAY]
            found.append([f"{s.group_id}/{s.sibling}" for s in replayed])
            result = StepResult(version=step, seconds=1.0, drift=dict.fromkeys(found[-1], drift))
            await policy.observe(plan, [result])

    asyncio.run(go())
    return found


@pytest.mark.parametrize(("share", "num_fresh", "count"), [(0.25, 12, 4), (0.25, 11, 3), (0.5, 7, 7), (0.1, 8, 0)])
def test_the_share_is_a_cap(share: float, num_fresh: int, count: int) -> None:
    assert how_many(share, num_fresh) == count
    assert count / (num_fresh + count) <= share


def test_the_mix_keeps_the_cap_the_ages_and_the_uses(tmp_path: Path) -> None:
    policy = policy_at(tmp_path, ShareReplay(watch_every=0, max_age=2))
    drawn = run_steps(policy, range(1, 9))
    assert [len(names) for names in drawn] == [0] + [4] * 7
    for step, names in enumerate(drawn, start=1):
        ages = [step - int(name[1 : name.index("-")]) for name in names]
        assert all(1 <= age <= 2 for age in ages)
    everything = [name for names in drawn for name in names]
    assert len(everything) == len(set(everything)), "max_uses = 1"


def test_what_has_drifted_is_not_used_again(tmp_path: Path) -> None:
    config = ShareReplay(watch_every=0, max_uses=5, max_age=8)
    near, far = (run_steps(policy_at(tmp_path / str(d), config), range(1, 9), drift=d) for d in (0.01, 0.3))
    assert len({n for names in near for n in names}) < sum(map(len, near)), "near ones are used again"
    assert len({n for names in far for n in names}) == sum(map(len, far))


def test_only_the_outcomes_asked_for_are_kept(tmp_path: Path) -> None:
    drawn = run_steps(policy_at(tmp_path, ShareReplay(watch_every=0, outcome="right")), range(1, 5))
    assert {int(name.rpartition("/")[2]) % 2 for names in drawn for name in names} == {0}


def test_worked_eligibility_and_priorities() -> None:
    index = np.zeros(5, dtype=ENTRY)
    index["held"], index["step"] = True, [9, 9, 1, 10, 6]
    index["solved"], index["drift"] = [1 / 3, 1 / 3, 0.5, 0.5, 1.0], [np.nan, 0.3, np.nan, np.nan, 0.1]
    index["source"] = [0, 1, 0, 0, 0]
    found = eligible(CONFIG, index, step=10).tolist()
    assert found == [True, False, False, False, True]  # drifted; too old; of this very step
    weights = priorities(CONFIG, index, step=10, sources=["a", "b"], domain_weights={"b": 2.0})
    assert weights[0] == pytest.approx(math.exp(-1 / 4)) and weights[1] == pytest.approx(2 * math.exp(-1 / 4))
    assert weights[2] == pytest.approx(0.125 / (4 / 27) * math.exp(-9 / 4)) and 0 < weights[4] < 1e-11


def test_draws_follow_the_weights() -> None:
    positions, weights = np.arange(3), np.array([4.0, 2.0, 1.0])
    rng = np.random.default_rng(0)
    firsts = [int(draw(rng, positions, weights, 1)[0]) for _ in range(4000)]
    shares = np.bincount(firsts, minlength=3) / 4000
    assert shares == pytest.approx(weights / 7, abs=0.03)
    assert sorted(draw(rng, positions, weights, 9).tolist()) == [0, 1, 2]


def test_the_watch_switches_off_after_three_in_a_row() -> None:
    watch = Watch(patience=3)
    states = [watch.observe(c) for c in (-0.1, -0.2, 0.3, -0.1, math.nan, -0.1, -0.1)]
    assert states == [False] * 6 + [True] and watch.is_off
    again = Watch(patience=3)
    again.load_state_dict(watch.state_dict())
    assert again.is_off and not again.observe(-1.0)


def test_replay_that_hurts_is_switched_off(tmp_path: Path) -> None:
    comparer, warnings = FakeComparer([-0.5, -0.4]), list[str]()
    config = ShareReplay(watch_every=2, watch_patience=2, watch_samples=3)
    policy = policy_at(tmp_path, config, comparer=comparer, warn=warnings.append)
    drawn = run_steps(policy, range(1, 8))
    assert [len(n) for n in drawn] == [0, 4, 4, 0, 0, 0, 0] and comparer.calls == [(3, 3), (3, 3)]
    assert len(warnings) == 1 and "switched off from step 4" in warnings[0]
    assert {m.name: m.value for m in policy.metrics()}["replay/is_on"] == 0.0


def test_killed_in_the_middle_of_a_mix_it_draws_the_same(tmp_path: Path) -> None:
    config = ShareReplay(watch_every=0, max_uses=2, capacity=30)
    whole = run_steps(policy_at(tmp_path / "whole", config), range(1, 11))
    first = policy_at(tmp_path / "broken", config)
    run_steps(first, range(1, 6))
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    first.save(checkpoint)
    state = first.state_dict()
    asyncio.run(first.plan(fresh(6)))  # killed between plan and update
    second = policy_at(tmp_path / "broken", config)
    second.load_state_dict(state)
    second.restore(checkpoint)
    assert run_steps(second, range(6, 11)) == whole[5:]


def test_what_is_kept_has_the_advantage_it_had_before_later_policies(tmp_path: Path) -> None:
    policy = policy_at(tmp_path)

    async def go() -> None:
        plan = await policy.plan(fresh(1))
        doubled = tuple(replace(s, advantages=2 * s.advantages) for s in plan.batch.samples)
        later = replace(plan, batch=replace(plan.batch, samples=doubled))
        await policy.observe(later, [StepResult(version=1, seconds=1.0)])

    asyncio.run(go())
    kept = policy._store.read(policy._store.held())
    assert len(kept) == 12 and {float(s.advantages[-1]) for s in kept} == {1.0, -1.0}
