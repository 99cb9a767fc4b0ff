"""HPT's gate, LUFFY's group, negative examples, UFT's schedule and its two terms."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from rl.batch import Stream
from rl.hybrid.config import DemonstrationsConfig, HintsConfig
from rl.hybrid.hints import Hints, hint, hint_probability
from rl.hybrid.policy import Demonstration, DemonstrationPolicy, HintPolicy, given_tokens
from rl.hybrid.teach import group_advantage, learns_from_demonstration
from rl.hybrid.text import Chunk, TextPolicy
from rl.plan import StepPlan
from rl.record import Fate, Settled
from rollout.schema import Task, TokenBudget
from tests.fakes.loop import make_job, make_scored, make_tasks
from tests.fakes.replay import plan_of, sample

SHOWN = Demonstration(token_ids=np.arange(7, dtype=np.int32), num_given=3, is_right=True)


def settled(group_id: str, scores: list[float | None], *, task: Task, dropped: bool = False) -> Settled:
    job = replace(make_job(group_id, num_siblings=len(scores), task=task))
    fate = Fate(name="dropped", step=1, reason="all_wrong") if dropped else Fate(name="trained", step=1)
    return Settled(scored=make_scored(scores, job=job), fate=fate)


def run(config: DemonstrationsConfig, *, is_right: bool = True) -> tuple[StepPlan, DemonstrationPolicy]:
    """Three groups: nothing right (dropped), one of four right, all unjudged."""
    tasks = make_tasks(3)
    shown = {(task.key, "high"): replace(SHOWN, is_right=is_right) for task in tasks}
    none = settled("none", [0.0] * 4, task=tasks[0], dropped=True)
    one = settled("one", [1.0, 0.0, 0.0, 0.0], task=tasks[1])
    unjudged = settled("unjudged", [None] * 4, task=tasks[2], dropped=True)
    plan = plan_of(1, (none, []), (one, [sample("one", i) for i in range(4)]), (unjudged, []))
    policy = DemonstrationPolicy(config, shown)
    return asyncio.run(policy.plan(plan)), policy


def streams(plan: StepPlan) -> list[tuple[str, str]]:
    return [(s.group_id, s.stream.name) for s in plan.batch.samples]


FRESH = [("one", "FRESH")] * 4


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        (-1, FRESH),
        (0, [*FRESH, ("none", "DEMONSTRATION")]),
        (4, [("none", "DEMONSTRATION"), ("one", "DEMONSTRATION")]),
    ],
)
def test_hpts_gate(gate: int, expected: list[tuple[str, str]]) -> None:
    """-1 is pure reinforcement learning, the group size pure supervision; what is unjudged is not wrong."""
    plan, _ = run(DemonstrationsConfig(gate=gate))
    assert streams(plan) == expected
    assert plan.taught == {g for g, stream in expected if stream == "DEMONSTRATION"}


def test_gates_by_source_and_counts_of_the_paper() -> None:
    assert [learns_from_demonstration(n, 2) for n in range(5)] == [True, True, True, False, False]
    plan, _ = run(DemonstrationsConfig(gate=-1, gates={"fake": 4}))
    assert [s for _, s in streams(plan)] == ["DEMONSTRATION"] * 2


def test_a_demonstration_is_learned_behind_what_is_given() -> None:
    plan, policy = run(DemonstrationsConfig(coefficient=0.3))
    shown = plan.batch.samples[-1]
    assert shown.loss_mask.tolist() == [False] * 3 + [True] * 4
    assert shown.advantages.tolist() == pytest.approx([0.0] * 3 + [0.3] * 4) and not shown.sampler_logprobs.any()
    assert shown.sibling == 4 and shown.stream is Stream.DEMONSTRATION
    values = {m.name: m.value for m in policy.metrics()}
    assert values == {
        "demonstrations/taught": pytest.approx(1 / 3),
        "demonstrations/negative": 0.0,
        "demonstrations/missing": 0.0,
    }


def test_luffy_keeps_the_answers_and_shares_their_group() -> None:
    plan, _ = run(DemonstrationsConfig(gate=4, rollouts="keep", advantage="group"))
    assert streams(plan)[:4] == FRESH
    by_group = {s.group_id: float(s.advantages[-1]) for s in plan.batch.samples if s.stream is Stream.DEMONSTRATION}
    assert by_group == {"none": pytest.approx(0.8), "one": pytest.approx(0.6)}
    assert group_advantage([1.0, 1.0]) == 0.0


def test_wrong_solutions_are_left_out_or_pushed_down() -> None:
    plan, _ = run(DemonstrationsConfig(), is_right=False)
    assert streams(plan) == FRESH and not plan.taught
    plan, policy = run(DemonstrationsConfig(gate=4, negative=0.1), is_right=False)
    assert streams(plan)[:4] == FRESH, "its answers are no worse for it"
    assert [float(s.advantages[-1]) for s in plan.batch.samples[4:]] == pytest.approx([-0.1] * 2) and not plan.taught
    assert {m.name: m.value for m in policy.metrics()}["demonstrations/negative"] == pytest.approx(2 / 3)


def test_the_schedule_of_hints() -> None:
    config = HintsConfig(steps=300)
    values = [hint_probability(config, step) for step in (1, 151, 300, 301)]
    assert values == pytest.approx([0.95, 0.4975, 0.05, 0.0], abs=5e-3)


def shown_task(thinking: str) -> Task:
    return replace(make_tasks(1)[0], meta={"demonstrations": {"high": {"thinking": thinking, "answer": "1"}}})


def test_hints_are_the_first_parts_and_the_draw_is_the_jobs_own() -> None:
    assert [hint("abcdefghij", n, 5) for n in range(6)] == ["", "ab", "abcd", "abcdef", "abcdefgh", "abcdefghij"]
    hints = Hints(HintsConfig(steps=10, start=1.0, end=1.0), opening="<think>")
    job = make_job(task=shown_task("abcdefghij"))
    assert hints.allot(job, 1).budget.prefix == "<think>abcdefghij", "l = chunks gives all of it"
    assert hints.allot(job, 11) is job, "no hints after the last step with them"
    assert hints.allot(make_job(), 1).budget.prefix == "", "a task without a solution"
    seeded = [replace(job, sampling=replace(job.sampling, seed=n)) for n in range(400)]
    half = Hints(HintsConfig(steps=10, start=0.5, end=0.5), opening="")
    lengths = [len(half.allot(j, 1).budget.prefix) for j in seeded]
    assert np.mean(lengths) == pytest.approx(5.0, abs=0.4) and len(set(lengths)) == 6
    assert [len(half.allot(j, 1).budget.prefix) for j in seeded] == lengths


def test_the_hint_itself_is_learned_and_has_no_ratio() -> None:
    group = settled("g", [1.0, 0.0], task=make_tasks(1)[0])
    budget = TokenBudget(effort="high", max_prompt_tokens=8, max_thinking_tokens=8, max_answer_tokens=8, prefix="ab")
    job = replace(group.scored.group.job, budget=budget)
    given = group.scored.group.trajectories[0].sampled.copy()
    given[:4] = False  # two prompt tokens, two of the hint
    trajectories = tuple(replace(t, sampled=given) for t in group.scored.group.trajectories)
    scored = replace(group.scored, group=replace(group.scored.group, job=job, trajectories=trajectories))
    plan = asyncio.run(HintPolicy(0.001).plan(plan_of(1, (replace(group, scored=scored), []))))
    (learned,) = plan.batch.samples
    assert learned.loss_mask.tolist() == [False, False, True, True] and learned.stream is Stream.DEMONSTRATION
    assert learned.advantages.tolist() == pytest.approx([0, 0, 0.001, 0.001])
    assert not asyncio.run(HintPolicy(0.0).plan(plan_of(1, (replace(group, scored=scored), [])))).batch.samples
    assert given_tokens(np.zeros(5, np.bool_), 2).tolist() == [False] * 5


def test_text_is_drawn_by_seed_and_step_and_learned_after_its_first_token() -> None:
    chunks = [Chunk(np.arange(2 + n, dtype=np.int32), np.arange(2 + n) > 0) for n in range(6)]

    def drawn(step: int, seed: int = 0) -> list[str]:
        policy = TextPolicy(chunks, per_step=3, coefficient=0.1, seed=seed)
        plan = asyncio.run(policy.plan(plan_of(step)))
        for s in plan.batch.samples:
            assert s.stream is Stream.TEXT and s.loss_mask.tolist() == [False] + [True] * (s.token_ids.size - 1)
            assert s.advantages.tolist() == pytest.approx([0.0] + [0.1] * (s.token_ids.size - 1))
        return [s.group_id for s in plan.batch.samples]

    assert drawn(1) == drawn(1) and len(set(drawn(1))) == 3
    assert len({tuple(drawn(step)) for step in range(1, 9)}) > 1
    hidden = Chunk(np.arange(4, dtype=np.int32), np.asarray([False, True, False, True]))
    (part,) = asyncio.run(TextPolicy([hidden], per_step=1, coefficient=0.1, seed=0).plan(plan_of(1))).batch.samples
    assert part.loss_mask.tolist() == [False, True, False, True] and part.advantages[2] == 0
    few = TextPolicy(chunks[:2], per_step=3, coefficient=0.1, seed=0)
    assert len(asyncio.run(few.plan(plan_of(1))).batch.samples) == 2
