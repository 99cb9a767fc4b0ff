"""Programs that attack what judges them: each ends in time, scores 0, leaves nothing behind; the next one is right."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rewards.code.runner import Bounds, End, Isolation, Jail, JailError, Run, probe
from rewards.code.verify import verify
from rewards.sandbox import ReplyStatus, WorkerPool
from rollout.schema import Status
from tests.fakes.rewards import kernel_grants_namespaces, sample

pytestmark = pytest.mark.skipif(not kernel_grants_namespaces(), reason="the kernel refuses namespaces")
LIMIT_S = 0.7
SECRET = "SECRET" + "0123456789abcdef"
BOUNDS = Bounds(max_seconds=LIMIT_S, max_memory_mib=128, max_processes=8, max_disk_mib=4, max_output_bytes=100_000)
MARK = "ponder-was-here"
ROOT = Path(__file__).parents[2]
PLACES = sorted({str(Path.home()), "/tmp", "/var/tmp", "/dev/shm", "/", "/usr", sys.base_prefix, str(ROOT)})

WRITE_EVERYWHERE = f"""
import os
for place in {PLACES!r}:
    try:
        os.makedirs(place, exist_ok=True)
        open(os.path.join(place, {MARK!r}), "w").write("x")
    except OSError as error:
        pass
"""
SEARCH = """
import gc, glob, os, re, sys
found = []
for path in glob.glob("/proc/[0-9]*/*") + glob.glob("/proc/self/fd/*") + glob.glob("/tmp/**", recursive=True):
    try:
        found += re.findall(rb"SECRET[0-9a-f]{16}", open(path, "rb").read(1 << 20))
    except OSError:
        pass
for fd in range(100):
    try:
        found += re.findall(rb"SECRET[0-9a-f]{16}", os.pread(fd, 1 << 20, 0))
    except OSError:
        pass
frame = sys._getframe()
while frame:
    found += re.findall(rb"SECRET[0-9a-f]{16}", repr((frame.f_locals, frame.f_globals)).encode())
    frame = frame.f_back
found += [w.encode() for o in gc.get_objects() for w in re.findall("SECRET[0-9a-f]{16}", repr(o)[:10000])]
print(found[0].decode() if found else "nothing")
"""
NETWORK = """
import os, socket, subprocess
reached = []
for family, address in ((socket.AF_INET, ("127.0.0.1", PORT)), (socket.AF_INET, ("1.1.1.1", 53))):
    try:
        with socket.socket(family) as s:
            s.settimeout(0.2)
            s.connect(address)
            reached.append(address)
    except OSError:
        pass
if subprocess.run(["/bin/bash", "-c", "echo > /dev/tcp/127.0.0.1/PORT"], stderr=-3).returncode == 0:
    reached.append("bash")
print(reached or "nothing")
"""
LEFTOVER = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
print("done")
"""
ESCAPES = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
got = []
for name, attempt in {
    "user namespace": lambda: libc.unshare(0x10000000) == 0,
    "clone": lambda: libc.syscall(56 if os.uname().machine == "x86_64" else 220, 0x10000011, 0, 0, 0, 0) > 0,
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0,
    "chroot": lambda: libc.chroot(b"/tmp") == 0,
    "ptrace": lambda: libc.ptrace(16, os.getppid(), 0, 0) == 0,
    "memory": lambda: os.memfd_create("x") > 0,
    "root": lambda: os.setuid(0) is None,
    "init": lambda: os.kill(1, signal.SIGKILL) is None and not os.path.exists("/tmp"),
    "limits": lambda: __import__("resource").setrlimit(7, (10000, 10000)) is None,
}.items():
    try:
        if attempt():
            got.append(name)
    except (OSError, ValueError):
        pass
print(got or "nothing")
"""
IGNORE = """
import signal
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
"""
THREAD = """
import threading
def spin():
    while True:
        pass
threading.Thread(target=spin).start()
"""
IN_MANY = "import os, time\nfor _ in range(3): os.fork()\nx = b'a' * (60 << 20)\ntime.sleep(9)"
BOMBS = {
    "infinite loop": ("while True: pass", End.TIME),
    "every signal ignored": (IGNORE, End.TIME),
    "sleep": ("import time\ntime.sleep(60)", End.TIME),
    "C code that never returns": ("print(9 ** 9 ** 9)", None),
    "regular expression": ("import re\nre.match('(a+)+b', 'a' * 60)", End.TIME),
    "stopped": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", End.TIME),
    "fork bomb": ("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", End.TIME),
    "thread left running": (THREAD, End.TIME),
    "atexit": ("import atexit, time\natexit.register(time.sleep, 60)", End.TIME),
    "memory": ("x = bytearray(4 << 30)", None),
    "memory, bit by bit": ("x = []\nwhile True: x.append('a' * 100_000)", None),
    "memory in many": (IN_MANY, End.MEMORY),
    "output": ("while True: print('x' * 10_000)", End.OUTPUT),
    "errors": ("import sys\nwhile True: sys.stderr.write('x' * 10_000)", End.TIME),
    "one endless line": ("import os\nwhile True: os.write(1, b'x' * 65536)", End.OUTPUT),
    "files": ("f = open('f', 'wb')\nwhile True: f.write(b'x' * 100_000)", None),
    "many files": ("i = 0\nwhile True:\n    i += 1\n    open(str(i), 'w')", None),
    "recursion": ("import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()", None),
    "segmentation fault": ("import ctypes\nctypes.string_at(0)", None),
    "kill everybody": ("import os\nos.kill(-1, 9)\nwhile True: pass", None),
    "kill the parent": ("import os\nos.kill(os.getppid(), 9)\nwhile True: pass", None),
    "close everything": ("import os\nos.closerange(0, 1000)\nwhile True: pass", End.TIME),
}  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().children(recursive=True) == []
    assert psutil.Process().num_fds() <= before
    assert not [place for place in PLACES if os.path.exists(os.path.join(place, MARK))]
    assert not glob.glob("/tmp/ponder-program-*")


def contained(program: str, isolation: Isolation) -> Run:
    """The run, which must end in time. A machine busy with other things gets two more tries: it is not what is
    measured."""
    seconds = []
    for _ in range(3):
        with Jail(program, BOUNDS, isolation=isolation, python=readable_python(isolation)) as jail:
            started = time.monotonic()
            run = jail.run(b"")
        seconds.append(time.monotonic() - started)
        if seconds[-1] < LIMIT_S + 1.0:
            return run
    raise AssertionError(f"limit {LIMIT_S} s, ended after {seconds}")


def readable_python(isolation: Isolation) -> str:
    """An interpreter that another user can read: without namespaces, root's own may be out of a program's reach."""
    needed = isolation is Isolation.LIMITS and os.geteuid() == 0 and os.path.exists("/usr/bin/python3")
    return "/usr/bin/python3" if needed else ""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_contained_within_its_limit(name: str) -> None:
    program, end = BOMBS[name]
    run = contained(program, Isolation.NAMESPACES)
    assert run.end is end or (end is None and (run.end is not End.EXITED or run.code != 0))


def test_one_allocation_over_the_limit_fails_inside_the_program() -> None:
    run = contained(BOMBS["memory"][0], Isolation.NAMESPACES)
    assert run.end is End.EXITED and b"MemoryError" in run.stderr


@pytest.mark.parametrize(
    "program", [SEARCH, WRITE_EVERYWHERE, LEFTOVER, ESCAPES], ids=["search", "write", "left", "out"]
)
@pytest.mark.parametrize("is_privileged", [True, False])
def test_an_attack_gains_nothing(program: str, is_privileged: bool) -> None:
    """Both ways to build the jail: with root's rights, and with a user namespace alone."""
    if is_privileged and os.geteuid() != 0:
        pytest.skip("needs root")
    expected = SECRET  # in this process, as it is in a worker's
    with Jail(program, BOUNDS, is_privileged=is_privileged) as jail:
        run = jail.run(b"")
        assert (run.end, run.code, run.stderr) == (End.EXITED, 0, b"")
        assert run.stdout in (b"nothing\n", b"done\n", b"") and expected.encode() not in run.stdout
        assert jail.run(b"").end is End.EXITED


def test_the_network_is_out_of_reach() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        program = NETWORK.replace("PORT", str(server.getsockname()[1]))
        for isolation, python in ((Isolation.NAMESPACES, ""), (Isolation.LIMITS, readable_python(Isolation.LIMITS))):
            with Jail(program, BOUNDS, isolation=isolation, python=python) as jail:
                assert jail.run(b"").stdout == b"nothing\n"


@pytest.mark.parametrize("name", ["infinite loop", "fork bomb", "memory in many", "output", "kill everybody"])
def test_limits_alone_contain_bombs_too(name: str) -> None:
    program, _ = BOMBS[name]
    run = contained(program, Isolation.LIMITS)
    assert run.end is not End.EXITED or run.code != 0


def test_limits_alone_end_what_was_left_running() -> None:
    with Jail(LEFTOVER, BOUNDS, isolation=Isolation.LIMITS, python=readable_python(Isolation.LIMITS)) as jail:
        assert jail.run(b"").stdout == b"done\n"
        assert jail.run(b"").stdout == b"done\n"


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "import builtins\nbuiltins.print = lambda *a: None\nprint(42)",
        "print('passed', 'ok', 'all tests passed', True, 1.0)",
        "import os\nos.write(3, b'42')\nos.write(2, b'42')",
        "import json\njson.dumps = lambda *a, **k: '42'\ndef f(): return 0",
    ],
)
def test_tricks_score_0(program: str) -> None:
    tests = json.dumps({"inputs": ["6 7\n"], "outputs": ["42\n"]})
    outcome = verify(sample(f"```python\n{program}\n```", tests))
    assert (outcome.status, outcome.score) == (Status.JUDGED, 0.0)


def test_a_worker_serves_the_next_program_after_a_bomb_and_dies_with_its_jail() -> None:
    tests = json.dumps({"inputs": ["1"] * 3, "outputs": ["1"] * 3})
    settings = {"max_seconds": 0.5, "max_processes": 4}
    bomb, good = (
        sample(f"```\n{program}\n```", tests, settings=settings) for program in (BOMBS["fork bomb"][0], "print(1)")
    )
    pool = WorkerPool(num_workers=1, max_seconds=10, max_memory_mib=1536)
    try:
        replies = pool.call("rewards.code.verify:verify", [good, bomb, good])
        assert [reply.value["score"] for reply in replies] == [1.0, 0.0, 1.0]
        late = sample("```\nimport time\ntime.sleep(60)\n```", tests, settings={"max_seconds": 60})
        (reply,) = pool.call("rewards.code.verify:verify", [late], max_seconds=1.0)
        assert reply.status is ReplyStatus.TIMEOUT
        assert pool.call("rewards.code.verify:verify", [good])[0].value["score"] == 1.0
    finally:
        pool.close()
    deadline = time.monotonic() + 5
    while jails := [
        p.pid for p in psutil.process_iter(["cmdline"]) if "rewards.code.jail" in (p.info["cmdline"] or ())
    ]:
        assert time.monotonic() < deadline, jails
        time.sleep(0.05)


def test_a_jail_that_cannot_be_built_says_why_and_leaves_the_answer_unjudged() -> None:
    settings = {"python": "/bin/true"}
    outcome = verify(sample("```\nprint(1)\n```", '{"inputs": [""], "outputs": ["1"]}', settings=settings))
    assert (outcome.status, outcome.score) == (Status.CRASH, None)
    assert "jail" in outcome.reason and "limits" in outcome.reason
    with pytest.raises(JailError):
        Jail("print(1)", BOUNDS, python="/bin/false")


def test_the_probe_tells_what_holds_here() -> None:
    isolation, why = probe()
    assert isolation is Isolation.NAMESPACES, why


def test_a_jail_ends_with_the_process_that_made_it() -> None:
    script = (
        "import sys, time, threading; from rewards.code.runner import Jail, Bounds\n"
        "jail = Jail('import time; time.sleep(600)', Bounds(max_seconds=600))\n"
        "threading.Thread(target=jail.run, args=(b'',), daemon=True).start()\n"
        "time.sleep(0.2); print(jail._init, flush=True); time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        init = int(owner.stdout.readline())
        assert psutil.pid_exists(init)
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 5
    while psutil.pid_exists(init):
        assert time.monotonic() < deadline
        time.sleep(0.02)
