"""Timelines of steps: spans end up at their role, overlapping ones in rows of their own, and the file is Chrome's."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from rl import driver
from rl.batch import StepResult, TrainingBatch
from rl.phases import PhaseClock
from rl.trace import Span, Trace, events
from rollout.pool import EnginePool, Member
from tests.fakes.loop import make_world, play, random_delay


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def read(path: Path) -> list[dict[str, Any]]:
    content = json.loads(path.read_text())
    assert content["displayTimeUnit"] == "ms"
    return list(content["traceEvents"])


def check_format(found: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What both viewers rely on; returns the spans of each role."""
    names = {e["pid"]: e["args"]["name"] for e in found if e["ph"] == "M" and e["name"] == "process_name"}
    rows = defaultdict(list)
    roles = defaultdict(list)
    for event in found:
        if event["ph"] == "M":
            continue
        assert event["ph"] == "X" and isinstance(event["ts"], int) and event["ts"] >= 0 and event["dur"] >= 0
        rows[event["pid"], event["tid"]].append(event)
        roles[names[event["pid"]]].append(event)
    for row in rows.values():
        row.sort(key=lambda event: event["ts"])
        for before, after in itertools.pairwise(row):
            assert before["ts"] + before["dur"] <= after["ts"] + 1, "spans of one row overlap; 1 us is rounding"
    return roles


def test_rows_times_and_cuts() -> None:
    """Three spans of one engine: two overlap, the third takes the first row again. Times count from second 10."""
    spans = [
        Span(role="rollout-0", name="generate", start=9.0, end=11.0, subject="a"),
        Span(role="rollout-0", name="generate", start=10.5, end=12.0, subject="b"),
        Span(role="rollout-0", name="generate", start=11.0, end=11.5, subject="c"),
    ]
    shown = {e["args"]["of"]: e for e in events(spans, 10.0) if e["ph"] == "X"}
    assert {name: (e["tid"], e["ts"], e["dur"]) for name, e in shown.items()} == {
        "a": (1, 0, 1_000_000),
        "b": (2, 500_000, 1_500_000),
        "c": (1, 1_000_000, 500_000),
    }
    assert "is_cut" in shown["a"]["args"] and "is_cut" not in shown["b"]["args"]


def test_only_wanted_steps_are_written_and_each_holds_its_own(tmp_path: Path) -> None:
    clock = Clock()
    trace = Trace(tmp_path / "traces", steps=(2,), warn=pytest.fail, now=clock)
    for step in (1, 2, 3):
        with trace.span("judge", "judge", f"of step {step}"):
            clock.time += 1.0
        with trace.span("learner", "learn", f"of step {step}"):
            clock.time += 2.0
            trace.turn(step)
    assert [path.name for path in (tmp_path / "traces").iterdir()] == ["step-000002.json"]
    roles = check_format(read(trace.path(2)))
    assert [(e["args"]["of"], e["ts"], e["dur"]) for e in roles["judge"]] == [("of step 2", 0, 1_000_000)]
    first, second = sorted(roles["learner"], key=lambda e: e["ts"])
    assert first["args"]["of"] == "of step 1" and first["dur"] == 0 and "is_cut" in first["args"]
    assert second["args"]["of"] == "of step 2" and second["dur"] == 2_000_000 and "is_cut" in second["args"]


def test_what_another_process_measured_is_moved_to_our_clock(tmp_path: Path) -> None:
    clock = Clock()
    trace = Trace(tmp_path, steps=(1,), warn=pytest.fail, now=clock)
    clock.time += 5.0
    trace.add("learner rank 0", [("forward and backward", 7000.0, 7002.0), ("optimizer", 7002.0, 7003.0)])
    trace.add("learner rank 1", [])
    trace.turn(1)
    roles = check_format(read(trace.path(1)))
    assert [(e["name"], e["ts"], e["dur"]) for e in roles["learner rank 0"]] == [
        ("forward and backward", 2_000_000, 2_000_000),
        ("optimizer", 4_000_000, 1_000_000),
    ]


def test_a_trace_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "traces").write_text("a file stands there")
    told: list[str] = []
    trace = Trace(tmp_path / "traces", steps=(1,), warn=told.append)
    trace.turn(1)
    assert len(told) == 1 and "step 1 could not be written" in told[0]


def test_a_step_of_the_loop_shows_every_role(tmp_path: Path) -> None:
    """Six groups a step, generated side by side, at lag 1: the trace of step 2 holds what the next step began, too."""
    world = make_world(tmp_path, num_steps=3, groups_per_step=6, max_lag=1)
    run, learner = world.run, world.learner
    world.engines.delay = random_delay(1, 1.0)
    plain = learner.step

    async def step(batch: TrainingBatch) -> StepResult:
        result = await plain(batch)
        spans = {"learner rank 0": (("optimizer", 1.0, 1.5),)}
        return StepResult(version=result.version, seconds=result.seconds, spans=spans)

    learner.step = step  # type: ignore[method-assign]

    async def train() -> None:
        import asyncio

        now = asyncio.get_running_loop().time
        run.clock = PhaseClock(now)
        run.clock.trace = Trace(tmp_path / "traces", steps=(2,), warn=pytest.fail, now=now)
        await driver.train(run)

    play(train())
    roles = check_format(read(tmp_path / "traces" / "step-000002.json"))
    assert {"groups", "judge", "learner", "learner rank 0", "weights", "driver"} <= roles.keys()
    assert [e["args"]["of"] for e in roles["learner"]] == ["step 2"]
    assert len(roles["groups"]) >= 6 and len({e["tid"] for e in roles["groups"]}) > 1
    assert {e["name"] for e in roles["driver"]} >= {"starve", "record"}


async def test_the_pool_says_which_engine_did_what(tmp_path: Path) -> None:
    class Actor:
        def __getattr__(self, method: str) -> Any:
            class Remote:
                @staticmethod
                async def answer() -> int:
                    return 0

                remote = staticmethod(lambda *args: Remote.answer())

            return Remote

    pool = EnginePool([Member(f"rollout-{i}", Actor(), "log") for i in range(2)], call_timeout_s=5.0)
    trace = Trace(tmp_path, steps=(1,), warn=pytest.fail)
    pool.observe = trace.span
    await pool.begin_update(1)
    trace.turn(1)
    roles = check_format(read(trace.path(1)))
    assert {role: [e["name"] for e in spans] for role, spans in roles.items()} == {
        "rollout-0": ["begin_update"],
        "rollout-1": ["begin_update"],
    }
