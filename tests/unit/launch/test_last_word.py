"""A driver that ends without a word has a last line all the same; one that ends by itself has none too many."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, signal, subprocess, sys
from pathlib import Path
from launch import last_word

with last_word.kept(Path("runs/x")) as companion:
    print(subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)
    companion.look_after()
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if sys.argv[1] == "ended by a library":
        os._exit(1)
    if sys.argv[1] == "failed":
        raise SystemExit(3)
print("done")
"""


@pytest.mark.parametrize(("end", "code"), [("killed", -9), ("ended by a library", 1), ("failed", 3), ("finished", 0)])
def test_only_a_sudden_end_is_told(end: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, end], capture_output=True, text=True, cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == code
    child = psutil.Process(int(done.stdout.split()[0])) if psutil.pid_exists(int(done.stdout.split()[0])) else None
    if code in (-9, 1):
        assert done.stderr.startswith("error: the driver (process ")
        assert done.stderr.endswith("-- finished work is kept; go on with: ponder train --resume runs/x\n")
        assert "ended without a word: it was killed, or Ray on its machine died under it" in done.stderr
        assert child is None or not psutil.wait_procs([child], timeout=5)[1], "what it had started is ended"
    else:
        assert done.stderr == ""
        assert child is not None, "what ends in order ends its children itself"
        child.kill()
