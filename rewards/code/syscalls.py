"""The kernel calls that Python 3.11 does not offer, by their C names, and the filter that takes some away.

Numbers of x86_64 and aarch64. Every function raises OSError with the kernel's reason.
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
_ANY_NAMESPACE = 0x7E020000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_CAPBSET_DROP = 1, 4, 22, 24
_PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 36, 38
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_CAPABILITY_VERSION_3 = 0x20080522
_EPERM, _ENOSYS = 1, 38

_libc = ctypes.CDLL(None, use_errno=True)
_MACHINE = os.uname().machine
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

# name -> number on x86_64, on aarch64
_NUMBERS: dict[str, tuple[int, int]] = {
    "clone": (56, 220), "clone3": (435, 435), "pivot_root": (155, 41), "mount_setattr": (442, 442),
    # ways out: other processes, other namespaces, the network
    "socket": (41, 198), "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438), "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "mount": (165, 40),
    "umount2": (166, 39), "fsopen": (430, 430), "open_tree": (428, 428), "move_mount": (429, 429),
    "open_by_handle_at": (304, 265),
    # memory that no limit of a process counts
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "io_uring_setup": (425, 425),
    # parts of the kernel that no program of this kind needs
    "bpf": (321, 280), "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217),
    "request_key": (249, 218), "userfaultfd": (323, 282), "kexec_load": (246, 104), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "syslog": (103, 116), "reboot": (169, 142),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "pidfd_send_signal": (424, 424),
}  # fmt: skip
_NEEDED_INSIDE = {"clone", "clone3"}
# Harmless where a process namespace holds only the program's own processes.
_SIGNALS = {"kill", "tkill", "tgkill", "pidfd_send_signal"}


def number(name: str) -> int:
    """Raises OSError on a machine whose numbers are not known here."""
    if _MACHINE not in _ARCHITECTURES:
        raise OSError(_ENOSYS, f"programs can be confined on {' and '.join(_ARCHITECTURES)}, not on {_MACHINE}")
    return _NUMBERS[name][_MACHINE == "aarch64"]


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    arguments = (source.encode(), target.encode(), kind.encode() if kind else None)
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), data.encode()), f"mounting {source} at {target}")


def unmount(target: str, flags: int) -> None:
    _check(_libc.umount2(target.encode(), flags), f"unmounting {target}")


def pivot_root(new: str, old: str) -> None:
    _check(_libc.syscall(number("pivot_root"), new.encode(), old.encode()), "pivot_root")


def make_read_only(target: str) -> None:
    """The mount at `target` and all below it: read-only, without set-user-id programs and without devices."""
    attributes = struct.pack("=4Q", MS_RDONLY | MS_NOSUID | MS_NODEV, 0, 0, 0)
    call = number("mount_setattr")
    result = _libc.syscall(call, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, ctypes.c_size_t(32))
    _check(result, f"making {target} read-only")


def die_with_parent() -> None:
    """SIGKILL when the parent ends. A change of user or capabilities undoes it, so it comes after those."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def hide_memory() -> None:
    """No other process of this user may look into this one."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def adopt_orphans() -> None:
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def empty_bounding_set() -> None:
    """No program started later can gain a capability. Without the right to do so there is none to lose either."""
    for capability in range(64):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break


def drop_capabilities() -> None:
    """All that this process holds, and no set-user-id program brings any back."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(header, bytes(24)), "capset")
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def forbid_calls(*, signals: bool) -> None:
    """Install the filter: refused calls fail with EPERM, and `signals` says whether sending any is refused too.

    Needs no_new_privs. New threads and processes are allowed, new namespaces are not; clone3 hides its flags from a
    filter, so it is reported as unknown and the C library falls back to clone.
    """
    filters = _filter(signals)
    code = ctypes.create_string_buffer(filters, len(filters))
    program = struct.pack("=H6xQ", len(filters) // 8, ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, program, 0, 0), "prctl(PR_SET_SECCOMP)")


def _filter(signals: bool) -> bytes:
    """A classic BPF program over struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]}."""
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, kill, refuse = 0x7FFF0000, 0x80000000, 0x00050000

    def when(test: int, value: int, verdict: int) -> bytes:
        return struct.pack("=HBBI", test, 0, 1, value) + struct.pack("=HBBI", give, 0, 0, verdict)

    call, arch, first_argument = (struct.pack("=HBBI", load, 0, 0, offset) for offset in (0, 4, 16))
    right_arch = struct.pack("=HBBI", equal, 1, 0, _ARCHITECTURES[_MACHINE]) + struct.pack("=HBBI", give, 0, 0, kill)
    denied = _NUMBERS.keys() - _NEEDED_INSIDE - (set() if signals else _SIGNALS)
    parts = [arch, right_arch, call]
    if _MACHINE == "x86_64":
        parts.append(when(at_least, 0x40000000, refuse | _ENOSYS))  # the same calls once more, under other numbers
    parts += [when(equal, number(name), refuse | _EPERM) for name in sorted(denied)]
    parts.append(when(equal, number("clone3"), refuse | _ENOSYS))
    # What is left: clone may not make namespaces. Skip the two instructions for any other call.
    parts.append(struct.pack("=HBBI", equal, 0, 3, number("clone")))
    parts += [first_argument, when(any_bit, _ANY_NAMESPACE, refuse | _EPERM)]
    parts.append(struct.pack("=HBBI", give, 0, 0, allow))
    return b"".join(parts)
