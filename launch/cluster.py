"""Ray, started and stopped on purpose: the only file of this room that imports it.

A local run gets a Ray of its own that listens on the loopback interface alone, has no dashboard, asks for a token (a
random one per process: another user of the machine can reach loopback, and whoever reaches Ray can run code) and leaves
its logs in the run directory. Ray reads all of that when it is imported, so a session starts before any module that
imports Ray is loaded. Joining an existing cluster is refused unless the user brings that cluster's token.

Whatever a phase does, leaving `session` ends every process that Ray started for it; they are known by their ids.
"""

from __future__ import annotations

import contextlib
import os
import queue
import secrets
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from launch.config import ClusterConfig
from launch.disk import beside

# Read by Ray when it is imported or when it starts its daemons, so set before either.
_LOOPBACK_ENVIRONMENT = {
    # Ray binds to the node's address; with multi-node clusters off that address is 127.0.0.1 on every system.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
_DRIVER_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    # Off: a thread that still uses Ray after the shutdown would start a second one, which nobody would stop.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray ends a driver whose head has been silent for so long, on the spot; `launch/lifelines.py` is sooner, in order.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "180",
}
# Inherited by every process of the run: no hub is asked, and libraries keep quiet in the log files.
_WORKER_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_LOGGING_LEVEL": "WARNING"}
_STOP_S = 10.0


class ClusterError(RuntimeError):
    """Ray did not start, or may not be joined."""


@contextlib.contextmanager
def session(config: ClusterConfig, *, log_dir: Path) -> Iterator[None]:
    """Ray for the duration of the block. Ends all of its processes on the way out, whatever the way."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    temporary = Path(tempfile.mkdtemp(prefix="ponder-ray-"))  # short: Ray's socket paths must stay below 107 bytes
    log_dir.mkdir(parents=True, exist_ok=True)
    try:
        # Ray prints what happens to its workers to stdout, whatever it is told; the console holds the real one.
        with (log_dir / "driver.out").open("a") as log, contextlib.redirect_stdout(log):
            _start(config, temporary)
            yield
    except BaseException as error:
        with _interrupts_wait():
            _stop(before)
            with beside(error):
                _keep_logs(temporary, log_dir)
        raise
    with _interrupts_wait():
        _stop(before)
        _keep_logs(temporary, log_dir)


def run_isolated(
    function: Callable[..., Any],
    *args: Any,
    num_threads: int,
    on_progress: Callable[[Any], None] | None = None,
    **kwargs: Any,
) -> Any:
    """Run `function` in a process of its own, which is gone afterwards with its memory; return what it returned.

    With `on_progress` the function is called with a keyword `progress`: a callable whose argument, any picklable value,
    is handed to `on_progress` here, in order. An exception of the function is raised here as itself.
    """
    import ray

    environment = {"OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads)}
    task = ray.remote(num_returns="streaming", max_retries=0, max_calls=1, num_cpus=0)(_stream)
    stream = task.options(runtime_env={"env_vars": environment}).remote(function, args, kwargs, on_progress is not None)
    try:
        for reference in stream:
            kind, value = ray.get(reference)
            if kind == "result":
                return value
            if on_progress is not None:
                on_progress(value)
    except ray.exceptions.RayTaskError as error:
        raise original(error) from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        name = getattr(function, "__qualname__", repr(function))
        raise ClusterError(
            f"the process that ran {name} died; out of memory is the usual reason, and its log in logs/ray says more"
        ) from error
    raise AssertionError("an isolated task always ends with a result or an exception")


def original(error: BaseException) -> BaseException:
    """The exception a Ray task or actor raised, without Ray's wrapper; any other exception as it is."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, BaseException):
        return error.cause
    return error


def lifelines() -> dict[str, tuple[str, int]]:
    """Addresses that a run cannot do without, by name: of Ray's head, and of Ray on this machine."""
    import ray

    context = ray.get_runtime_context()
    head, _, port = context.gcs_address.rpartition(":")
    (here,) = (node for node in ray.nodes() if node["NodeID"] == context.get_node_id())
    return {
        "Ray's head": (head, int(port)),
        "Ray on the driver's machine": (here["NodeManagerAddress"], here["NodeManagerPort"]),
    }


def reserve(num_gpus: int, *, cpus_each: int, deadline_s: float) -> Any:
    """A placement group of one bundle a GPU, near each other. Raises ClusterError when they are not there in time."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([{"GPU": 1, "CPU": cpus_each} for _ in range(num_gpus)], strategy="PACK")
    try:
        ray.get(group.ready(), timeout=deadline_s)
    except ray.exceptions.GetTimeoutError:
        remove_placement_group(group)
        there = ray.cluster_resources()
        raise ClusterError(
            f"the run needs {num_gpus} GPUs with {cpus_each} CPUs each, and within {deadline_s:g} s the cluster had "
            f"{there.get('GPU', 0):g} GPUs and {there.get('CPU', 0):g} CPUs in all; lower rollout.num_engines, "
            "rollout.tensor_parallel or learner.num_ranks, let them share GPUs with cluster.placement, or add nodes"
        ) from None
    return group


def seat_in(group: Any, bundle: int, *, takes_children: bool = False) -> Any:
    """Ray's strategy for a process on one bundle; `takes_children`: what it starts is placed in the group as well."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    return PlacementGroupSchedulingStrategy(
        placement_group=group,
        placement_group_bundle_index=bundle,
        placement_group_capture_child_tasks=takes_children,
    )


def probe_start(num_cpus: int) -> str:
    """Start Ray, run one task, stop it; for `ponder doctor`. Returns the addresses it listened on."""
    with (
        tempfile.TemporaryDirectory(prefix="ponder-doctor-") as directory,
        session(ClusterConfig(num_cpus=num_cpus), log_dir=Path(directory)),
    ):
        if run_isolated(abs, -1, num_threads=1) != 1:
            raise ClusterError("a Ray task returned a wrong result")
        hosts = {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in psutil.Process().children(recursive=True)
            for connection in process.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
    if outside := hosts - {"127.0.0.1", "::1"}:
        raise ClusterError(f"Ray listens on {', '.join(sorted(outside))}, not only on the loopback interface")
    return ", ".join(sorted(hosts))


def _stream(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], reports: bool
) -> Generator[tuple[str, Any], None, None]:
    """Runs in the Ray task: progress values as they come, then the result."""
    if not reports:
        yield "result", function(*args, **kwargs)
        return
    box: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            box.put(("result", function(*args, progress=lambda value: box.put(("progress", value)), **kwargs)))
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: raised again in the task's own thread
            box.put(("error", error))

    threading.Thread(target=work, name="isolated", daemon=True).start()
    while True:
        kind, value = box.get()
        if kind == "error":
            raise value
        yield kind, value
        if kind == "result":
            return


def _start(config: ClusterConfig, temporary: Path) -> None:
    if "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        # Ray has read its environment by then: it would listen everywhere and ask for nothing.
        raise ClusterError(
            "Ray was imported before launch.cluster.session set its environment; start the session first"
        )
    os.environ.update(_WORKER_ENVIRONMENT)
    options: dict[str, Any] = {}
    if config.address == "local":
        os.environ.update(_LOOPBACK_ENVIRONMENT)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        options = {
            "num_cpus": config.num_cpus,
            "object_store_memory": int(config.object_store_gib * 2**30),
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "_temp_dir": str(temporary),
        }
    else:
        _require_token(config.address)
        options = {"runtime_env": {"env_vars": dict(_WORKER_ENVIRONMENT)}}  # its nodes do not inherit ours
    os.environ.update(_DRIVER_ENVIRONMENT)
    import ray

    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=config.address, log_to_driver=False, configure_logging=False, logging_level="ERROR", **options)
    except Exception as error:  # Ray raises many kinds here; all mean the same to the user
        raise ClusterError(
            f"Ray ({config.address}) did not start: {error}. `ponder doctor` checks memory, disk and loopback"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_terminate)  # Ray puts its own handler there, which skips our cleaning up


def _require_token(address: str) -> None:
    default = Path.home() / ".ray" / "auth_token"
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or default.is_file():
        return
    raise ClusterError(
        f"cluster.address is {address!r} and no token is set: a cluster that others can reach is joined only with "
        f"token "
        f"authentication. Put its token into RAY_AUTH_TOKEN or {default}"
    )


def _stop(before: set[int]) -> None:
    if "ray" not in sys.modules:
        return
    import ray

    # Listed before the shutdown: a worker whose raylet is gone is no descendant of ours any more.
    ours = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    # In a thread: without its head, Ray's own shutdown may wait for a long time.
    shutdown = threading.Thread(target=ray.shutdown, name="ray-shutdown", daemon=True)
    shutdown.start()
    shutdown.join(_STOP_S)
    _, alive = psutil.wait_procs(ours, timeout=_STOP_S)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=_STOP_S)


def _keep_logs(temporary: Path, log_dir: Path) -> None:
    """Move what the workers and daemons wrote into the run directory, without empty files, and drop the rest."""
    target = log_dir / "ray"
    for source in sorted(temporary.glob("session_*/logs/**/*")):
        if source.is_symlink() or not source.is_file() or source.stat().st_size == 0:
            continue
        if any(part.is_symlink() for part in source.parents if part != temporary):
            continue  # session_latest repeats the session itself
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / source.name)
    shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def _interrupts_wait() -> Iterator[None]:
    """A second Ctrl-C during the shutdown would leave processes behind, so it waits until the shutdown is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
