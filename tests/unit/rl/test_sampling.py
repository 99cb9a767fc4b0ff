"""Task order, the gate, and the account of jobs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.config import SamplingConfig
from rl.jobs import JobSource
from rl.metrics import reduce_metrics
from rl.record import Fate, Settled
from rl.sampling.build import build_sampler
from rl.sampling.config import UniformSampling
from rl.sampling.gate import SignalGate
from rl.sampling.pool_sampler import PoolSampler
from rl.step_metrics import group_metrics
from rollout.schema import Sampling, Task
from tests.fakes.loop import FakeEfforts, make_scored, make_tasks

TASKS = make_tasks(10)


def uniform(tasks: Sequence[Task], *, seed: int) -> PoolSampler:
    return build_sampler(UniformSampling(), tasks, batch_size=4, seed=seed)


def source(seed: int = 0) -> JobSource:
    sampler = uniform(TASKS, seed=seed)
    return JobSource(sampler, FakeEfforts(), tasks=TASKS, num_siblings=2, sampling=Sampling(), seed=seed)


def test_every_task_once_per_epoch_in_a_fresh_order() -> None:
    sampler = uniform(TASKS, seed=1)
    first, second = ([sampler.next().key for _ in TASKS] for _ in range(2))
    assert sorted(first) == sorted(second) == sorted(t.key for t in TASKS)
    assert first != second


def test_order_depends_on_seed_and_tasks_alone() -> None:
    def order(tasks: list, seed: int) -> list[str]:
        sampler = uniform(tasks, seed=seed)
        return [sampler.next().key for _ in range(25)]

    assert order(TASKS, 1) == order(TASKS[::-1], 1) != order(TASKS, 2)


@given(st.integers(0, 40))
def test_sampler_resumes_exactly(count: int) -> None:
    whole, resumed = uniform(TASKS, seed=3), uniform(TASKS, seed=3)
    for _ in range(count):
        whole.next()
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert [resumed.next().key for _ in range(15)] == [whole.next().key for _ in range(15)]


def test_sampler_refuses_bad_tasks_and_foreign_state() -> None:
    with pytest.raises(ValueError, match="at least one training task"):
        uniform([], seed=0)
    with pytest.raises(ValueError, match="distinct keys"):
        uniform([*TASKS, TASKS[0]], seed=0)
    state = uniform(TASKS, seed=0).state_dict()
    for other in (uniform(TASKS, seed=1), uniform(TASKS[:-1], seed=0)):
        with pytest.raises(ValueError, match="same tasks and seed"):
            other.load_state_dict(state)


@pytest.mark.parametrize(
    ("judge_on", "scores", "shaped", "reason"),
    [
        ("outcome", [1.0, 0.0], [0, 0], None),
        ("outcome", [0.9, 1.0], [0, 0], "all_right"),  # clumsy format, yet right
        ("outcome", [0.0, 0.01], [0, 0.5], "all_wrong"),  # shaping is no signal here
        ("outcome", [1.0, None], [0, 0], "too_few_judged"),
        ("final_reward", [1.0, 1.0], [0, 0.2], None),
        ("final_reward", [1.0, 1.0], [0.2, 0.2], "equal_rewards"),
        ("final_reward", [1.0, None], [0, 0.2], "too_few_judged"),
        ("off", [0.0, 0.0], [0, 0], None),
        ("off", [None, None], [0, 0], "too_few_judged"),
    ],
)
def test_gate(judge_on: str, scores: list[float | None], shaped: list[float], reason: str | None) -> None:
    gate = SignalGate(SamplingConfig(judge_on=judge_on))  # type: ignore[arg-type]
    assert gate.reject(make_scored(scores, shaped={"length": shaped})) == reason


def test_gate_counts_and_resumes() -> None:
    gate, resumed = SignalGate(SamplingConfig()), SignalGate(SamplingConfig())
    scored = make_scored([1.0, 0.0])
    for reason in (None, None, "all_wrong", None):
        gate.observe(scored, reason)
    resumed.load_state_dict(json.loads(json.dumps(gate.state_dict())))
    assert [m.value for m in resumed.metrics()] == [0.75]


def test_on_drop_and_max_refills_go_together() -> None:
    for settings in ({"on_drop": "replace"}, {"max_refills": 3}):
        with pytest.raises(ValueError, match="max_refills"):
            SamplingConfig(**settings)  # type: ignore[arg-type]


def test_jobs_that_are_out_are_issued_again_first() -> None:
    whole, broken, resumed = source(), source(), source()
    expected = [whole.next(1) for _ in range(9)]
    jobs = [broken.next(1) for _ in range(6)]
    for job in (jobs[1], jobs[0], jobs[3]):
        broken.retire(make_scored([1.0, 0.0], job=job), lag=0)
    resumed.load_state_dict(json.loads(json.dumps(broken.state_dict())))
    assert resumed.num_out == 3
    again = [resumed.next(1) for _ in range(6)]
    assert again == [expected[i] for i in (2, 4, 5, 6, 7, 8)]
    assert len({job.sampling.seed for job in expected}) == 9


def test_a_pending_task_must_exist() -> None:
    state = json.loads(json.dumps({**source().state_dict()}))
    broken = source()
    broken.next(1)
    state["pending"] = [{**json.loads(json.dumps(broken.state_dict()))["pending"][0], "task_key": "gone"}]
    with pytest.raises(ValueError, match="'gone' of pending group g00000000"):
        source().load_state_dict(state)


def test_group_metrics_count_dropped_groups_too() -> None:
    good = Settled(scored=make_scored([1.0, 0.0]), fate=Fate(name="trained", step=1))
    bad = Settled(scored=make_scored([0.0, None]), fate=Fate(name="dropped", step=1, reason="too_few_judged"))
    values = reduce_metrics(group_metrics([good, bad]))
    assert values["train/high/accuracy"] == pytest.approx(1 / 3)
    assert values["reward/mean"] == pytest.approx(1 / 3)
    assert values["dropped/too_few_judged"] == values["unjudged/timeout"] == 1
    assert values["train/high/thinking_tokens"] == 4
    assert values["groups/trained_share"] == 0.5
