"""Resume equals no interruption, to the bit: weights and metrics of a run that was killed in the middle of a step and
interrupted after another one are those of a run that nobody touched.

The whole stack, with an engine that is deterministic: one sequence at a time, because the last bits of a probability
depend on what else is in a batch, and that on when a request arrives.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from rl.metrics import read_metrics
from rl.record_reader import iter_groups

ROOT = Path(__file__).parents[2]
RECIPE = Path(__file__).with_name("miniature.toml")
STEPS = 5
SAME = ("loss/", "reward/", "train/", "response/", "groups/", "advantage/", "batch/", "staleness/", "mismatch/")
PROGRAM = "import sys; from launch.cli import main; sys.exit(main())"

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(900)]


def start(log: Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "train", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def begun(directory: Path, name: str, log: Path) -> subprocess.Popen[bytes]:
    settings = (
        f"run.dir={directory}",
        f"run.name={name}",
        f"loop.num_steps={STEPS}",
        "loop.groups_per_step=6",
        "loop.checkpoint_every=1",
        "rollout.max_num_seqs=1",
        "sampling.judge_on=off",
        "sft=none",
        "evaluate.at_start=false",
        "evaluate.at_end=false",
    )
    return start(log, str(RECIPE), *(word for setting in settings for word in ("--set", setting)))


def until(run: subprocess.Popen[bytes], log: Path, step: int) -> None:
    while f"step {step}/" not in (text := log.read_text()):
        assert run.poll() is None, text
        time.sleep(0.01)


def kill_at_once(run: subprocess.Popen[bytes]) -> None:
    """The driver and all that it started, as a machine that loses its power."""
    family = [*psutil.Process(run.pid).children(recursive=True), psutil.Process(run.pid)]
    for process in reversed(family):
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    run.wait(timeout=30)


@pytest.fixture(scope="module")
def calm_and_disturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    log = root / "calm.txt"
    assert begun(root, "calm", log).wait(timeout=400) == 0, log.read_text()

    log = root / "disturbed.txt"
    run = begun(root, "disturbed", log)
    until(run, log, 2)
    time.sleep(0.2)  # groups of step 3 are in the buffer
    kill_at_once(run)
    run = start(log, "--resume", str(root / "disturbed"))
    until(run, log, 4)
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=120) == 130, log.read_text()
    run = start(log, "--resume", str(root / "disturbed"))
    assert run.wait(timeout=400) == 0, log.read_text()
    return root / "calm", root / "disturbed"


def test_the_weights_are_equal_to_the_bit(calm_and_disturbed: tuple[Path, Path]) -> None:
    calm, disturbed = (load_file(directory / "model" / "model.safetensors") for directory in calm_and_disturbed)
    assert calm.keys() == disturbed.keys()
    assert [name for name in calm if not torch.equal(calm[name], disturbed[name])] == []


def test_every_sampled_token_and_its_probability_are_equal(calm_and_disturbed: tuple[Path, Path]) -> None:
    def written(directory: Path) -> list[Any]:
        return [(g.group_id, t.token_ids, t.reward) for g in iter_groups(directory / "groups") for t in g.trajectories]

    calm = written(calm_and_disturbed[0])
    assert len({tuple(token_ids) for _, token_ids, _ in calm}) > STEPS, "it samples"
    assert calm == written(calm_and_disturbed[1])


def test_the_metrics_are_equal(calm_and_disturbed: tuple[Path, Path]) -> None:
    def measured(directory: Path) -> dict[int, dict[str, Any]]:
        rows = [row for row in read_metrics(directory / "metrics.jsonl") if "time/step_s" in row["metrics"]]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        return {
            row["step"]: {name: value for name, value in row["metrics"].items() if name.startswith(SAME)}
            for row in rows
        }

    calm, disturbed = map(measured, calm_and_disturbed)
    assert len(calm[1]) > 20
    assert calm == disturbed
