"""The walls of a job: Landlock, seccomp, limits. Called by the child itself, once, before any hostile code runs.

Order: close files → session and death signal → limits → drop capabilities → no_new_privs → Landlock → seccomp. Each
step raises OSError if the system refuses it, and the job then ends: there is no weaker way on. Linux only.

Sources: landlock(7), prctl(2); `calls` has the filter of seccomp. Numbers of Landlock's system calls are the same on all
architectures.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
import stat
import struct
import sysconfig
from collections.abc import Iterable

from syft_lab.kernel.executor import calls, origin

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_DIR, EXECUTE = 1 << 2, 1 << 3, 1 << 0
# How many kinds of access to files each version of Landlock knows; what it does not know it can't deny.
FS_KINDS = {1: 13, 2: 14, 3: 15, 4: 15}
FS_KINDS_NEWEST = 16
ADDRESSES = 8 << 30  # what packages that are imported later, and allocators, map without using


def _prctl(option: int, *values: int) -> int:
    result = int(_libc.prctl(option, *values, *[0] * (4 - len(values))))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), f"prctl {option}")
    return result


def landlock_version() -> int:
    """The version of Landlock in this kernel; 0 where there is none, or where it is switched off."""
    version = int(_libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    return max(version, 0)


def readable_paths() -> list[str]:
    """What Python needs to import: the standard library, installed packages and this one, shared libraries, time zones."""
    paths = sysconfig.get_paths()
    found = {paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {str(origin.package()), *origin.packages()}
    found |= {"/usr/lib", "/lib", "/usr/lib64", "/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache",
              "/dev/null", "/dev/zero", "/dev/urandom", "/sys/devices/system/cpu", "/sys/devices/system/node"}  # fmt: skip
    return sorted({os.path.realpath(p) for p in found if os.path.exists(p)})


def landlock(paths: Iterable[str], network: bool = False) -> None:
    """Deny every access to files but reading ``paths``; deny TCP (but for the ``network``), signals and abstract sockets where
    the kernel can."""  # noqa: D209
    version = landlock_version()
    if not version:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock")
    kinds = (1 << FS_KINDS.get(version, FS_KINDS_NEWEST)) - 1
    rules = struct.pack("=Q", kinds)
    if version >= 4:
        rules += struct.pack("=Q", 0 if network else 3)  # TCP: bind, connect
    if version >= 6:
        rules += struct.pack("=Q", 3)  # scopes: abstract Unix sockets, signals
    ruleset = _libc.syscall(CREATE_RULESET, rules, ctypes.c_size_t(len(rules)), ctypes.c_uint(0))
    _check(ruleset, "landlock_create_ruleset")
    for path in paths:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            access = READ_FILE | READ_DIR if stat.S_ISDIR(os.fstat(place).st_mode) else READ_FILE
            rule = struct.pack("=Qi", access, place)
            _check(_libc.syscall(ADD_RULE, ctypes.c_int(ruleset), 1, rule, ctypes.c_uint(0)), "landlock_add_rule")
        finally:
            os.close(place)
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _check(_libc.syscall(RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0)), "landlock_restrict_self")
    os.close(ruleset)


def _check(result: int, what: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


def limits(cpu: int, memory: int, data: int, files: int = 64) -> None:
    """Bounds of the process: CPU seconds, bytes of memory beyond what it has now and ``data``; no file, no core.

    RLIMIT_DATA counts private memory that may be written. Addresses are bounded too, far above, for what it does not count:
    memory that is read-only by now, tables of pages. Signals that wait in a queue are counted for all processes of a user.
    """
    size, private = _sizes()
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 0),
        (resource.RLIMIT_DATA, private + memory + data),
        (resource.RLIMIT_AS, size + 2 * (memory + data) + ADDRESSES),
    ):
        hard = resource.getrlimit(what)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (bound, bound))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where the machine runs out of memory, the job goes first


def _sizes() -> tuple[int, int]:
    """Bytes of all addresses, and of private writable memory, now: the fork server's own, which limits count too."""
    with open("/proc/self/status") as status:
        facts = dict(line.split(":", 1) for line in status)
    try:
        size, private = (int(facts[k].split()[0]) << 10 for k in ("VmSize", "VmData"))
    except KeyError as missing:
        raise OSError(errno.ENOENT, f"no {missing} in /proc/self/status") from None
    return size, private


def drop_capabilities() -> None:
    """Give up all capabilities, for an owner who is root (in a container, say)."""
    if os.geteuid() != 0:
        return
    _prctl(PR_CAP_AMBIENT, 4)  # clear all
    for capability in range(64):
        try:
            _prctl(PR_CAPBSET_DROP, capability)
        except OSError:  # EINVAL past the last one; EPERM where the right to drop is gone already
            break
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _check(_libc.capset(header, bytes(24)), "capset")


def close_files(keep: Iterable[int]) -> None:
    """Close every open file but ``keep``."""
    start = 0
    for file in sorted(set(keep)):
        if start < file:  # an empty range from 0 would close everything
            os.closerange(start, file)
        start = file + 1
    os.closerange(start, 1 << 20)


def detach(server: int) -> None:
    """A session of its own, which dies with the fork server, and whose memory nobody may read.

    ``server`` is the fork server's number, asked before the fork: a child could no longer tell it from whoever inherits it.
    """
    os.setsid()
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        raise OSError(errno.ESRCH, "the fork server is gone")
    _prctl(PR_SET_DUMPABLE, 0)


def enter(level: str, cpu: int, memory: int, data: int, readable: Iterable[str]) -> None:
    """All walls of ``level`` (L1, L2 or L3), after `detach` and `close_files`; raises OSError."""
    limits(cpu, memory, data)
    drop_capabilities()
    if level in ("L2", "L3"):
        landlock(readable)
        calls.seccomp(paths=True)
    elif level == "L1":
        calls.seccomp(paths=False)
    else:
        raise OSError(errno.ENOTSUP, f"there is no isolation {level}")


def enter_for_plans(level: str, memory: int, readable: Iterable[str], device: bool, network: bool = False) -> None:
    """Walls around a child that runs plans: those of ``level`` with `recvmsg`, or on a GPU (``device``) and at L0 fewer.

    A party of a federation has the ``network``: it talks to its partners itself, and still reads no file and starts nothing.
    """
    if device:
        drop_capabilities()
        return
    limits(1 << 30, memory * 3 // 2, 0, files=256 if network else 64)
    drop_capabilities()
    if level in ("L2", "L3"):
        landlock(readable, network)
    if level != "L0":
        calls.seccomp(level != "L1", calls.FRAMES, network)
