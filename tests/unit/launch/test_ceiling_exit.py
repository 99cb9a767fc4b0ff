"""What the command does when a ceiling ends a run: the model is kept, summary and report are written, and the last line
names the ceiling and how to go on, with an exit code of its own."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from budgets.ledger import Breach
from launch import cli, phases, work
from launch.console import ConsoleReporter
from launch.meter import CeilingReached
from launch.rundir import RunDirectory
from rl.metrics import MetricsWriter
from rollout.schema import Metric

QUICKSTART = Path(__file__).parents[3] / "launch/recipes/quickstart.toml"


@contextlib.contextmanager
def without_ray(config: Any, directory: RunDirectory, terminal: Console) -> Iterator[work.Work]:
    with ConsoleReporter(Console(file=io.StringIO()), title="run", num_steps=1) as console:
        yield work.Work(config, directory, console)


async def spent(*args: Any) -> None:
    raise CeilingReached(Breach(name="max_judge_calls", ceiling=500, spent=512))


@pytest.mark.parametrize(("steps", "is_measured"), [(0, False), (0, True), (7, True)])
def test_a_ceiling_has_a_line_a_report_and_an_exit_code(
    steps: int, is_measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "capped"
    model = directory / "checkpoints" / f"step-{steps:06d}" / "learner" / "model"

    def prepare(job: work.Work) -> None:
        if is_measured:  # step 0: the evaluation before training
            metrics = MetricsWriter(directory)
            metrics.write(steps, [Metric(name="reward/mean", value=0.5)])
            metrics.close()
        if steps:
            model.mkdir(parents=True)
            (model / "model.safetensors").write_bytes(b"weights")

    monkeypatch.setattr(work, "session", without_ray)
    monkeypatch.setattr(phases, "prepare", prepare)
    monkeypatch.setattr(phases, "_train", spent)
    arguments = ["train", str(QUICKSTART), "--set", f"run.dir={tmp_path}", "--set", "run.name=capped"]
    monkeypatch.setattr(sys, "argv", ["ponder", *arguments])
    assert cli.main() == cli.SPENT == 3
    done = "step 7 is saved" if steps else "no step was trained"
    assert capsys.readouterr().err == (
        f"stopped: budgets.ceilings.max_judge_calls = 500 is reached (512 spent); {done}. Raise the ceiling to go on: "
        f"ponder train --resume {directory} --set budgets.ceilings.max_judge_calls=...\n"
    )
    assert {(directory / name).is_file() for name in ("report.html", "summary.json")} == {is_measured}
    assert (directory / "model" / "model.safetensors").is_file() == bool(steps)
