"""From whatever was raised to one line for the user. The traceback is for errors.log."""

from __future__ import annotations

import asyncio
import re
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


def last_words(error: BaseException) -> list[str]:
    """What a command that failed prints: what helps to look into it, and as the last line the first cause, where it
    happened, and what to do next."""
    *more, then = ["", *notes(error)]
    line = f"error: {one_line(first_cause(error))}{_place(error)}"
    return [*(text for text in more if text), f"{line} -- {then}" if then else line]


def _place(error: BaseException) -> str:
    """Host and process of an actor that died, which Ray tells in the text of its exception; nothing if none did."""
    seen: set[int] = set()
    behind: list[BaseException | None] = [error]
    while behind:
        cause = behind.pop()
        if cause is None or id(cause) in seen:
            continue
        seen.add(id(cause))
        if type(cause).__module__.startswith("ray."):
            host = re.search(r"^\s*ip: (\S+)$", str(cause), re.MULTILINE)
            process = re.search(r"^\s*pid: (\d+)$", str(cause), re.MULTILINE)
            if host:
                return f" (host {host[1]}" + (f", process {process[1]})" if process else ")")
        inside = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        behind += [*inside, cause.__context__, cause.__cause__]
    return ""


def _out_of_ray(error: BaseException) -> BaseException:
    if "ray" not in sys.modules:  # nothing was started, so nothing of Ray can be wrapped around it
        return error
    from launch.cluster import original

    return original(error)
