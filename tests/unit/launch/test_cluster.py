"""Ray on purpose: loopback only, a token, isolated work, and no process left behind whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ray import cloudpickle

from launch import cluster
from launch.cluster import ClusterError
from launch.config import ClusterConfig
from launch.memory import MemoryPeak

CONFIG = ClusterConfig(num_cpus=2, object_store_gib=0.1)
HOG_MIB = 300


def count_to(number: int, progress: Callable[[int], None]) -> int:
    for value in range(number):
        progress(value)
    return number


def break_a_rule() -> None:
    raise ValueError("rule, value, remedy")


def die() -> None:
    os._exit(3)


def threads_and_pid() -> tuple[str, int]:
    return os.environ["OMP_NUM_THREADS"], os.getpid()


def hold_memory() -> int:
    block = bytearray(HOG_MIB * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    time.sleep(1.0)
    return len(block)


@pytest.fixture(scope="module")
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    logs = tmp_path_factory.mktemp("logs")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test file
    with cluster.session(CONFIG, log_dir=logs):
        yield logs


@pytest.mark.stack
def test_everything_listens_on_loopback_only_and_asks_for_a_token(ray_session: Path) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    hosts = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in psutil.Process().children(recursive=True)
        for connection in process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert hosts == {"127.0.0.1"}


@pytest.mark.stack
def test_isolated_work_streams_progress_and_returns(ray_session: Path) -> None:
    seen: list[int] = []
    assert cluster.run_isolated(count_to, 3, num_threads=1, on_progress=seen.append) == 3
    assert seen == [0, 1, 2]


@pytest.mark.stack
def test_isolated_work_has_its_own_short_lived_process(ray_session: Path) -> None:
    threads, pid = cluster.run_isolated(threads_and_pid, num_threads=2)
    assert threads == "2"
    assert pid != os.getpid()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid)


@pytest.mark.stack
def test_an_error_in_isolated_work_arrives_as_itself(ray_session: Path) -> None:
    with pytest.raises(ValueError, match="rule, value, remedy"):
        cluster.run_isolated(break_a_rule, num_threads=1)


@pytest.mark.stack
def test_a_process_that_dies_is_named(ray_session: Path) -> None:
    with pytest.raises(ClusterError, match=r"the process that ran die died; out of memory"):
        cluster.run_isolated(die, num_threads=1)


@pytest.mark.stack
def test_the_memory_of_workers_is_counted(ray_session: Path) -> None:
    with MemoryPeak(interval_s=0.1) as memory:
        time.sleep(0.3)
        before = memory.peak_gib
        cluster.run_isolated(hold_memory, num_threads=1)
    assert before > 0.05
    assert memory.peak_gib - before > 0.9 * HOG_MIB / 1024
    assert sum(memory.by_process.values()) == pytest.approx(memory.peak_gib, abs=0.05)


PROGRAM = """
import sys, time
from pathlib import Path
import psutil
from launch import cluster
from launch.config import ClusterConfig
with cluster.session(ClusterConfig(num_cpus=1, object_store_gib=0.1), log_dir=Path(sys.argv[1])):
    cluster.run_isolated(abs, -1, num_threads=1)
    print(" ".join(str(p.pid) for p in psutil.Process().children(recursive=True)), flush=True)
    time.sleep(60)
"""


@pytest.mark.stack
def test_ctrl_c_ends_every_process_and_keeps_the_logs(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    started = [int(pid) for pid in program.stdout.readline().split()]
    assert len(started) > 3
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole process group
    assert program.wait(timeout=30) != 0
    assert [pid for pid in started if psutil.pid_exists(pid)] == []
    assert any((tmp_path / "ray").iterdir())


def test_a_cluster_of_others_is_not_joined_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = ClusterConfig(address="10.0.0.1:6379")
    with (
        pytest.raises(ClusterError, match=r"address is '10\.0\.0\.1:6379' and no token is set.*RAY_AUTH_TOKEN"),
        cluster.session(config, log_dir=tmp_path),
    ):
        pass
