"""VADE: worked counts, the decay, and the acceptance simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl.sampling.config import VadeSampling
from rl.sampling.picker import NO_TASKS, Picker
from rl.sampling.uniform import Uniform
from rl.sampling.vade import Vade, worth_of
from rl.verdict import Tally

VADE = VadeSampling(type="vade", uniform_share=0.0)


def right(count: int, judged: int = 8, lag: int = 0) -> Tally:
    return Tally(num_right=count, num_judged=judged, lag=lag)


def counted(vade: Vade, number: int) -> tuple[float, float]:
    a, b = vade.belief(np.asarray([number]))
    return float(a[0]) - 1, float(b[0]) - 1


def given_counts(right: list[float], wrong: list[float], config: VadeSampling = VADE) -> Vade:
    vade = Vade(len(right), config, seed=0)
    empty = vade.state_dict()
    known = np.arange(len(right), dtype=np.int32)
    vade.load_state_dict(
        {
            **empty,
            "right": np.float32(right),
            "wrong": np.float32(wrong),
            "known": known,
            "counted_at": np.zeros(len(right), np.uint32),
        }
    )
    return vade


def test_vade_counts_of_the_worked_example() -> None:
    vade = given_counts([0.1, 2.7, 9.0], [8.4, 5.3, 0.2])
    vade.pick(2, np.asarray([2]))
    vade.update(0, right(1))
    vade.update(1, right(4))
    assert counted(vade, 0) == pytest.approx((1.02, 8.68), rel=1e-6)
    assert counted(vade, 1) == pytest.approx((4.54, 5.06), rel=1e-6)
    assert counted(vade, 2) == pytest.approx((8.991, 0.1998), rel=1e-6)


def test_vade_age_and_missing_verdicts() -> None:
    vade = given_counts([0.0], [0.0])
    vade.pick(1, NO_TASKS)
    vade.update(0, right(3, judged=6, lag=2))
    assert counted(vade, 0) == pytest.approx((3 * 0.81, 3 * 0.81))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=1, max_size=60))
@settings(max_examples=40, deadline=None)
def test_decay_on_reading_equals_decay_of_every_task_at_every_pick(events: list[tuple[int, int]]) -> None:
    lazy = Vade(4, VADE, seed=0)
    a, b = np.zeros(4), np.zeros(4)
    for number, successes in events:
        lazy.pick(1, NO_TASKS)
        lazy.update(number, right(successes))
        others = np.arange(4) != number
        a[others] *= 0.999
        b[others] *= 0.999
        a[number], b[number] = 0.2 * a[number] + successes, 0.2 * b[number] + 8 - successes
    assert np.array([counted(lazy, n) for n in range(4)]) == pytest.approx(np.stack([a, b], axis=1), rel=1e-4)


def test_worth_and_its_mean_under_the_belief() -> None:
    assert worth_of(np.asarray([0.13, 0.32, 0.9])) == pytest.approx([0.0984, 0.14797, 0.009], abs=5e-5)
    rng = np.random.default_rng(0)
    for (a, b), mean in {(1, 1): 0.0833, (1.1, 9.4): 0.0712, (3.7, 6.3): 0.1289, (10, 1.2): 0.0146}.items():
        assert worth_of(rng.beta(a, b, 400_000)).mean() == pytest.approx(mean, abs=0.002)


def test_belief_returns_to_the_prior() -> None:
    """After 5000 picks without it, a task is worth what an unknown one is."""
    vade = given_counts([9.0], [0.2])
    vade.load_state_dict({**vade.state_dict(), "num_picks": 5000})
    a, b = vade.belief(np.asarray([0]))
    assert (float(a[0]), float(b[0])) == pytest.approx((1 + 9 * 0.999**5000, 1 + 0.2 * 0.999**5000))
    assert worth_of(np.random.default_rng(0).beta(a, b, 100_000)).mean() == pytest.approx(1 / 12, abs=0.004)


def share_informative(picker: Picker, success: np.ndarray, *, batch: int = 64, steps: int = 150) -> float:
    """Over the last 20 steps, on a policy that does not change."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(steps):
        picked = picker.pick(batch, NO_TASKS)
        successes = rng.binomial(8, success[picked])
        shares.append(np.mean((successes > 0) & (successes < 8)))
        for number, count in zip(picked, successes, strict=True):
            picker.update(int(number), right(int(count)))
    return float(np.mean(shares[-20:]))


def test_vade_finds_what_teaches() -> None:
    """Acceptance: 2000 tasks with p ~ Beta(.4, .4), 64 a pick, 150 picks: .53 uniform, .77 to .78 VADE."""
    success = np.random.default_rng(0).beta(0.4, 0.4, 2000)
    assert share_informative(Uniform(2000, seed=0), success) == pytest.approx(0.53, abs=0.05)
    assert share_informative(Vade(2000, VADE, seed=0), success) > 0.72
    symmetric = VadeSampling(type="vade", uniform_share=0.0, worth="symmetric")
    assert share_informative(Vade(2000, symmetric, seed=0), success) > 0.72


def test_vade_finds_what_teaches_in_a_pool_larger_than_it_looks_at() -> None:
    success = np.random.default_rng(0).beta(0.4, 0.4, 20_000)
    config = VadeSampling(type="vade", uniform_share=0.0, candidates=1024)
    assert share_informative(Vade(20_000, config, seed=0), success) > 0.62
