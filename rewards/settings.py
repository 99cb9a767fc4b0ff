"""Settings of the built-in verifiers: what `[rewards.components.NAME.settings]` may hold for each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CodeSettings(_Settings):
    """`code`: programs against tests."""

    isolation: Literal["namespaces", "limits"] = "namespaces"
    """`namespaces` refuses to judge where the kernel does not grant them; `limits` leaves the file system visible."""

    max_seconds: Annotated[float, Field(gt=0, le=600)] = 6.0
    """Wall seconds of one test; processor seconds too, rounded up."""

    max_total_seconds: Annotated[float, Field(gt=0, le=3600)] = 30.0
    """Wall seconds of all tests of one answer together; what has not run by then counts as failed."""

    max_memory_mib: Annotated[int, Field(ge=64, le=1 << 16)] = 512
    """Memory of a program, of each of its processes and of all of them together, in MiB."""

    max_processes: Annotated[int, Field(ge=1, le=256)] = 16
    """Processes and threads that a program may have at once."""

    max_disk_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Room for files, which live in memory and are gone after the last test."""

    max_output_kib: Annotated[int, Field(ge=1, le=1 << 16)] = 1024
    """What one test may print or return; more fails the test."""

    stop_at_first_failure: bool = False
    """Run no further test once one has failed; `pass_rate` then counts the rest as failed."""

    python: str = ""
    """Interpreter (3.11 or newer) to run programs with; empty is the one that runs ponder."""

    packages: tuple[str, ...] = ()
    """Directories that programs may import from, shown to them read-only; without any only the standard library."""


def code_seconds(settings: CodeSettings) -> float:
    """Wall seconds that judging one answer may take: the tests, and starting the jail on a busy machine."""
    return settings.max_total_seconds + 30.0
