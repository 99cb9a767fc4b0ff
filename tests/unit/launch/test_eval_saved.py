"""A run's recorded evaluation measured as modes: texts, counts and verdicts as they were recorded, or judged anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from budgets.evaluation.attempt import Attempt
from launch.evaluation.sampling import attempts_of
from launch.evaluation.saved import judge_again, read_saved, sample_of
from rl.record import Fate, Recorder, Settled
from rollout.schema import Job, Outcome, Purpose, Sampling, ScoredGroup, Status, Task, TokenBudget
from tests.fakes.modes import BUDGETS, FakeJudge, FakePolicy, make_tasks

TASKS = make_tasks(6)


def record(directory: Path, step: int, *, verdict: float | None = 0.25) -> list[Attempt]:
    """An evaluation by a fake policy, recorded as a run does it with one verdict for all; what it should read as."""
    policy, settled, expected = FakePolicy(), [], []
    efforts = {"high": 60, "low": 6, "odd": 9}
    for mode, effort, cap in [(e, e, c) for e, c in efforts.items()] + [("high greedy", "high", 60)]:
        for task in TASKS:
            budget = TokenBudget(
                effort=effort, max_prompt_tokens=64, max_thinking_tokens=cap, max_answer_tokens=8, instruction="do"
            )
            sampling = Sampling(seed=len(settled), temperature=0.0 if "greedy" in mode else 1.0)
            name = f"eval-{mode}-{task.key}"
            job = Job(group_id=name, task=task, num_siblings=1, budget=budget, sampling=sampling, purpose=Purpose.EVAL)
            group, counts = asyncio.run(policy.sample(job))
            status = Status.TIMEOUT if verdict is None else Status.JUDGED
            outcome = Outcome(status=status, score=verdict, reason="as recorded")
            reason = "greedy" if "greedy" in mode else "sampled"
            scored = ScoredGroup(group=group, outcomes=(outcome,), steps=(None,))
            settled.append(Settled(scored=scored, fate=Fate(name="evaluated", step=step, reason=reason)))
            expected += attempts_of(group, counts, [outcome], mode=mode)
    asyncio.run(Recorder(directory / "groups").write_evaluation(step, settled))
    return expected


def test_the_newest_evaluation_is_read_as_it_was_made(tmp_path: Path) -> None:
    record(tmp_path, 0, verdict=1.0)
    expected = record(tmp_path, 20)
    saved = read_saved(tmp_path, BUDGETS)
    assert list(saved.attempts) == expected
    assert [mode.name for mode in saved.modes] == ["high", "low", "odd", "high greedy"]
    assert saved.modes[1].budget.instruction == "easy"  # the recipe's
    assert (saved.modes[2].promised, saved.modes[2].budget.instruction) == (9, "do")  # not in the recipe any more
    assert [task.key for task in saved.tasks] == [task.key for task in TASKS]
    assert saved.tasks[0].prompt == TASKS[0].prompt and saved.tasks[0].answer == TASKS[0].answer
    assert saved.origin == {"kind": "trajectories", "file": "eval-000020.parquet"}


def test_unjudged_attempts_stay_unjudged(tmp_path: Path) -> None:
    record(tmp_path, 0, verdict=None)
    saved = read_saved(tmp_path / "groups", BUDGETS)
    assert {(a.status, a.score, a.correct) for a in saved.attempts} == {("timeout", None, None)}


def test_a_new_judge_sees_what_the_old_one_saw(tmp_path: Path) -> None:
    recorded = record(tmp_path, 0)
    judge = FakeJudge()
    found = asyncio.run(judge_again(read_saved(tmp_path, BUDGETS), judge))
    assert judge.num_samples == len(recorded) == 24
    answers = {task.key: task.answer for task in TASKS}
    assert [a.correct for a in found] == [a.answer_text.startswith(answers[a.task]) for a in found]
    assert {a.reason for a in found} == {""} and {a.reason for a in recorded} == {"as recorded"}


def test_known_tasks_bring_what_the_record_lacks(tmp_path: Path) -> None:
    record(tmp_path, 0)
    first = TASKS[0]
    known = Task(
        key=first.key, prompt=first.prompt, answer=first.answer, verifier="exact", source="s", meta={"tests": [1]}
    )
    saved = read_saved(tmp_path, BUDGETS, known=[known])
    assert saved.tasks[0].meta == {"tests": [1]} and saved.tasks[1].meta == {}
    sample = sample_of(saved.attempts[0], saved.tasks[0])
    assert sample.meta == {"tests": [1]} and sample.closed and sample.effort == "high"


def test_a_directory_without_attempts_says_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither attempts\.jsonl with plan\.json.* nor groups/eval-\*\.parquet"):
        read_saved(tmp_path, BUDGETS)
