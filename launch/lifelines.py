"""What a run cannot outlive: Ray's head, and Ray on the driver's machine. Watched, so that their loss has a message.

Ray itself ends the driver a minute after its head went silent, without a word and without a saved step; and when Ray on
the driver's machine dies, ranks started again would wait for it until their deadline. So somebody looks every few
seconds, from the driver's own event loop, and ends the training in order while the processes of the run still answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping

EVERY_S = 2.0
REFUSED_S = 6.0  # nobody listens any more: the process is gone
SILENT_S = 30.0  # no answer at all: a network may come back
Address = tuple[str, int]


class ClusterLostError(RuntimeError):
    """Ray's head, or Ray on this machine, is gone, and the run with it."""


@contextlib.asynccontextmanager
async def watched(lifelines: Mapping[str, Address]) -> AsyncIterator[None]:
    """Cancel the body when one of these addresses is lost. Raises ClusterLostError then, after the body has ended."""
    task, lost = asyncio.current_task(), list[str]()
    assert task is not None

    async def watch() -> None:
        lost.append(await _first_loss(lifelines))
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if lost and task.uncancel() == 0:
            raise ClusterLostError(lost[0]) from None
        raise
    finally:
        watcher.cancel()


async def _first_loss(lifelines: Mapping[str, Address]) -> str:
    """Return when one is lost, with what is to be said about it."""
    answered = dict.fromkeys(lifelines, time.monotonic())
    while True:
        await asyncio.sleep(EVERY_S)
        for name, (host, port) in lifelines.items():
            problem = await _problem(host, port)
            if not problem:
                answered[name] = time.monotonic()
            elif time.monotonic() - answered[name] > (REFUSED_S if problem == "refused" else SILENT_S):
                return f"{name}, at {host}:{port}, is gone ({problem}); the logs of that machine's Ray say why"


async def _problem(host: str, port: int) -> str:
    """Why nothing answers there, or an empty text."""
    try:
        async with asyncio.timeout(EVERY_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return "refused"
    except (TimeoutError, OSError) as error:
        return f"silent: {error}" if str(error) else "silent"
    writer.close()
    return ""
