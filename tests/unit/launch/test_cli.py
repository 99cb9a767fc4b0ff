"""Errors of the command line: one line, an exit code that says whose fault it was, the traceback where it belongs."""

import asyncio
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch import cli, doctor
from launch.doctor import Check
from launch.errors import first_cause, one_line
from rl.run import RunFailedError


def ponder(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["ponder", *arguments])
    return cli.main()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "gone.toml"], "error: there is no recipe at gone.toml"),
        (["train", "quickstart", "--set", "loop.stepz=3"], "unknown setting loop.stepz"),
        (["train"], "name a recipe, or a run to --resume"),
        (["train", "--resume", "gone"], "error: gone is not a run directory"),
        (["report", "gone"], "error: gone is not a run directory"),
        (["show", "gone"], "error: gone is not a run directory"),
        (["eval", "gone.toml"], "error: there is no recipe at gone.toml"),
        (["fetch", "gpt5"], "error: unknown model 'gpt5'; `ponder fetch` knows smollm2"),
        (["bogus"], "No such command 'bogus'"),
        (["train", "quickstart", "--bogus"], "No such option"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert ponder(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert "Traceback" not in error


def test_a_failed_check_fails_the_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    bad = Check(name="disk", level="failed", found="0 GiB", remedy="free some space")
    monkeypatch.setattr(doctor, "examine", lambda directory: [bad])
    assert ponder(monkeypatch, "doctor") == 1
    assert "free some space" in capsys.readouterr().out


def test_a_failure_is_exit_code_1_and_an_interrupt_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(directory: Path) -> list[Check]:
        raise OSError("disk on fire")

    def interrupt(directory: Path) -> list[Check]:
        raise KeyboardInterrupt

    monkeypatch.setattr(doctor, "examine", fail)
    assert ponder(monkeypatch, "doctor") == 1
    assert capsys.readouterr().err == "error: disk on fire (OSError)\n"
    monkeypatch.setattr(doctor, "examine", interrupt)
    assert ponder(monkeypatch, "doctor") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_first_cause_comes_out_of_groups_and_passes_over_cancellations() -> None:
    cause = ValueError("lr too high")
    group = BaseExceptionGroup("loops", [asyncio.CancelledError(), BaseExceptionGroup("learn", [cause])])
    assert first_cause(group) is cause


def test_an_error_is_one_line_and_keeps_its_kind_when_it_is_not_ours() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(RunFailedError("train failed: x")) == "train failed: x"
    assert one_line(KeyError("x")) == "'x' (KeyError)"
    assert one_line(TimeoutError()) == "TimeoutError"


def test_a_doctor_finds_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    blocked = doctor.check_writable(tmp_path / "file" / "runs")
    assert (blocked.level, blocked.remedy) == ("failed", "set run.dir to a directory you may write to")
    broken = doctor.check_import("thing", "import no_such_module")
    assert broken.level == "failed"
    assert "No module named 'no_such_module'" in broken.found
    dead = doctor.check_import("thing", "import os; os.abort()")
    assert dead.found == "ended by signal 6"
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy==0.1", "ray>=1", "gone==2.0"])
    pins = doctor.check_versions()
    assert pins.level == "failed"
    assert "(0.1 wanted); gone is missing (2.0 wanted)" in pins.found
    assert doctor.check_loopback().level == "ok"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_background_job_of_a_shell_can_be_stopped(number: signal.Signals) -> None:
    """A shell starts one with SIGINT ignored; a program under nohup is such a job."""
    # Short naps: a signal that arrives just before one long sleep would be heard only after it.
    wait = "lambda **_: print('up', flush=True) or [time.sleep(0.05) for _ in range(1200)]"
    # Where the tests themselves run under nohup, SIGHUP is ignored, and the program would rightly leave it so.
    heard = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    program = f"{heard}; import time, launch.cli as c; c.app = {wait}; c.main()"
    quiet = f"trap '' INT; exec {shlex.quote(sys.executable)} -c {shlex.quote(program)}"
    with subprocess.Popen(["sh", "-c", quiet], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "up\n"
        job.send_signal(number)
        assert job.wait(timeout=50) != 0
