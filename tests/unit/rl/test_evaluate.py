"""Evaluation: intervals worked by hand, unjudged answers apart, the weights' version in the result."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.config import EvaluateConfig
from rl.driver import train
from rl.evaluate import Evaluator, evaluate_cell, unjudged, wilson_interval
from rl.record import Fate, Settled
from rl.record_reader import iter_groups
from rl.waits import Waits
from rollout.schema import Finish, Purpose
from tests.fakes.loop import FakeEngines, FakeJudge, make_scored, make_tasks, make_world, play


def test_wilson_interval() -> None:
    assert wilson_interval(128, 300) == pytest.approx((0.3720, 0.4832), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_proportion(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)
    assert 0 <= low <= counts[0] / counts[1] + 1e-12 and counts[0] / counts[1] - 1e-12 <= high <= 1


def test_unjudged_answers_leave_the_denominator() -> None:
    cell = evaluate_cell("high", "greedy", [make_scored([s]) for s in (1.0, 0.0, 1.0, None)])
    assert (cell.num_tasks, cell.num_judged, cell.num_correct, cell.num_unjudged) == (4, 3, 2, 1)
    assert cell.accuracy == pytest.approx(2 / 3) and cell.thinking_tokens == 4 and cell.truncated == 0
    assert math.isnan(evaluate_cell("high", "greedy", [make_scored([None])]).accuracy)
    with pytest.raises(ValueError, match="at least one held-out task"):
        evaluate_cell("high", "greedy", [])


def test_answers_without_a_verdict_are_counted_by_cause_with_an_example() -> None:
    def answer(score: float | None, error: str | None = None) -> Settled:
        scored = make_scored([score])
        (trajectory,) = scored.group.trajectories
        if error is not None:
            trajectory = replace(trajectory, finish=Finish.PROMPT_TOO_LONG, error=error)
        group = replace(scored.group, trajectories=(trajectory,))
        return Settled(scored=replace(scored, group=group), fate=Fate(name="evaluated", step=1))

    answers = [answer(1.0), answer(None, "9 tokens, the limit is 8"), answer(None), answer(None, "12 tokens")]
    assert unjudged(answers) == {"prompt_too_long": (2, "9 tokens, the limit is 8"), "timeout": (1, "")}
    assert unjudged(answers[:1]) == {}


def test_more_tasks_than_held_out_are_refused() -> None:
    parts = {"budgets": [], "generator": FakeEngines(), "judge": FakeJudge(), "waits": Waits(1.0)}
    with pytest.raises(ValueError, match="got 5 of 4"):
        Evaluator(EvaluateConfig(num_tasks=5), tasks=make_tasks(4), **parts)  # type: ignore[arg-type]


def test_a_run_evaluates_before_during_and_after(tmp_path: Path) -> None:
    world = make_world(tmp_path, num_steps=5, eval_every=2, max_lag=0, evaluate=EvaluateConfig(num_tasks=3))
    world.judge.verdict = lambda job, sibling: float(sibling % 2 or job.purpose == Purpose.EVAL)
    play(train(world.run))
    assert [(r.step, r.version) for r in world.reporter.evaluations] == [(0, 0), (2, 2), (4, 4), (5, 5)]
    result = world.reporter.evaluations[1]
    assert [(c.effort, c.mode, c.num_tasks, c.accuracy) for c in result.cells] == [
        ("high", "sampled", 3, 1.0),
        ("high", "greedy", 3, 1.0),
    ]
    assert json.loads(json.dumps(result.as_json()))["cells"][0]["low"] == pytest.approx(0.4385, abs=1e-4)
    assert {g.fate.reason for g in iter_groups(tmp_path / "groups", evaluations=True)} == {"sampled", "greedy"}
    jobs = [job for job in world.engines.jobs if job.purpose == Purpose.EVAL]
    assert {job.sampling.temperature for job in jobs} == {0.0, 1.0}
    seeds = {(job.task.key, job.sampling.temperature): job.sampling.seed for job in jobs}
    assert all(seeds[job.task.key, job.sampling.temperature] == job.sampling.seed for job in jobs), "seeds must repeat"
