"""A Ray cluster of several machines on this one: each is a network namespace with an address, joined by a switch.

What runs on a machine is known by its namespace, so nothing that was started can hide. `launch/cluster.sh` starts Ray
on each, as it does on real hosts; the driver runs on the first. A cable can be pulled (a partition: no answer, and no
goodbye either) and a machine can lose its power. Needs root and iproute2.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
PORT = 6379
COMMAND = "$ ponder train "  # what the console of a run begins with, each time
DRIVER = "import sys; from launch.cli import main; sys.exit(main())"
# Asked of the head alone, without joining the cluster: that would start a worker for nothing.
COUNT_NODES = """
import sys
from ray._private.state import GlobalState
from ray._raylet import GcsClientOptions

state = GlobalState()
state._initialize_global_state(
    GcsClientOptions.create(sys.argv[1], None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False)
)
print(sum(node["Alive"] for node in state.node_table()))
"""
# What a run starts, by the names that Ray gives to processes (15 characters); the verifier's workers by their command.
ROLES = {
    "engine": "ray::RolloutAct",
    "learner": "ray::LearnerRan",
    "judge": "ray::_JudgeActo",
    "scorer": "ray::_ScorerAct",
}
WORKER = "rewards.worker"


def can_be_made() -> bool:
    """Whether this user may make network namespaces here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"ponder-try-{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return False
    subprocess.run(["ip", "netns", "del", name], check=True)
    return True


class Machines:
    """Machine 0 is the head, and the driver's. `cpus` is what Ray may use on each."""

    def __init__(self, place: Path, *, cpus: Sequence[int]) -> None:
        self.place = place
        self._cpus = cpus
        self._mark = f"pm{os.getpid()}"
        self._daemons: dict[int, subprocess.Popen[bytes]] = {}
        self.address = f"{self.ip(0)}:{PORT}"

    def ip(self, machine: int) -> str:
        return f"10.77.1.{machine + 1}"

    def space(self, machine: int | str) -> str:
        return f"{self._mark}-{machine}"

    def begin(self) -> None:
        """All machines up, and their Ray with all nodes."""
        _ip("netns", "add", self.space("switch"))
        _ip("-n", self.space("switch"), "link", "add", "switch", "type", "bridge")
        _ip("-n", self.space("switch"), "link", "set", "switch", "up")
        for machine in range(len(self._cpus)):
            _ip("netns", "add", self.space(machine))
            here, there = ("-n", self.space(machine)), ("-n", self.space("switch"))
            _ip(*here, "link", "set", "lo", "up")
            peer = ("peer", "name", f"port{machine}", "netns", self.space("switch"))
            _ip(*here, "link", "add", "eth0", "type", "veth", *peer)
            _ip(*here, "addr", "add", f"{self.ip(machine)}/24", "dev", "eth0")
            _ip(*here, "link", "set", "eth0", "up")
            _ip(*there, "link", "set", f"port{machine}", "master", "switch", "up")
            self.power_on(machine)
            # One after the other: they share /tmp, where two at a time would take the same names for their sockets.
            until(f"machine {machine} has joined", lambda n=machine: self.num_nodes() == n + 1, seconds=120)

    def power_on(self, machine: int) -> None:
        role = ["head"] if machine == 0 else ["worker", self.address]
        with (self.place / f"machine{machine}.log").open("ab") as log:
            self._daemons[machine] = subprocess.Popen(
                ["ip", "netns", "exec", self.space(machine), "bash", str(ROOT / "launch/cluster.sh"), *role],
                cwd=ROOT,
                env=self.environment(machine),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def environment(self, machine: int) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return kept | {
            "PONDER_STATE": str(self.place / "state"),
            "PONDER_VENV": sys.prefix,
            "PONDER_NODE_IP": self.ip(machine),
            "PONDER_CPUS": str(self._cpus[machine]),
            "PONDER_OBJECT_STORE_GIB": "1",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.place / "state/token"),
        }

    def train(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """`ponder train` on the first machine; its console goes to `log`."""
        with log.open("ab") as out:
            out.write(f"{COMMAND}{' '.join(arguments)}\n".encode())
            out.flush()
            return subprocess.Popen(
                ["ip", "netns", "exec", self.space(0), sys.executable, "-c", DRIVER, "train", *arguments],
                cwd=ROOT,
                env=self.environment(0),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def num_nodes(self) -> int:
        """How many nodes the head believes to be alive."""
        command = ["ip", "netns", "exec", self.space(0), sys.executable, "-c", COUNT_NODES, self.address]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment(0))
        return int(done.stdout.split()[-1]) if done.returncode == 0 else 0

    def pull_cable(self, machine: int) -> None:
        _ip("-n", self.space("switch"), "link", "set", f"port{machine}", "down")

    def plug_in(self, machine: int) -> None:
        _ip("-n", self.space("switch"), "link", "set", f"port{machine}", "up")

    def power_off(self, machine: int) -> None:
        """Everything on it is gone, and nobody hears of it."""
        self.pull_cable(machine)
        self.kill_all(machine)
        self.plug_in(machine)

    def kill_all(self, machine: int) -> None:
        for _ in range(10):
            for process in self.processes(machine):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if not self.processes(machine):
                break
            time.sleep(0.2)
        if (daemon := self._daemons.pop(machine, None)) is not None:
            daemon.wait(timeout=30)

    def processes(self, machine: int) -> list[psutil.Process]:
        done = subprocess.run(["ip", "netns", "pids", self.space(machine)], capture_output=True, text=True, check=False)
        found = []
        for pid in done.stdout.split():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(int(pid)))
        return found

    def of_role(self, role: str) -> list[psutil.Process]:
        """The processes of a role on all machines, in the order of their machines and starts."""
        everywhere = [process for machine in range(len(self._cpus)) for process in self.processes(machine)]
        return [process for process in everywhere if _plays(process, role)]

    def of_the_run(self) -> list[str]:
        """What a run has started and that is still there, by name; Ray's own daemons and idle workers are not."""
        return [role for role in (*ROLES, "worker") for _ in self.of_role(role)]

    def end(self) -> None:
        for machine in range(len(self._cpus)):
            self.kill_all(machine)
            subprocess.run(["ip", "netns", "del", self.space(machine)], check=False)
        subprocess.run(["ip", "netns", "del", self.space("switch")], check=False)


@contextlib.contextmanager
def machines(place: Path, *, cpus: Sequence[int]) -> Iterator[Machines]:
    made = Machines(place, cpus=cpus)
    try:
        made.begin()
        yield made
    finally:
        made.end()


def until(what: str, holds: Callable[[], Any], *, seconds: float) -> None:
    """Wait for it. Raises AssertionError after so many seconds."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)


def kill(process: psutil.Process, sign: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(sign)


def _plays(process: psutil.Process, role: str) -> bool:
    try:
        if role in ROLES:
            return process.name().startswith(ROLES[role])
        return role == "worker" and WORKER in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
