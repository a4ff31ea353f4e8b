"""The walls of a job: Landlock, seccomp, limits. Called by the child itself, once, before any hostile code runs.

Order: close files → session and death signal → limits → drop capabilities → no_new_privs → Landlock → seccomp. Each
step raises OSError if the system refuses it, and the job then ends: there is no weaker way on. Linux only.

Sources: landlock(7), seccomp(2), prctl(2); the filter is built by libseccomp. Numbers of Landlock's system calls are
the same on all architectures.
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
import sys
import sysconfig
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 1, 4, 24, 38, 47
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
READ_FILE, READ_DIR, EXECUTE = 1 << 2, 1 << 3, 1 << 0
# How many kinds of access to files each version of Landlock knows; what it does not know it can't deny.
FS_KINDS = {1: 13, 2: 14, 3: 15, 4: 15}
FS_KINDS_NEWEST = 16

# What numerical Python needs, found by running it: memory, time, threads, and files already open.
PLAIN = (
    "read write close fstat lseek mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending "
    "rt_sigtimedwait pread64 pwrite64 readv writev preadv pwritev select pselect6 poll ppoll sched_yield mremap "
    "mincore madvise dup dup2 dup3 nanosleep clock_nanosleep getitimer setitimer alarm pause getpid gettid getppid "
    "getuid getgid geteuid getegid getgroups getpgrp getpgid getsid exit exit_group uname fcntl getcwd gettimeofday "
    "time clock_gettime clock_getres getrlimit getrusage sysinfo times sigaltstack getpriority sched_getparam "
    "sched_getscheduler sched_get_priority_max sched_get_priority_min arch_prctl futex futex_waitv sched_getaffinity "
    "sched_setaffinity set_tid_address set_robust_list get_robust_list restart_syscall epoll_create epoll_create1 "
    "epoll_ctl epoll_wait epoll_pwait eventfd2 pipe pipe2 get_mempolicy getcpu getrandom membarrier rseq mseal"
).split()
# System calls that take a path. Under Landlock they reach what its rules allow; at L1 there are none.
PATHS = (
    "open openat openat2 stat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat getdents "
    "getdents64 statfs fstatfs"
).split()
IOCTLS = (0x5401, 0x5451, 0x5450, 0x541B, 0x5421, 0x5413)  # TCGETS FIOCLEX FIONCLEX FIONREAD FIONBIO TIOCGWINSZ
PRCTLS = (15, 16, 0x53564D41, 3)  # PR_SET_NAME PR_GET_NAME PR_SET_VMA PR_GET_DUMPABLE
MAP_TYPE, MAP_PRIVATE = 0x0F, 0x02
CLONE_VM, CLONE_THREAD = 0x100, 0x10000
CLONE_NAMESPACES = 0x7E020000 | 0x80


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
    """What Python needs to import: the standard library, installed packages, shared libraries, time zones."""
    paths = sysconfig.get_paths()
    found = {paths[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    found |= {p for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
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


def seccomp(paths: bool, more: Iterable[str] = ()) -> None:
    """Refuse every system call but those of numerical Python; ``paths``: whether some may name a file. ``more`` are allowed."""
    import pyseccomp as sc

    refuse = sc.SyscallFilter(sc.ERRNO(errno.EPERM))
    refuse.set_attr(sc.Attr.ACT_BADARCH, sc.KILL_PROCESS)
    with contextlib.suppress(OSError):  # before libseccomp 2.5 filters are lists: correct, a little slower
        refuse.set_attr(sc.Attr.CTL_OPTIMIZE, 2)  # a binary tree, for computations that call futex a million times
    for name in (*PLAIN, *more, *(PATHS if paths else ())):
        if sc.resolve_syscall(sc.system_arch(), name) >= 0:  # negative: not on this architecture
            refuse.add_rule(sc.ALLOW, name)
    refuse.add_rule(sc.ERRNO(errno.ENOSYS), "clone3")  # its flags can't be read by a filter; libc falls back to clone
    # Threads only: CLONE_VM and CLONE_THREAD set, and no namespace.
    mask = CLONE_NAMESPACES | CLONE_VM | CLONE_THREAD
    refuse.add_rule(sc.ALLOW, "clone", sc.Arg(0, sc.MASKED_EQ, mask, CLONE_VM | CLONE_THREAD))
    # Shared anonymous memory escapes RLIMIT_DATA, so memory is private.
    refuse.add_rule(sc.ALLOW, "mmap", sc.Arg(3, sc.MASKED_EQ, MAP_TYPE, MAP_PRIVATE))
    for request in IOCTLS:
        refuse.add_rule(sc.ALLOW, "ioctl", sc.Arg(1, sc.EQ, request))
    for option in PRCTLS:
        refuse.add_rule(sc.ALLOW, "prctl", sc.Arg(0, sc.EQ, option))
    own = os.getpid()
    for who in (0, own):
        # Reading limits only: the third argument is the new limit.
        refuse.add_rule(sc.ALLOW, "prlimit64", sc.Arg(0, sc.EQ, who), sc.Arg(2, sc.EQ, 0))
    refuse.add_rule(sc.ALLOW, "tgkill", sc.Arg(0, sc.EQ, own))
    refuse.load()


def limits(cpu: int, memory: int, data: int, files: int = 64) -> None:
    """Bounds of the process: CPU seconds, bytes of memory beyond what it has now and ``data``; no file, no core."""
    for what, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_DATA, _data_bytes() + memory + data),
    ):
        resource.setrlimit(what, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where the machine runs out of memory, the job goes first


def _data_bytes() -> int:
    """Private writable memory now: the fork server's own, which RLIMIT_DATA counts too."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmData:"):
                return int(line.split()[1]) << 10
    raise OSError(errno.ENOENT, "no VmData in /proc/self/status")


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
        seccomp(paths=True)
    elif level == "L1":
        seccomp(paths=False)
    else:
        raise OSError(errno.ENOTSUP, f"there is no isolation {level}")


# What a child that runs plans needs to hear from its kernel; and what a party needs to talk to its partners (libzmq's threads
# begin with setting their scheduler, to what it is).
FRAMES = ("recvmsg", "recvfrom", "sendto", "sendmsg")
SOCKETS = ("socket", "bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "getsockopt", "setsockopt",
           "shutdown", "socketpair", "sched_setscheduler")  # fmt: skip


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
        seccomp(level != "L1", (*FRAMES, *(SOCKETS if network else ())))
