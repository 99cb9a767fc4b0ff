"""The live console: what it counts, what it prints without a terminal, what it costs."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from launch.console import ConsoleReporter
from launch.reporting import PhaseReporter
from launch.rundir import PhaseLog
from launch.screen import Snapshot, duration, heartbeat_line, live_view, plain_step, sparkline, visible
from rl.batch import StepResult, TrainingBatch
from rl.record import Fate
from rl.report.data import evaluation_of
from rollout.schema import Metric
from tests.fakes.report import EFFORTS, HOSTILE, evaluation, scored_group, step_metrics

TRAINED = Fate(name="trained", step=1)
DROPPED = Fate(name="dropped", step=1, reason="zero_variance")


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reporter(output: io.StringIO, clock: Clock, *, terminal: bool = False, num_steps: int = 3) -> ConsoleReporter:
    console = Console(file=output, force_terminal=terminal, width=100, color_system="truecolor" if terminal else None)
    return ConsoleReporter(console, title="night", num_steps=num_steps, clock=clock)


def train_step(console: ConsoleReporter, clock: Clock, step: int, *, seconds: float = 2.0) -> None:
    """Three groups of four, one per effort, the last one dropped; then the step."""
    for index, effort in enumerate(EFFORTS):
        console.group(scored_group(step, index, effort), DROPPED if effort == "high" else TRAINED)
    clock.now += seconds
    batch = TrainingBatch(step=step, version=step - 1, samples=(), num_groups=3)
    console.step(step, batch, StepResult(version=step, seconds=1.0), step_metrics(step, 10))


def test_without_a_terminal_a_step_is_one_plain_line() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock) as console:
        console.begin("train")
        train_step(console, clock, 1)
    line = next(line for line in output.getvalue().splitlines() if line.startswith("step"))
    # low: 2 of 4 right; thinking "10+3=13\n13+7=20\n" is 16 tokens. Rewards: mean of 0.5 and length terms that cancel.
    # Sampled: 4 x (16 + 17) + 4 x (16 + 17) + 4 x (30 + 17) = 452 tokens in 2 s.
    assert line == (
        "step 1/3 | reward 0.500 | low 50.0% 16.0 tok | medium 50.0% 16.0 tok | high 50.0% 30.0 tok | 226 tok/s | "
        "generate 0.92s judge 0.20s learn 0.68s publish 0.05s | "
        "idle engines 30.0% learner 50.0% | dropped 1/3 | left 4.0 s"
    )


def test_plain_output_holds_no_control_characters_and_no_wrapped_lines() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock, num_steps=2) as console:
        with console.running("prepare"):
            clock.now += 4
        console.begin("train")
        train_step(console, clock, 1)
        train_step(console, clock, 2)
        console.warning(f"engine 0 answered {HOSTILE}")
        console.evaluation(evaluation(2, gain=0.4))
        console.phase("train", 4.0)
    text = output.getvalue()
    assert not [c for c in text if ord(c) < 32 and c != "\n"]
    assert text.splitlines()[:3] == ["prepare ...", "prepare: 4.0 s", "train ..."]
    assert sum(line.startswith("step ") for line in text.splitlines()) == 2
    assert "train: 4.0 s" in text.splitlines()
    assert "low sampled 46.0% 16.0 tok" in text


def test_the_phases_add_up_and_evaluations_are_told_apart() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock, num_steps=2) as console:
        console.begin("evaluate before")
        console.phase("evaluate", 3.0)
        train_step(console, clock, 1)
        console.phase("evaluate", 5.0)
        console.phase("checkpoint", 1.0)
        train_step(console, clock, 2)
        console.phase("checkpoint", 2.0)
        console.phase("evaluate", 4.0)
        seen = dict(console.snapshot.phases)
    assert seen == {"evaluate before": 3.0, "evaluate": 5.0, "checkpoint": 3.0, "evaluate after": 4.0}


def test_a_resumed_run_calls_its_last_evaluation_by_its_name(tmp_path: Path) -> None:
    output, clock = io.StringIO(), Clock()
    log = PhaseLog(tmp_path / "phases.json")
    with reporter(output, clock, num_steps=2) as console:
        watcher = PhaseReporter(console, log, num_steps=2)
        watcher.resumed(2)
        watcher.phase("evaluate", 4.0)
        seen = dict(console.snapshot.phases)
    assert seen == {"evaluate after": 4.0}
    assert log.names() == ["evaluate after"]


def test_an_evaluation_between_two_steps_does_not_slow_the_steps_down() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock, num_steps=12) as console:
        train_step(console, clock, 1)
        clock.now += 8
        console.phase("evaluate", 8.0)
        train_step(console, clock, 2)
        assert console.snapshot.seconds_per_step == pytest.approx(2.0)
        assert console.snapshot.seconds_left == pytest.approx(20.0)


def test_an_unjudged_answer_is_no_wrong_answer() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock) as console:
        console.group(scored_group(1, 6, "low", accuracy=0.5), TRAINED)  # right, right, wrong, timed out
        clock.now += 1
        console.step(1, TrainingBatch(step=1, version=0, samples=(), num_groups=1), None, [])
        assert console.snapshot.efforts["low"].accuracy == pytest.approx(2 / 3)


def test_the_heart_beats_when_no_step_completes() -> None:
    output = io.StringIO()
    console = ConsoleReporter(Console(file=output), title="night", num_steps=3, heartbeat_s=0.05)
    with console:
        console.begin("train")
        console.group(scored_group(1, 0, "low"), TRAINED)
        time.sleep(0.3)
    beats = [line for line in output.getvalue().splitlines() if "no step completed" in line]
    assert len(beats) >= 2
    assert beats[0].endswith("after step 0, 1 groups finished since")


def test_a_phase_with_a_total_says_how_far_it_is() -> None:
    now = Snapshot(title="n", num_steps=3, running="cold start", phase_started=10.0, phase_done=40, phase_total=200)
    assert heartbeat_line(now, 52.0) == "cold start: still running after 42.0 s, 40/200"


def test_the_live_screen_redraws_in_place_and_gives_the_terminal_back() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock, terminal=True) as console:
        console.begin("train")
        train_step(console, clock, 1)
        clock.now += 40
    text = output.getvalue()
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is back
    assert "zero_variance 1" in text
    assert "no step completed for 40.0 s" in text


def test_the_live_screen_holds_what_a_person_watches() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock) as console:
        console.begin("train")
        train_step(console, clock, 1)
        train_step(console, clock, 2)
        now = console.snapshot
    screen = io.StringIO()
    view = live_view(now, clock=clock.now, width=100, is_ascii=True, quiet_after_s=30)
    Console(file=screen, width=100).print(view)
    text = screen.getvalue()
    for part in (
        "2/3",
        "2.0 s left",
        "medium",
        "50.0%",
        "30.0 tok",
        "226 tokens/s",
        "publish",
        "0.05 s",
        "2 of 6 groups",
    ):
        assert part in text
    assert "no step" not in text
    assert len(text.splitlines()) <= 14


def test_the_end_is_a_table_and_the_report_as_the_last_line() -> None:
    output, clock = io.StringIO(), Clock()
    console = reporter(output, clock)
    report = "runs/a directory with a name that is much longer than one hundred columns/" + "x" * 60 + "/report.html"
    with console:
        console.finish(before=evaluation_of(evaluation(0)), after=evaluation_of(evaluation(9, gain=0.4)), report=report)
    lines = output.getvalue().splitlines()
    assert lines[-1] == f"report: {report}"
    high = next(line for line in lines if "high" in line and "sampled" in line)
    for part in ("38.0% [29.1, 47.8]", "78.0% [68.9, 85.0]", "+40.0", "30.0", "31.0"):
        assert part in high


def test_without_any_evaluation_the_end_is_the_report_alone() -> None:
    output = io.StringIO()
    reporter(output, Clock()).finish(before=None, after=None, report="report.html")
    assert output.getvalue() == "report: report.html\n"


def test_an_event_costs_less_than_a_millisecond() -> None:
    output, clock = io.StringIO(), Clock()
    groups = [scored_group(1, index, EFFORTS[index % 3], size=8) for index in range(200)]
    with reporter(output, clock) as console:
        console.begin("train")
        began = time.perf_counter()
        for group in groups:
            console.group(group, TRAINED)
        each = (time.perf_counter() - began) / len(groups)
    assert each < 1e-3


def test_small_formats() -> None:
    assert [duration(s) for s in (4.21, 59.96, 187, 3729)] == ["4.2 s", "1:00", "3:07", "1:02:09"]
    assert sparkline([0, 1, 2, 7], width=3, is_ascii=True) == "_.#"
    assert sparkline([3, 3], width=8, is_ascii=True) == "__"
    assert visible("a\x1b[2J\tb\n\x9b\u202e") == "a\\x1b[2J\tb\n\\x9b\\u202e"
    empty = Snapshot(title="n", num_steps=5)
    assert plain_step(empty) == "step 0/5 | reward - | dropped 0/0"


def test_a_step_whose_groups_were_all_dropped_has_no_reward() -> None:
    output, clock = io.StringIO(), Clock()
    with reporter(output, clock) as console:
        clock.now += 1
        metrics = [Metric(name="time/generate_s", value=0.5)]
        console.step(1, TrainingBatch(step=1, version=0, samples=(), num_groups=0), None, metrics)
    assert (
        output.getvalue().splitlines()[-1]
        == "step 1/3 | reward - | 0 tok/s | generate 0.50s | dropped 0/0 | left 2.0 s"
    )
