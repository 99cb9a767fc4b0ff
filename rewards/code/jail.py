"""The processes that hold a program: a launcher, an init that serves tests one by one, and each test's own process.

    runner (outside)  --exec-->  launcher  --fork-->  init, process 1 of the jail  --fork-->  one test's program

Started by `rewards.code.runner` as `python -P -S -m rewards.code.jail FD JSON`, FD being one end of a packet socket.
Only the standard library is imported: what is loaded here is what every program finds loaded.

Over the socket, one JSON object a packet. From the launcher {"init": pid}, from init {"ready": true}, from either
{"error": text}. To init first {} with a descriptor that holds the program. Then for each test {"function": name or
null} with four descriptors (stdin, stdout, stderr, result), and back {"code": exit status, negative for a signal} when
every process of the test is gone. Nothing that a test expects is ever sent.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import json
import math
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

from rewards.code import guest, syscalls

FIRST_UID = 30_000
NUM_DESCRIPTORS = 4
_MAX_PACKET = 65_536
_MAX_OPEN_FILES = 64
_STAGE = "/tmp"  # any directory that exists everywhere; covered in this process's own view only
_DEVICES = ("null", "zero", "random", "urandom")
_SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin")


def main() -> None:
    """Entry point. What goes wrong while the jail is built is said over the socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    order = json.loads(sys.argv[2])
    try:
        work = _build(control, order)
    except (OSError, ImportError) as error:
        with contextlib.suppress(OSError):
            _send(control, error=f"{type(error).__name__}: {error}")
        os._exit(1)
    if work is not None:  # in the process of a test, which ends as every Python program does
        guest.run(*work)


def _build(control: socket.socket, order: dict[str, Any]) -> tuple[str, str | None] | None:
    """In the process of a test (program, function); None in the launcher, once init has ended."""
    syscalls.die_with_parent()
    if os.getppid() != order["parent"]:
        return None
    if order["namespaces"]:
        _enter_namespaces(is_privileged=order["is_privileged"])
    child = os.fork()
    if child == 0:
        return _be_init(control, order)
    _send(control, init=child)
    control.close()
    os.waitpid(child, 0)
    return None


def _send(control: socket.socket, **message: Any) -> None:
    control.send(json.dumps(message).encode())


# --------------------------------------------------------------------------------------------------- the jail


def _enter_namespaces(*, is_privileged: bool) -> None:
    """New namespaces for mounts, processes, network and the like; without privileges inside a user namespace."""
    kinds = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC
    kinds |= syscalls.CLONE_NEWUTS
    if is_privileged:
        syscalls.unshare(kinds)
        return
    user, group = os.geteuid(), os.getegid()
    syscalls.unshare(kinds | syscalls.CLONE_NEWUSER)
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{FIRST_UID} {user} 1"),
        ("gid_map", f"{FIRST_UID} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _be_init(control: socket.socket, order: dict[str, Any]) -> tuple[str, str | None]:
    """Build the jail around this process, give up every right, serve tests. Returns in the process of a test only."""
    if order["namespaces"]:
        _move_into([sys.base_prefix, *order["packages"]], order["max_disk_mib"])
    else:
        syscalls.adopt_orphans()
        os.chdir(order["directory"])
    syscalls.empty_bounding_set()
    if order["is_privileged"]:
        os.setgroups([])
        os.setresgid(order["uid"], order["uid"], order["uid"])
        os.setresuid(order["uid"], order["uid"], order["uid"])
    syscalls.drop_capabilities()
    syscalls.die_with_parent()
    syscalls.hide_memory()
    importlib.import_module("heapq")  # what programs import must be readable to whom they run as
    program = _receive_program(control)
    _send(control, ready=True)
    return program, _serve(control, order)


def _move_into(visible: list[str], max_disk_mib: int) -> None:
    """A root that holds the interpreter and the system's libraries, read-only, and an empty /tmp in memory."""
    syscalls.mount("none", "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    hardened = syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("tmpfs", _STAGE, "tmpfs", syscalls.MS_NOSUID, "size=1m,mode=755")
    os.mkdir(f"{_STAGE}/old")
    syscalls.pivot_root(_STAGE, f"{_STAGE}/old")
    os.chdir("/")
    os.mkdir("/tmp")  # before the rest, some of which may lie in it
    room = f"size={max_disk_mib}m,nr_inodes=4096,mode=1777"
    syscalls.mount("tmpfs", "/tmp", "tmpfs", hardened, room)
    for path in (*_SYSTEM, *visible):
        old = f"/old{path}"
        if os.path.islink(old):
            os.symlink(os.readlink(old), path)
        elif os.path.isdir(old) and not os.path.isdir(path):
            os.makedirs(path)
            syscalls.mount(old, path, None, syscalls.MS_BIND | syscalls.MS_REC)
            syscalls.make_read_only(path)
    os.mkdir("/dev")
    for device in _DEVICES:
        os.close(os.open(f"/dev/{device}", os.O_CREAT | os.O_WRONLY))
        syscalls.mount(f"/old/dev/{device}", f"/dev/{device}", None, syscalls.MS_BIND)
    os.chdir("/tmp")
    syscalls.unmount("/old", syscalls.MNT_DETACH)
    os.rmdir("/old")
    syscalls.mount("none", "/", None, syscalls.MS_REMOUNT | syscalls.MS_BIND | syscalls.MS_RDONLY | hardened)


# ------------------------------------------------------------------------------------------------------- init


def _receive_program(control: socket.socket) -> str:
    _, descriptors, _, _ = socket.recv_fds(control, _MAX_PACKET, 1)
    with open(descriptors[0], encoding="utf-8") as file:
        return file.read()


def _serve(control: socket.socket, order: dict[str, Any]) -> str | None:
    """Fork a process for each test, reap it and all it left behind, report.

    Returns only in such a process, with the name of the function to call.
    """
    others = 2 if order["namespaces"] or order["is_privileged"] else _num_tasks_of_user()  # besides those of a test
    while True:
        packet, descriptors, _, _ = socket.recv_fds(control, _MAX_PACKET, NUM_DESCRIPTORS)
        if not packet:
            os._exit(0)  # the runner is done, or gone
        child = os.fork()
        if child == 0:
            _be_test(descriptors, order, others)
            function: str | None = json.loads(packet)["function"]
            return function
        for descriptor in descriptors:
            os.close(descriptor)
        status = _wait(child, control)
        _end_all(is_alone=order["namespaces"])
        _send(control, code=os.waitstatus_to_exitcode(status))


def _wait(child: int, control: socket.socket) -> int:
    """The wait status of `child`. Ends everything when the runner goes away meanwhile."""
    poller = select.poll()
    descriptor = os.pidfd_open(child)
    poller.register(descriptor, select.POLLIN)
    poller.register(control, 0)  # only its end
    if descriptor not in {ready for ready, _ in poller.poll()}:
        os._exit(0)
    os.close(descriptor)
    return os.waitpid(child, 0)[1]


def _end_all(*, is_alone: bool) -> None:
    """Kill and reap whatever a test left running. As process 1 of a namespace, -1 means everybody in it."""
    while True:
        if is_alone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def descendants(pid: int) -> list[int]:
    """Process numbers of the children of `pid`, of theirs, and so on, as far as they can be seen now."""
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{thread}/children") as file:
                    queue += (children := [int(word) for word in file.read().split()])
                    found += children
    return found


def _num_tasks_of_user() -> int:
    """Threads of all processes of this user, which the kernel counts together where there is no namespace."""
    count = 0
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{name}").st_uid == os.getuid():
                count += len(os.listdir(f"/proc/{name}/task"))
    return count


# ---------------------------------------------------------------------------------------------- a test's process


def _be_test(descriptors: list[int], order: dict[str, Any], others: int) -> None:
    """Descriptors 0 to 3 and nothing else, the limits, no environment, and only the calls that a program needs."""
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 64) for descriptor in descriptors]
    for target, descriptor in enumerate(high):
        os.dup2(descriptor, target)
    os.closerange(len(high), 1 << 16)
    mib = 1 << 20
    for kind, limit in (
        (resource.RLIMIT_AS, order["max_memory_mib"] * mib),
        (resource.RLIMIT_CPU, math.ceil(order["max_seconds"])),
        (resource.RLIMIT_FSIZE, order["max_disk_mib"] * mib),
        (resource.RLIMIT_NPROC, order["max_processes"] + others),
        (resource.RLIMIT_NOFILE, _MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        ceiling = resource.getrlimit(kind)[1]
        limit = limit if ceiling == resource.RLIM_INFINITY else min(limit, ceiling)
        resource.setrlimit(kind, (limit, limit))
    search = os.environ["PYTHONPATH"]
    sys.path[:] = [path for path in sys.path if path != search] + order["packages"]
    os.environ.clear()
    os.environ |= {"PATH": "/usr/bin:/bin", "HOME": os.getcwd(), "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
    syscalls.forbid_calls(signals=not order["namespaces"])


if __name__ == "__main__":
    main()
