"""How a run ends: by finishing, by failing, or by being interrupted. Finished work is saved in each case."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from rl.checkpoint import CheckpointError
from rl.resume import save
from rl.run import PlannedStop, Run, RunFailedError

CLOSE_DEADLINE_S = 30.0
"""Seconds one closer may take; a part that does not close by then is left to its supervisor."""


@asynccontextmanager
async def orderly_end(run: Run) -> AsyncIterator[None]:
    """Save what is trained and close the parts, whatever ends the body.

    Raises RunFailedError from the first cause when a loop died, PlannedStop when a part asked for the end,
    CheckpointError when a finished run could not be saved. An interruption (Ctrl-C cancels the task) stays a
    CancelledError.
    """
    started = time.perf_counter()
    try:
        try:
            yield
        except asyncio.CancelledError:
            run.reporter.warning(f"interrupted; saving step {run.step}")
            await uninterrupted(_save_rest(run, is_failing=True))
            raise
        except Exception as error:  # noqa: BLE001 - the one boundary where a loop's failure becomes the run's
            stop = _planned_stop(error) if run.failure is None else None
            await uninterrupted(_save_rest(run, is_failing=stop is None))
            if stop is not None:
                raise stop from None
            raise _failed(run, error) from (run.failure.error if run.failure else error)
        await uninterrupted(_save_rest(run, is_failing=False))
    finally:
        run.reporter.phase("train", time.perf_counter() - started)
        await uninterrupted(_close(run))


async def uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end even when cancelled meanwhile, and only then pass the cancellation on.

    A training step moves weights, ledger and slots together; left half done, no checkpoint could describe it.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


async def _save_rest(run: Run, *, is_failing: bool) -> None:
    """Checkpoint the steps since the last one. When failing already, a second failure is only a warning."""
    if run.step == run.saved_step:
        return
    if not run.is_whole:
        run.reporter.warning(f"step {run.step + 1} ended half done, so it cannot be saved; {_where_to_resume(run)}")
        return
    started = time.perf_counter()
    try:
        await save(run)
    except CheckpointError as error:
        if not is_failing:
            raise
        run.reporter.warning(str(error))
    run.reporter.phase("checkpoint", time.perf_counter() - started)


async def _close(run: Run) -> None:
    for closer in reversed(run.closers):
        try:
            async with asyncio.timeout(CLOSE_DEADLINE_S):
                await closer()
        except Exception as error:  # noqa: BLE001 - one part that does not close must not keep the others open
            run.reporter.warning(f"closing {closer} failed: {type(error).__name__}: {error}")
    try:
        run.metrics.close()
    except OSError as error:  # lines that could not be written, on a full disk: that is reported where it began
        run.reporter.warning(f"closing the metrics failed: {error}")


def _planned_stop(error: BaseException) -> PlannedStop | None:
    """The wish to stop in what a task group raised, if it was nothing else."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, PlannedStop) else None


def _failed(run: Run, error: Exception) -> RunFailedError:
    if run.failure is None:
        return RunFailedError(f"run failed after step {run.step}: {type(error).__name__}: {error}")
    cause = run.failure
    return RunFailedError(
        f"run failed in {cause.loop} ({cause.subject}) after step {run.step}: {type(cause.error).__name__}: "
        f"{cause.error} -- {_where_to_resume(run)}"
    )


def _where_to_resume(run: Run) -> str:
    return f"resume goes on from step {run.saved_step}" if run.saved_step else "no step was saved"
