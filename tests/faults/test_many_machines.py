"""Faults of a run on a Ray cluster of three machines: deaths of every role at random times, lost machines and cables.

Whatever happens, the run ends by itself: finished, or stopped with the cause in its last line, from where it can go on.
Then every task has been consumed once, every step was measured once, and nothing of the run is left on any machine.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from launch import recipe
from launch.rundir import RunDirectory
from rl.metrics import read_metrics
from rl.record_reader import ledger
from tests.faults.machines import COMMAND, Machines, can_be_made, kill, machines, until

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "tests/invariant/miniature.toml"
STEPS, GROUPS = 24, 8
# Named by a path, as a user's would be, so that every answer goes to the service and its workers. It can be stuck.
VERIFIER = """
import os, time

def verify(sample):
    while os.path.exists(__file__ + ".stuck"):
        time.sleep(0.1)
    return float(sample.answer.strip() == sample.reference)
"""
END_S = 240.0  # after a fault a run has ended, one way or the other
LEFT_S = 30.0  # and then its processes
# What the last line must say if the death of a role ends the run, and not the run's finish.
CAUSES = {
    "engine": r"engine rollout-\d",
    "learner": r"learner rank 0 died",
    "node": r"engine rollout-\d",
    "stop": r"^interrupted; nothing finished is lost",
}
ROLES = ("engine", "learner", "judge", "scorer", "worker", "driver", "stop", "node")
# Engine and step scorer; a machine and the verifier. The other seeds are in the slow set.
FAST = (10, 12)

pytestmark = [
    pytest.mark.stack,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_be_made(), reason="needs root and iproute2, to make network namespaces"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """One engine fits on each machine; the third has none until one must move there."""
    with machines(tmp_path_factory.mktemp("machines"), cpus=[1, 1, 1]) as made:
        yield made


@dataclass
class Trial:
    """A run, which may take several commands, and its console."""

    cluster: Machines
    directory: Path
    log: Path
    process: subprocess.Popen[bytes]

    def text(self) -> str:
        return self.log.read_text()

    def last_line(self) -> str:
        return self.text().rstrip().rpartition("\n")[2]

    def until_step(self, step: int) -> bool:
        """Wait until this command has trained it, or a later one. False if it ended before."""
        while self.process.poll() is None:
            if any(int(number) >= step for number in re.findall(r"^step (\d+)/", self.since(), re.MULTILINE)):
                return True
            time.sleep(0.02)
        return False

    def since(self) -> str:
        """What the newest command has printed."""
        return self.text().rpartition(COMMAND)[2]

    def go_on(self) -> None:
        self.process = self.cluster.train(self.log, "--resume", str(self.directory))


@pytest.fixture(scope="module")
def prepared(cluster: Machines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that has its model, and no more: making one for each test would take longer than the test."""
    place = tmp_path_factory.mktemp("prepared")
    settings = (
        f"run.dir={place}",
        f"cluster.address={cluster.address}",
        "cluster.num_cpus=3",
        "sft=none",
        "tasks.train.num_tasks=400",
        f"loop.num_steps={STEPS}",
        f"loop.groups_per_step={GROUPS}",
        "rollout.num_engines=2",
        "rollout.group_size=4",
        "sampling.judge_on=off",
        "evaluate.at_start=false",
        "evaluate.at_end=false",
    )
    log = place / "console.txt"
    process = cluster.train(log, str(RECIPE), *(word for setting in settings for word in ("--set", setting)))
    model = place / "run/start_model/model.safetensors"
    until("the model is made", lambda: model.is_file() or process.poll() is not None, seconds=300)
    assert process.poll() is None, log.read_text()
    process.kill()
    process.wait(timeout=10)
    until("nothing of it is left", lambda: not cluster.of_the_run(), seconds=LEFT_S)
    return place / "run"


def begun(cluster: Machines, prepared: Path, *settings: str, place: Path) -> Trial:
    """A run of two engines on a cluster that is whole."""
    until("all machines are there", lambda: cluster.num_nodes() == 3, seconds=240)
    directory, log, verifier = place / "run", place / "console.txt", place / "verifier.py"
    verifier.write_text(VERIFIER)
    shutil.copytree(prepared, directory, ignore=shutil.ignore_patterns("logs", ".lock"))
    given = (f"rewards.components.answer.verifier={verifier}:verify", *settings)
    config = recipe.check(recipe.apply(recipe.read(prepared / "config.json"), given), where="test")
    RunDirectory.open(directory).save_config(config)
    process = cluster.train(log, "--resume", str(directory))
    return Trial(cluster=cluster, directory=directory, log=log, process=process)


def strike(trial: Trial, role: str, chance: random.Random) -> None:
    """The fault itself. A role that is not there at that moment is spared."""
    cluster = trial.cluster
    if role == "node":
        cluster.power_off(1)
        cluster.power_on(1)
    elif role == "stop":
        trial.process.send_signal(signal.SIGTERM)
    elif role == "driver":
        trial.process.kill()
    elif found := cluster.of_role(role):
        kill(chance.choice(found))


def check_end(trial: Trial, roles: list[str]) -> bool:
    """The run has ended, and left nothing behind. Returns whether it is finished, else it stopped for a good reason."""
    code = trial.process.wait(timeout=END_S)
    until(f"nothing of the run is left, {roles}", lambda: not trial.cluster.of_the_run(), seconds=LEFT_S)
    if code == 0:
        return True
    if code == -signal.SIGKILL:
        assert "driver" in roles
        return False
    reasons = [CAUSES[role] for role in roles if role in CAUSES]
    last = trial.last_line()
    assert any(re.search(reason, last) for reason in reasons), f"exit code {code} after {roles}: {trial.text()}"
    assert f"ponder train --resume {trial.directory}" in last
    return False


def check_whole(directory: Path) -> None:
    entries = ledger(directory / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == GROUPS * STEPS
    assert len({entry.task_key for entry in entries}) == len(entries)
    rows = [row for row in read_metrics(directory / "metrics.jsonl") if "time/step_s" in row["metrics"]]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))


def drawn(seed: int) -> list[tuple[str, int, float]]:
    """Two faults: the role, the step after which, and how many seconds later."""
    chance = random.Random(seed)
    first, second = chance.sample(ROLES, 2)
    return [
        (first, chance.randint(1, STEPS // 2), chance.random()),
        (second, chance.randint(STEPS // 2, STEPS - 2), chance.random()),
    ]


@pytest.mark.parametrize("seed", [s if s in FAST else pytest.param(s, marks=pytest.mark.slow) for s in range(20)])
def test_deaths_at_random_times(cluster: Machines, prepared: Path, tmp_path: Path, seed: int) -> None:
    faults, suffered = drawn(seed), list[str]()
    trial = begun(cluster, prepared, place=tmp_path)
    is_finished = False
    while not is_finished:
        for role, step, later in faults[len(suffered) :]:
            if not trial.until_step(step):
                break
            time.sleep(later)
            strike(trial, role, random.Random(seed))
            suffered.append(role)
        is_finished = check_end(trial, suffered)
        if not is_finished:
            assert trial.text().count(COMMAND) < 5, "it stops again and again"
            trial.go_on()
    assert len(suffered) == len(faults), "the run was over before the fault"
    check_whole(trial.directory)


@pytest.mark.slow
def test_a_machine_that_cannot_be_reached_is_left_behind(cluster: Machines, prepared: Path, tmp_path: Path) -> None:
    """No answer and no goodbye: Ray's health check decides, its engine's work goes elsewhere, and the run finishes."""
    trial = begun(cluster, prepared, place=tmp_path)
    assert trial.until_step(3), trial.text()
    assert any(process in cluster.of_role("engine") for process in cluster.processes(1)), "an engine is on machine 1"
    cluster.pull_cable(1)
    try:
        assert trial.process.wait(timeout=END_S) == 0, trial.text()
    finally:
        cluster.plug_in(1)
    assert re.search(r"engine rollout-\d died", trial.text())
    check_whole(trial.directory)
    # The machine itself lives. Once it hears that it was given up, it ends what it ran.
    until("nothing of the run is left", lambda: not cluster.of_the_run(), seconds=120)
    cluster.kill_all(1)
    cluster.power_on(1)


@pytest.mark.slow
def test_a_verifier_that_is_stuck_for_a_while_costs_answers_and_no_run(
    cluster: Machines, prepared: Path, tmp_path: Path
) -> None:
    trial = begun(cluster, prepared, "rewards.sandbox.max_seconds=0.5", "rewards.deadline_s=5", place=tmp_path)
    assert trial.until_step(3), trial.text()
    stuck = tmp_path / "verifier.py.stuck"
    stuck.touch()
    time.sleep(8.0)
    stuck.unlink()
    assert check_end(trial, [])
    check_whole(trial.directory)
    unjudged = [1 - row.get("judge/status/judged", 0.0) for row in rows_of(trial.directory)]
    assert max(unjudged) > 0.5 and unjudged[1] == 0 == unjudged[-1], unjudged


@pytest.mark.slow
def test_a_verifier_that_stays_stuck_ends_the_run_and_is_named(
    cluster: Machines, prepared: Path, tmp_path: Path
) -> None:
    limits = ("rewards.sandbox.max_seconds=0.5", "rewards.deadline_s=5", "rewards.quota.window=32")
    trial = begun(cluster, prepared, *limits, place=tmp_path)
    assert trial.until_step(3), trial.text()
    (tmp_path / "verifier.py.stuck").touch()
    assert trial.process.wait(timeout=60) == 1, trial.text()
    last = trial.last_line()
    assert "verifier.py:verify" in last and "rewards.quota" in last and "--resume" in last
    until("nothing of the run is left", lambda: not cluster.of_the_run(), seconds=LEFT_S)


@pytest.mark.slow
def test_of_two_checkpoints_the_damaged_newest_is_passed_over(
    cluster: Machines, prepared: Path, tmp_path: Path
) -> None:
    trial = begun(cluster, prepared, place=tmp_path)
    assert trial.until_step(13), trial.text()
    trial.process.kill()
    check_end(trial, ["driver"])
    saved = sorted((trial.directory / "checkpoints").glob("step-??????"))
    assert len(saved) == 2
    weights = saved[-1] / "learner/model/model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    trial.go_on()
    assert check_end(trial, [])
    passed_over = f"{saved[-1]} is damaged and passed over: learner/model/model.safetensors is not the file"
    assert passed_over in oneline(trial.since()), trial.text()
    assert re.search(rf"^step {int(saved[0].name[5:]) + 1}/", trial.since(), re.MULTILINE)
    check_whole(trial.directory)


@pytest.mark.slow
def test_without_the_head_the_run_ends_and_goes_on_when_it_is_back(
    cluster: Machines, prepared: Path, tmp_path: Path
) -> None:
    """Ray's head is the one part that a cluster cannot lose. What is finished is kept all the same."""
    trial = begun(cluster, prepared, place=tmp_path)
    assert trial.until_step(6), trial.text()
    for process in cluster.processes(0):
        if process.name() == "gcs_server":
            kill(process)
    assert trial.process.wait(timeout=END_S) not in (0, None), trial.text()
    assert "--resume" in trial.last_line(), trial.text()
    for machine in range(3):
        cluster.kill_all(machine)
    for machine in range(3):
        cluster.power_on(machine)
    trial.go_on()
    assert check_end(trial, [])
    check_whole(trial.directory)


def rows_of(directory: Path) -> list[dict[str, float]]:
    return [row["metrics"] for row in read_metrics(directory / "metrics.jsonl") if "time/step_s" in row["metrics"]]


def oneline(text: str) -> str:
    return " ".join(text.split())
