"""The Slurm script under a real slurmctld and two real slurmd on this machine: two nodes, a stop, a requeue, the end.

Needs Debian's slurm-wlm and munge (apt-get install slurm-wlm munge) and root, as slurmd does; skipped without them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rl.record_reader import ledger

ROOT = Path(__file__).parents[2]
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch")
STEPS, GROUPS = 30, 16
CONFIG = """
ClusterName=ponder
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={base}
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName=one NodeHostname=localhost NodeAddr=127.0.0.1 Port={one} CPUs=2 RealMemory=2000
NodeName=two NodeHostname=localhost NodeAddr=127.0.0.1 Port={two} CPUs=2 RealMemory=2000
PartitionName=main Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(program) is None for program in PROGRAMS),
        reason="needs root and: apt-get install slurm-wlm munge",
    ),
]


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster of two nodes that both are this machine, on loopback. Its daemons end with the test."""
    place = tmp_path_factory.mktemp("slurm")
    for name in ("munge", "state", "spool-one", "spool-two"):
        (place / name).mkdir(mode=0o700)
    key = place / "munge/key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    base = 20_000 + os.getpid() % 20_000
    config = place / "slurm.conf"
    config.write_text(CONFIG.format(place=place, base=base, one=base + 1, two=base + 2))
    monkeypatch.setenv("SLURM_CONF", str(config))
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    commands = [
        ["munged", "--force", "--foreground", *(f"--{k}={place}/munge/{v}" for k, v in files.items())],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "one"],
        ["slurmd", "-D", "-N", "two"],
    ]
    daemons = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(1.0)
        until("both nodes are idle", lambda: run("sinfo", "-h", "-o", "%D %t").strip() == "2 idle", seconds=60)
        yield place
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(timeout=60)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def until(what: str, holds: object, *, seconds: float) -> None:
    """Wait for it. Raises AssertionError after so many seconds."""
    assert callable(holds)
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(1.0)


def test_a_job_on_two_nodes_is_stopped_put_back_and_ends(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, log = slurm / "runs", slurm / "job.log"
    for name, value in {
        "PONDER_RUNS": str(runs),
        "PONDER_NODE_IP": "127.0.0.1",
        "PONDER_VENV": str(Path(shutil.which("ponder") or ROOT / ".venv/bin/ponder").parents[1]),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray then keeps to 127.0.0.1 instead of looking for an interface
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(name, value)
    settings = (f"loop.num_steps={STEPS}", "loop.checkpoint_every=2")
    overrides = [part for setting in settings for part in ("--set", setting)]
    script = str(ROOT / "launch/slurm/train.sbatch")
    command = ["sbatch", "--parsable", "--nodes=2", f"--output={log}", f"--chdir={ROOT}", script]
    submitted = subprocess.run(
        [*command, "tests/invariant/miniature.toml", *overrides], capture_output=True, text=True, check=True, cwd=ROOT
    )
    job = submitted.stdout.strip()

    def text() -> str:
        return log.read_text() if log.is_file() else ""

    until("the run trains", lambda: "\nstep 3/" in text() or "ended with" in text(), seconds=400)
    run("scancel", "--signal=TERM", "--batch", job)
    until("the job goes on after its requeue", lambda: "start 1, 2 nodes" in text(), seconds=400)
    until("the job ends", lambda: "ended with exit code" in text().partition("start 1,")[2], seconds=500)
    first, _, second = text().partition("start 1,")
    assert "stopped by Slurm; back into the queue" in first and "report: " not in first
    assert "ended with exit code 0" in second, text()
    assert first.count("nothing") >= 2  # two nodes, fit
    entries = ledger(runs / f"slurm-{job}" / "groups")
    assert len({entry.group_id for entry in entries}) == len(entries) == GROUPS * STEPS
    until("no process of the job is left", lambda: not left_over(slurm), seconds=60)


def left_over(place: Path) -> list[int]:
    """Processes that the job started: they carry the state directory in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(place) in process.environ().get("PONDER_STATE", ""):
                found.append(process.pid)
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
    return found
