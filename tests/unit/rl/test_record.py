"""What is recorded comes back, and a step is recorded once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from rl.record import Fate, Recorder, Settled
from rl.record_reader import iter_groups, ledger, recorded_steps
from rollout.schema import ScoreKind, StepScores, StepSpan
from tests.fakes.loop import make_job, make_scored, make_tasks

STEPS = StepScores(
    spans=(StepSpan(start=2, end=4), StepSpan(start=4, end=6)),
    scores=np.asarray([0.5, np.nan], dtype=np.float32),
    kind=ScoreKind.PROB,
    scorer="exact",
    version=3,
    notes=("1+1=2", "no claim"),
)


def settled(group_id: str, step: int, *, effort: str = "high", dropped: str = "", task: int = 0) -> Settled:
    job = make_job(group_id, effort=effort, task=make_tasks(task + 1)[task])
    scored = make_scored([1.0, None], steps=[STEPS, None], shaped={"length": [-0.25, 0.0]}, job=job)
    if dropped:
        return Settled(scored=scored, fate=Fate(name="dropped", step=step, reason=dropped))
    advantages = (np.asarray([0, 0, 1, 1, 3, 3], dtype=np.float32), None)
    return Settled(scored=scored, fate=Fate(name="trained", step=step), advantages=advantages)


def write(recorder: Recorder, step: int, *groups: Settled) -> None:
    asyncio.run(recorder.write(step, groups))


def test_a_group_comes_back_whole(tmp_path: Path) -> None:
    write(Recorder(tmp_path), 1, settled("a", 1))
    (group,) = iter_groups(tmp_path)
    assert (group.group_id, group.fate, group.effort) == ("a", Fate(name="trained", step=1), "high")
    assert group.prompt == (("user", "0 + 1 ="),) and group.reference == "1" and group.max_thinking_tokens == 8
    right, unjudged = group.trajectories
    assert right.token_ids == (0, 1, 2, 3, 4, 5) and right.text == "xxxx" and right.thinking == (0, 4)
    assert right.answer is None and right.num_thinking_tokens == 4 and right.version_start == 0
    assert (right.status, right.score, right.reward, right.shaped) == ("judged", 1.0, 0.75, {"length": -0.25})
    assert (right.advantage_mean, right.advantage_min, right.advantage_max) == (2.0, 1.0, 3.0)
    assert right.steps is not None and right.scorer == "exact"
    assert [(s.char_start, s.char_end, s.score, s.note) for s in right.steps] == [
        (0, 2, 0.5, "1+1=2"),
        (2, 4, None, "no claim"),
    ]
    assert unjudged.score is None and unjudged.reward is None and unjudged.steps is None
    assert unjudged.advantage_mean is None and unjudged.status == "timeout"


def test_groups_are_filtered(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    write(recorder, 1, settled("a", 1), settled("b", 1, effort="low", dropped="all_wrong"))
    write(recorder, 2, settled("c", 2, effort="low", task=1))
    asyncio.run(recorder.write_evaluation(2, [settled("e", 2)]))

    def ids(**filters: object) -> list[str]:
        return [g.group_id for g in iter_groups(tmp_path, **filters)]  # type: ignore[arg-type]

    assert ids() == ["a", "b", "c"]
    assert ids(effort="low") == ["b", "c"] and ids(fate="dropped") == ["b"] and ids(steps=range(2, 9)) == ["c"]
    assert ids(task_key=make_tasks(2)[1].key) == ["c"] and ids(evaluations=True) == ["e"]
    assert [(e.step, e.fate, e.reason) for e in ledger(tmp_path)] == [
        (1, "trained", ""),
        (1, "dropped", "all_wrong"),
        (2, "trained", ""),
    ]


def test_a_step_is_recorded_once(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    write(recorder, 1, settled("a", 1))
    with pytest.raises(FileExistsError, match="recorded once"):
        write(recorder, 1, settled("a", 1))


def test_an_empty_step_has_a_file(tmp_path: Path) -> None:
    write(Recorder(tmp_path), 1)
    assert recorded_steps(tmp_path) == [1] and ledger(tmp_path) == []


def test_later_files_are_set_aside_and_kept(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for _ in range(2):
        for step in (2, 3):
            write(recorder, step, settled("a", step))
        (tmp_path / "step-000004.parquet.tmp").write_bytes(b"half")
        recorder.set_aside(after_step=1)
    assert recorded_steps(tmp_path) == [] and recorder.set_aside(after_step=1) == []
    kept = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("step-*"))
    names = ("step-000002.parquet", "step-000003.parquet", "step-000004.parquet.tmp")
    assert kept == [f"set-aside-{n}/{name}" for n in (1, 2) for name in names]
