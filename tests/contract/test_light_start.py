"""What must be quick or light: `ponder --help`, and a driver process without torch."""

import os
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PONDER = Path(sys.executable).with_name("ponder")
HEAVY = ("torch", "transformers", "vllm", "deepspeed", "trl", "datasets", "sympy", "math_verify")
DRIVER = ("rl.driver", "rl.config", "rl.ports", "launch.build", "launch.phases", "launch.recipe", "launch.console")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ})


def test_help_answers_in_half_a_second() -> None:
    # Processor time, which is all that help needs: another process on the machine is not what is measured.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run(str(PONDER), "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 0.5
    for command in ("doctor", "train", "sft", "eval", "report", "show", "fetch", "rewards"):
        assert command in done.stdout


def test_the_driver_process_loads_no_heavy_library() -> None:
    program = f"import sys, {', '.join(DRIVER)}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = run(sys.executable, "-c", program)
    assert done.stdout.strip() == "[]", done.stderr


def test_settings_load_no_heavy_library() -> None:
    program = f"import sys, launch.config; print([m for m in {(*HEAVY, 'ray', 'numpy')!r} if m in sys.modules])"
    done = run(sys.executable, "-c", program)
    assert done.stdout.strip() == "[]", done.stderr
