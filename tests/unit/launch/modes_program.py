"""`ponder eval modes` in a process of its own with a fake policy, to be killed by test_eval_modes_kill.py.

Usage: python -m tests.unit.launch.modes_program TASKS OUT
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rich.console import Console

from launch.evaluation import attempts
from launch.evaluation import modes as eval_modes
from launch.evaluation.question import EvalOptions
from tests.fakes.modes import FakePolicy


@contextlib.asynccontextmanager
async def fake_server(*args: Any, **kwargs: Any) -> AsyncIterator[FakePolicy]:
    yield FakePolicy(delay_s=0.02, num_places=16)


def main() -> None:
    attempts.server = fake_server  # type: ignore[assignment]
    options = EvalOptions(
        policy="http://fake",
        tasks=sys.argv[1],
        table={"verifier": "exact"},
        modes="high,low,64",
        num_samples=10,
        out=Path(sys.argv[2]),
    )
    eval_modes.run(options, Console(file=sys.stdout))


if __name__ == "__main__":
    main()
