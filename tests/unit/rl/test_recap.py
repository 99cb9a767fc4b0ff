"""RECAP's worked tables, and what the policy does with the weights."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.credit.build import build_credit
from rl.credit.config import DrGrpoCredit
from rl.plan import StepPlan
from rl.reweight.config import RecapConfig
from rl.reweight.policy import History, RecapPolicy, ReweighedCredit
from rl.reweight.recap import code, paper, recommended
from rollout.schema import Outcome, Status
from tests.fakes.loop import make_scored
from tests.fakes.replay import group, plan_of

W = 10


def jump(before: float, after: float) -> list[float]:
    return [before] * W + [after] * W


def swing(a: float, b: float) -> list[float]:
    return [a, b] * W


def test_the_papers_table() -> None:
    losses = [jump(0.1, 0.05), swing(0.6, 0.4), jump(0.05, 0.05)]
    rewards = [[1 - x for x in row] for row in losses]
    assert paper(rewards, 5.0) == pytest.approx([1.154, 0.932, 0.913], abs=1e-3)


def test_the_codes_table() -> None:
    rewards = [jump(0.9, 0.95), swing(0.4, 0.6), jump(0.95, 0.95)]
    assert code(rewards, 5.0) == pytest.approx([0.9916, 1.0143, 0.9942], abs=1e-4)


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [(5.0, [0.9525, 0.9797, 0.9599, 1.1079]), (1.0, [0.7518, 0.8658, 0.7815, 1.6008])],
)
def test_the_recommended_table(temperature: float, expected: list[float]) -> None:
    rewards = [jump(0.9, 0.95), swing(0.4, 0.6), jump(0.95, 0.95), jump(0.8, 0.5)]
    assert recommended(rewards, temperature) == pytest.approx(expected, abs=1e-4)


@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=1, max_size=5), st.floats(0.5, 10))
def test_weights_sum_to_their_number_and_stay_finite(rewards: list[list[float]], temperature: float) -> None:
    for reading in (recommended, paper, code):
        weights = reading(rewards, temperature)
        assert np.isfinite(weights).all() and weights.sum() == pytest.approx(len(rewards))
        assert reading([rewards[0]] * 3, temperature) == pytest.approx([1.0] * 3)


def test_zero_rewards_are_finite_and_early_weights_are_one() -> None:
    history = History(RecapConfig(window=2))
    for _ in range(3):
        history.push("a", 0.0)
        history.push("b", 1.0)
    assert history.weights() == {"a": 1.0, "b": 1.0}
    history.push("a", 0.0)
    assert history.weights() == {"a": 1.0, "b": 1.0}  # b was absent from that step
    history.push("b", 0.1)
    assert history.weights()["b"] > 1.0 > history.weights()["a"]


def step_of(policy: RecapPolicy, scores: dict[str, float]) -> StepPlan:
    """A step with one group a domain, of this mean score; the plan after the policy."""
    made = []
    for number, (source, score) in enumerate(scores.items()):
        settled, samples = group(f"g{number}", [True, False], [4, 4])
        job = settled.scored.group.job
        task = replace(job.task, source=source)
        scored = make_scored([score, score], job=replace(job, task=task))
        made.append((replace(settled, scored=scored), [replace(s, source=source) for s in samples]))

    async def go() -> StepPlan:
        plan = await policy.plan(plan_of(1, *made))
        await policy.observe(plan, [])
        return plan

    return asyncio.run(go())


def test_advantages_of_the_domain_that_gets_worse_grow_and_the_state_survives() -> None:
    config = RecapConfig(window=2, temperature=1.0)
    policy = RecapPolicy(config, {})
    for score in (0.8, 0.8, 0.5, 0.5):
        plan = step_of(policy, {"kept": score, "target": 0.9})
        assert {float(s.advantages[-1]) for s in plan.batch.samples} == {1.0, -1.0}
    again = RecapPolicy(config, {})
    again.load_state_dict(policy.state_dict())
    for p in (policy, again):
        sizes = {s.source: abs(float(s.advantages[-1])) for s in step_of(p, {"kept": 0.5, "target": 0.9}).batch.samples}
        assert sizes["kept"] > 1.2 and sizes["kept"] + sizes["target"] == pytest.approx(2.0)
    assert again.state_dict() == policy.state_dict()
    names = {m.name for m in policy.metrics()}
    assert {"reweight/domain/kept/weight", "reweight/domain/kept/convergence"} <= names


def test_components_are_weighed_inside_their_sum() -> None:
    policy = RecapPolicy(RecapConfig(window=2, temperature=1.0, over=("components",)), {"answer": 1.0, "format": 1.0})
    for answer, form in ((0.5, 0.9), (0.5, 0.9), (0.5, 0.3), (0.5, 0.3)):
        policy.components.push("answer", answer)
        policy.components.push("format", form)
    factors = policy.components.weights()
    assert factors["format"] > 1.5
    scored = make_scored([0.5, None])
    outcome = Outcome(status=Status.JUDGED, score=0.5, parts={"answer": 1.0, "format": 0.0})
    scored = replace(scored, outcomes=(outcome, scored.outcomes[1]))
    found = policy.reweigh(scored).outcomes
    assert found[0].score == pytest.approx(factors["answer"] / 2) and found[1].score is None
    assert policy.domain_weights() == {}


def test_credit_sees_the_recomposed_scores() -> None:
    policy = RecapPolicy(RecapConfig(window=2, temperature=1.0, over=("components",)), {"answer": 1.0, "format": 1.0})
    for form in (0.9, 0.9, 0.3, 0.3):
        policy.components.push("answer", 0.5)
        policy.components.push("format", form)
    parts = ({"answer": 1.0, "format": 0.0}, {"answer": 0.0, "format": 1.0})
    outcomes = tuple(Outcome(status=Status.JUDGED, score=0.5, parts=p) for p in parts)
    scored = replace(make_scored([0.5, 0.5]), outcomes=outcomes)
    credit = ReweighedCredit(build_credit(DrGrpoCredit()), policy)
    first, second = (values[-1] for values in credit([scored])[0] if values is not None)
    assert first < -0.1 and second > 0.1, "the component that gets worse is worth more"
