"""The disk of a real run fills up: first too full for a checkpoint, then for anything.

The run directory lies on a small file system of its own, in memory, in a mount namespace that ends with the test.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
STEPS = 5
# Inside the namespace. The run fills the disk itself, so that the moment is exact: before the second checkpoint all but
# 500 kB, where one takes 1.2 MB and the record of a step 30 kB; before the update of step 4 all of it.
STORY = """
import json, os, subprocess, sys
from pathlib import Path

root, disk, recipe, steps = Path.cwd(), Path(sys.argv[1]), sys.argv[2], sys.argv[3]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(disk)], check=True)
ballast = disk / "ballast"

PROGRAM = '''
import os, shutil, sys
from launch.cli import main
from rl.waits import Waits

ballast = sys.argv.pop(1)
outside, saves = Waits.outside, 0

def fill(free):
    with open(ballast, "ab") as file:
        file.write(bytes(max(0, shutil.disk_usage(os.path.dirname(ballast)).free - free)))

async def wait(self, by, what, call):
    global saves
    saves += what == "the learner to save itself"
    if saves == 2 and what == "the learner to save itself":
        fill(500_000)
    if what == "the learner at step 4":
        fill(0)
    return await outside(self, by, what, call)

if ballast != "none":
    Waits.outside = wait
sys.exit(main())
'''

def train(ballast, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(ballast), "train", *arguments], capture_output=True, text=True, cwd=root
    )
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}

def listed():
    return sorted(str(path.relative_to(run)) for path in run.glob("checkpoints/*"))

run = disk / "mini"
settings = [f"run.dir={disk}", "run.name=mini", f"loop.num_steps={steps}", "loop.checkpoint_every=1"]
first = train(ballast, recipe, *[word for setting in settings for word in ("--set", setting)])
then = listed()
seal = json.loads((run / "checkpoints/step-000001/seal.json").read_text())
whole = all((run / "checkpoints/step-000001" / name).stat().st_size == f["size"] for name, f in seal["files"].items())
ballast.unlink()
second = train("none", "--resume", str(run))
tasks = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
print(json.dumps({
    "first": first, "then": then, "whole": whole, "second": second, "finally": listed(),
    "steps": [row["step"] for row in tasks if "batch/samples" in row["metrics"]],
    "names": sorted(path.name for path in run.rglob("*")),
}))
"""

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    namespace = ["unshare", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a process have a mount namespace of its own")
    disk = tmp_path_factory.mktemp("disk")
    done = subprocess.run(
        [*namespace, sys.executable, "-c", STORY, str(disk), "tests/invariant/miniature.toml", str(STEPS)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_checkpoint_that_does_not_fit_is_a_warning_and_the_run_goes_on(story: dict[str, Any]) -> None:
    warnings = [line for line in story["first"]["out"].splitlines() if line.startswith("warning: checkpoint")]
    assert [line.split()[4] for line in warnings] == ["2", "3"]
    assert re.search(r"\(0\.\d MiB free, the newest one takes 1\.\d\)", warnings[0]), warnings[0]
    assert "Earlier checkpoints are untouched; make room there" in warnings[0]
    assert re.search(r"^step 3/", story["first"]["out"], re.MULTILINE)


def test_a_disk_without_any_room_ends_the_run_with_one_clear_error(story: dict[str, Any]) -> None:
    *notes, error = story["first"]["err"].splitlines()
    assert story["first"]["code"] == 1
    assert error.startswith("error: run failed in learn (step 4) after step 3: OSError: [Errno 28] ")
    assert "No space left on device" in error
    assert " -- resume goes on from step 1 -- finished work is kept; once mended, go on with: ponder train " in error
    assert any(re.search(r"the disk that holds .*/mini has no room left; make some there first", n) for n in notes)
    assert "step 4 ended half done" in story["first"]["out"]


def test_the_last_good_checkpoint_is_whole_and_no_other_is_left(story: dict[str, Any]) -> None:
    assert story["then"] == ["checkpoints/step-000001"] and story["whole"]
    assert not [name for name in story["names"] if name.endswith((".tmp", ".part"))]


def test_with_room_again_the_run_goes_on_and_loses_nothing(story: dict[str, Any]) -> None:
    assert story["second"]["code"] == 0, story["second"]["err"]
    assert story["finally"] == ["checkpoints/step-000004", "checkpoints/step-000005"]
    assert story["steps"] == list(range(1, STEPS + 1))
