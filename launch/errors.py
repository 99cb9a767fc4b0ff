"""From whatever was raised to one line for the user. The traceback is for errors.log."""

from __future__ import annotations

import asyncio
import sys

from rl.run import RunFailedError


class InterruptedRunError(RuntimeError):
    """Ctrl-C, or a scheduler's stop, during a run. The message says how to go on."""


class SpentRunError(RuntimeError):
    """A run stopped at one of its ceilings, in order. The message names it and says how to go on."""


def first_cause(error: BaseException) -> BaseException:
    """The error that started it: out of task groups and out of Ray's wrappers, cancellations passed over."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            real = [part for part in error.exceptions if not isinstance(first_cause(part), asyncio.CancelledError)]
            error = (real or error.exceptions)[0]
        elif (inner := _out_of_ray(error)) is not error:
            error = inner
        else:
            return error


def one_line(error: BaseException) -> str:
    """The message of `error` on one line; an error without a message is named by its type."""
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    return text if isinstance(error, ValueError | RunFailedError) else f"{text} ({type(error).__name__})"


def notes(error: BaseException) -> list[str]:
    """Notes added on the way up, such as where the traceback is."""
    return list(getattr(error, "__notes__", ()))  # absent until the first note is added


def _out_of_ray(error: BaseException) -> BaseException:
    if "ray" not in sys.modules:  # nothing was started, so nothing of Ray can be wrapped around it
        return error
    from launch.cluster import original

    return original(error)
