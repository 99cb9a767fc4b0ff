"""Run by test_cluster.py in a process of its own (Ray reads its environment once): prints what it saw as JSON."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from launch import cluster
from launch.cluster import ClusterError
from launch.config import ClusterConfig
from launch.memory import MemoryPeak

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


def listening_hosts() -> list[str]:
    return sorted(
        {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in psutil.Process().children(recursive=True)
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
    )


@contextlib.contextmanager
def error_in(seen: dict[str, Any], name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, ClusterError) as error:
        seen[name] = f"{type(error).__name__}: {error}"


def observe(logs: Path) -> dict[str, Any]:
    seen: dict[str, Any] = {"progress": []}
    with cluster.session(ClusterConfig(num_cpus=2, object_store_gib=0.1), log_dir=logs):
        seen["hosts"] = listening_hosts()
        seen["token_length"] = len(os.environ["RAY_AUTH_TOKEN"])
        seen["result"] = cluster.run_isolated(count_to, 3, num_threads=1, on_progress=seen["progress"].append)
        seen["threads"], pid = cluster.run_isolated(threads_and_pid, num_threads=2)
        with error_in(seen, "raised"):
            cluster.run_isolated(break_a_rule, num_threads=1)
        with error_in(seen, "died"):
            cluster.run_isolated(die, num_threads=1)
        with MemoryPeak(interval_s=0.1) as memory:
            time.sleep(0.3)
            before = memory.peak_gib
            cluster.run_isolated(hold_memory, num_threads=1)
        seen["memory"] = {"before": before, "after": memory.peak_gib, "sum": sum(memory.by_process.values())}
        seen["isolated_process_is_alive"] = psutil.pid_exists(pid)
        started = psutil.Process().children(recursive=True)
    seen["left_over"] = [process.pid for process in started if process.is_running()]
    return seen


def wait_for_interrupt(logs: Path) -> None:
    with cluster.session(ClusterConfig(num_cpus=1, object_store_gib=0.1), log_dir=logs):
        cluster.run_isolated(abs, -1, num_threads=1)
        pids = [process.pid for process in psutil.Process().children(recursive=True)]
        assert sys.__stdout__ is not None
        sys.__stdout__.write(json.dumps(pids) + "\n")  # inside a session sys.stdout is a log file
        sys.__stdout__.flush()
        time.sleep(60)


if __name__ == "__main__":
    if sys.argv[2] == "observe":
        sys.stdout.write(json.dumps(observe(Path(sys.argv[1]))))
    else:
        wait_for_interrupt(Path(sys.argv[1]))
