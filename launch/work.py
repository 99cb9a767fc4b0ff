"""One session of work on a run: lock, console, memory, errors and the phases that are finished, in one place."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from launch import cluster, last_word, manifest
from launch.config import RunConfig
from launch.console import ConsoleReporter
from launch.disk import beside, full_disk
from launch.errors import InterruptedRunError
from launch.memory import MemoryPeak
from launch.mirror import mirror_of
from launch.rundir import PhaseLog, RunDirectory

START_RAY = "start Ray"


class Work:
    """What every phase is given: the run's settings, directory, console and phase log."""

    def __init__(self, config: RunConfig, directory: RunDirectory, console: ConsoleReporter) -> None:
        self.config = config
        self.directory = directory
        self.console = console
        self.log = PhaseLog(directory.phases)
        self.mirror = mirror_of(directory.root, config.run.mirror, console.warning)

    @contextlib.contextmanager
    def phase(self, name: str, *, total: int | None = None) -> Iterator[None]:
        """A named phase, shown with its time and remembered when it is finished."""
        started = time.monotonic()
        try:
            with self.console.running(name, total=total):
                yield
        except BaseException as error:
            with beside(error):
                self.log.add(name, time.monotonic() - started, is_done=False)
            raise
        self.log.add(name, time.monotonic() - started, is_done=True)


@contextlib.contextmanager
def session(config: RunConfig, directory: RunDirectory, terminal: Console) -> Iterator[Work]:
    """Everything around the phases of one command, Ray included. Leaves no process behind, whatever happens inside."""
    with (
        directory.locked(),
        last_word.kept(directory.root) as companion,
        _errors_recorded(directory),
        _usage_recorded(directory),
    ):
        targets = manifest.all_plugins()
        manifest.write(
            directory.manifest, seed=config.run.seed, command=manifest.command_line(), plugin_targets=targets
        )
        with ConsoleReporter(terminal, title=directory.root.name, num_steps=config.loop.num_steps) as console:
            for warning in config.warnings():
                console.warning(warning)
            job = Work(config, directory, console)
            try:
                with contextlib.ExitStack() as ray:
                    with job.phase(START_RAY):
                        ray.enter_context(cluster.session(config.cluster, log_dir=directory.logs))
                    companion.look_after()
                    yield job
            finally:
                job.mirror.finish()


def usage(directory: RunDirectory) -> dict[str, Any]:
    """Wall-clock seconds and memory peak over all sessions of a run so far."""
    if not directory.usage.is_file():
        return {"seconds": 0.0, "peak_gib": 0.0, "by_process_gib": {}}
    found: dict[str, Any] = json.loads(directory.usage.read_text(encoding="utf-8"))
    return found


@contextlib.contextmanager
def _usage_recorded(directory: RunDirectory) -> Iterator[None]:
    before, started = usage(directory), time.monotonic()
    with MemoryPeak() as memory:

        def write() -> None:
            peak, shares = before["peak_gib"], before["by_process_gib"]
            if memory.peak_gib > peak:
                peak, shares = memory.peak_gib, memory.by_process
            total = before["seconds"] + time.monotonic() - started
            manifest.write_json(directory.usage, {"seconds": total, "peak_gib": peak, "by_process_gib": shares})

        try:
            yield
        except BaseException as error:
            with beside(error):
                write()
            raise
        write()


@contextlib.contextmanager
def _errors_recorded(directory: RunDirectory) -> Iterator[None]:
    """The traceback into errors.log, and where it is onto the error. Interrupts are no errors, but say how to go on."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        raise InterruptedRunError(
            f"interrupted; nothing finished is lost, go on with: ponder train --resume {directory.root}"
        ) from interrupt
    except Exception as error:
        if (remedy := full_disk(error, directory.root)) is not None:
            error.add_note(remedy)
        with beside(error):
            directory.record_error(error)
            error.add_note(f"traceback: {directory.errors}")
        error.add_note(f"finished work is kept; once mended, go on with: ponder train --resume {directory.root}")
        raise
