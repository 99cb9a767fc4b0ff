"""Is every node of a cluster fit for a run? Asked of all nodes at once, before anything is loaded.

One small actor a node says what it finds; what must agree is compared here: versions, clocks, the run directory, and
whether the nodes reach each other, first by plain connections between every pair, which names the pair that fails, then
by the collective that the learner uses.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MAX_CLOCK_S = 2.0
MIN_DISK_GIB = 2.0
DEADLINE_S = 120.0
GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a node says of itself."""

    host: str
    address: str
    cores: int
    memory_gib: float
    disk_gib: float
    gpus: int
    versions: dict[str, str]
    clock: float  # seconds since the epoch
    sees_run_dir: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """One line of the table; `problems` is empty for a node that is fit."""

    facts: Facts
    clock_offset_s: float
    problems: tuple[str, ...]


class Probe:
    """Runs on a node."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._server: socket.socket | None = None

    def facts(self, directory: str, marker: str) -> Facts:
        from launch.manifest import versions
        from launch.plan.machine import gpus

        place = Path(directory)
        existing = next(path for path in (place, *place.absolute().parents) if path.exists())
        return Facts(
            host=socket.gethostname(),
            address=self._address,
            cores=len(os.sched_getaffinity(0)),
            memory_gib=psutil.virtual_memory().available / GIB,
            disk_gib=shutil.disk_usage(existing).free / GIB,
            gpus=gpus()[1],
            versions=versions(),
            clock=time.time(),
            sees_run_dir=(place / marker).is_file(),
        )

    def listen(self) -> int:
        """Accept connections on this node's address; the port."""
        self._server = socket.create_server((self._address, 0))
        return int(self._server.getsockname()[1])

    def reach(self, address: str, port: int) -> str:
        """Why a connection there fails, or an empty text."""
        try:
            socket.create_connection((address, port), timeout=10).close()
        except OSError as error:
            return str(error)
        return ""

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind((self._address, 0))
            return int(probe.getsockname()[1])

    def meet(self, rank: int, num_ranks: int, address: str, backend: str) -> None:
        from rl.learner.reachability import meet

        if self._address.startswith("127."):
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        meet(rank, num_ranks, address, backend=backend, timeout_s=DEADLINE_S / 2)


def examine(directory: Path, *, num_nodes: int, device: str) -> list[NodeReport]:
    """Ask every node of the cluster that this process has joined.

    Raises ValueError where fewer than `num_nodes` are there, TimeoutError where one does not answer.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < num_nodes:
        listed = ", ".join(sorted(node["NodeManagerAddress"] for node in nodes))
        raise ValueError(
            f"{num_nodes} nodes were asked for and {len(nodes)} joined the cluster ({listed}): look at the log of "
            "`ray start` on the others; a firewall and another token are the usual reasons"
        )
    probes = [_start(node) for node in nodes]
    directory.mkdir(parents=True, exist_ok=True)
    marker = f".preflight-{uuid.uuid4().hex}"
    (directory / marker).touch()
    try:
        asked = time.time()
        facts: list[Facts] = _all([probe.facts.remote(str(directory.absolute()), marker) for probe in probes])
        answered = time.time()
    finally:
        (directory / marker).unlink()
    unreached = _pairs(probes, facts)
    if not any(unreached.values()):
        unreached[0] = _collective(probes, facts, device)
    for probe in probes:
        ray.kill(probe)
    return [
        report_of(each, facts[0], asked, answered, unreached.get(index, []), device) for index, each in enumerate(facts)
    ]


def _start(node: dict[str, Any]) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.remote(Probe).options(num_cpus=0, scheduling_strategy=here).remote(node["NodeManagerAddress"])


def _all(calls: list[Any]) -> list[Any]:
    import ray

    try:
        return list(ray.get(calls, timeout=DEADLINE_S))
    except ray.exceptions.GetTimeoutError:
        raise TimeoutError(
            f"a node did not answer within {DEADLINE_S:g} s: it is overloaded, or its disk hangs; `ray status` names it"
        ) from None


def _pairs(probes: Sequence[Any], facts: Sequence[Facts]) -> dict[int, list[str]]:
    """By node: which others it cannot connect to."""
    ports = _all([probe.listen.remote() for probe in probes])
    found: dict[int, list[str]] = {}
    for index, probe in enumerate(probes):
        others = [other for other in range(len(probes)) if other != index]
        errors = _all([probe.reach.remote(facts[other].address, ports[other]) for other in others])
        found[index] = [
            f"cannot reach {facts[other].host} ({facts[other].address}): {error}; open the ports between the nodes"
            for other, error in zip(others, errors, strict=True)
            if error
        ]
    return found


def _collective(probes: Sequence[Any], facts: Sequence[Facts], device: str) -> list[str]:
    """What the learner's collective says, blamed on the first node."""
    import ray

    backend = "nccl" if device == "cuda" else "gloo"
    (port,) = _all([probes[0].free_port.remote()])
    address = f"tcp://{facts[0].address}:{port}"
    try:
        _all([probe.meet.remote(rank, len(probes), address, backend) for rank, probe in enumerate(probes)])
    except (TimeoutError, ray.exceptions.RayError) as error:
        line = str(error).strip().splitlines()[-1]
        variable = "NCCL_SOCKET_IFNAME" if backend == "nccl" else "GLOO_SOCKET_IFNAME"
        return [f"{backend} between all nodes failed: {line}; set {variable} to the interface they share"]
    return []


def report_of(
    facts: Facts, first: Facts, asked: float, answered: float, unreached: Sequence[str], device: str
) -> NodeReport:
    # The question took between nothing and the whole wait to arrive, so only what lies outside of it is an offset.
    offset = max(asked - facts.clock, facts.clock - answered, 0.0)
    differing = [
        f"{name} {facts.versions.get(name, 'missing')} instead of {version}"
        for name, version in first.versions.items()
        if facts.versions.get(name) != version
    ]
    problems = [
        *(f"{text} (on {first.host}); install one lock everywhere" for text in differing),
        *([f"clock is {offset:.1f} s off; run a time service"] if offset > MAX_CLOCK_S else []),
        *([f"{facts.disk_gib:.1f} GiB of disk left for the run; free some"] if facts.disk_gib < MIN_DISK_GIB else []),
        *(
            []
            if facts.sees_run_dir
            else ["does not see the run directory; put run.dir on storage that all nodes share"]
        ),
        *(["no GPU, and the learner wants one"] if device == "cuda" and not facts.gpus else []),
        *unreached,
    ]
    return NodeReport(facts=facts, clock_offset_s=offset, problems=tuple(problems))
