"""Ray on purpose: loopback only, a token, isolated work, and no process left behind whatever happens."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from launch import cluster
from launch.cluster import ClusterError
from launch.config import ClusterConfig

PROGRAM = Path(__file__).with_name("cluster_program.py")
HOG_GIB = 300 / 1024  # what the program's memory test holds


def command(logs: Path, mode: str) -> list[str]:
    return [sys.executable, str(PROGRAM), str(logs), mode]


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    logs = tmp_path_factory.mktemp("logs")
    done = subprocess.run(
        command(logs, "observe"), capture_output=True, text=True, timeout=120, check=False, env=clean_environment()
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result | {"logs": sorted(path.name for path in (logs / "ray").iterdir())}


@pytest.mark.stack
def test_everything_listens_on_loopback_only_and_asks_for_a_token(seen: dict[str, Any]) -> None:
    assert seen["hosts"] == ["127.0.0.1"]
    assert seen["token_length"] == 64


@pytest.mark.stack
def test_isolated_work_streams_progress_returns_and_is_gone(seen: dict[str, Any]) -> None:
    assert (seen["progress"], seen["result"]) == ([0, 1, 2], 3)
    assert seen["threads"] == "2"
    assert not seen["isolated_process_is_alive"]


@pytest.mark.stack
def test_an_error_in_isolated_work_arrives_as_itself(seen: dict[str, Any]) -> None:
    assert seen["raised"] == "ValueError: rule, value, remedy"
    assert seen["died"].startswith("ClusterError: the process that ran die died; out of memory is the usual reason")


@pytest.mark.stack
def test_the_memory_of_workers_is_counted(seen: dict[str, Any]) -> None:
    memory = seen["memory"]
    assert memory["before"] > 0.05
    assert memory["after"] - memory["before"] > 0.9 * HOG_GIB
    assert memory["sum"] == pytest.approx(memory["after"], abs=0.05)


@pytest.mark.stack
def test_a_session_leaves_logs_and_no_process(seen: dict[str, Any]) -> None:
    assert seen["left_over"] == []
    assert "raylet.out" in seen["logs"]


@pytest.mark.stack
def test_ctrl_c_ends_every_process_and_keeps_the_logs(tmp_path: Path) -> None:
    with subprocess.Popen(
        command(tmp_path, "wait"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env=clean_environment(),
    ) as program:
        assert program.stdout is not None
        started = json.loads(program.stdout.readline())
        assert len(started) > 3
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to the whole process group
        assert program.wait(timeout=60) != 0
    assert [pid for pid in started if psutil.pid_exists(pid)] == []
    assert any((tmp_path / "ray").iterdir())


def test_a_cluster_of_others_is_not_joined_without_a_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    config = ClusterConfig(address="10.0.0.1:6379")
    with (
        pytest.raises(ClusterError, match=r"address is '10\.0\.0\.1:6379' and no token is set.*RAY_AUTH_TOKEN"),
        cluster.session(config, log_dir=tmp_path),
    ):
        pass


def test_a_session_after_ray_was_imported_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import ray  # noqa: F401 - what the test is about

    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with (
        pytest.raises(ClusterError, match="imported before"),
        cluster.session(ClusterConfig(), log_dir=tmp_path),
    ):
        pass
