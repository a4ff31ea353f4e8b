"""The system calls that a job may make, by name and by argument; everything else is refused.

A filter sees numbers, not what pointers point at. So a call is allowed whole only where no argument of it can reach another
process, another job, or a setting of the machine; the others are allowed for the arguments listed here. Four kinds of them
reach further than their names say, and are why the lists go by argument:

- ``fcntl`` sends signals (F_SETOWN, F_SETSIG, O_ASYNC), and marks files that others have open (locks, leases, hints);
- what takes the number of a process answers, or acts, for any process of the same user, or of anyone: here 0 and the own
  number alone. Clocks below 0 are the CPU time of a process, and locks that pass on priority look up their holder by number;
- memory that is shared outlives a job, and escapes its limits; so does memory that grows downwards, which counts as a stack;
- a futex on a page of a file is one for all who have that file mapped, as all jobs of a fork server have libc: waking, and
  counting who waits, is for private ones alone. A thread's end, though, wakes whoever waits at an address that its maker chose,
  so nobody may wait there either: to wait for a shared futex gives "the value has changed", and glibc, which waits so for the
  end of a thread, looks again.

Arguments are compared in all 64 bits, where Linux may read 32 of them: a number with other upper bits matches nothing, so it
is refused. Numbers of calls are libseccomp's; those of options are the same on x86-64 and arm64, but for O_LARGEFILE.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any

# What numerical Python needs, found by running it: memory, time, threads, and files already open.
PLAIN = (
    "read write close fstat lseek mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending "
    "rt_sigtimedwait pread64 pwrite64 readv writev preadv pwritev select pselect6 poll ppoll sched_yield mremap "
    "dup dup2 dup3 nanosleep getitimer setitimer alarm pause getpid gettid getppid "
    "getuid getgid geteuid getegid getgroups getpgrp exit exit_group uname getcwd gettimeofday "
    "time getrlimit getrusage sysinfo times sigaltstack sched_get_priority_max sched_get_priority_min arch_prctl "
    "set_tid_address set_robust_list restart_syscall epoll_create epoll_create1 "
    "epoll_ctl epoll_wait epoll_pwait eventfd2 pipe pipe2 getcpu getrandom rseq mseal"
).split()
# System calls that take a path, besides those that open one. Under Landlock they reach what its rules allow, but for whether a
# path exists and what stat says of it; at L1 there are none.
PATHS = "stat lstat newfstatat statx access faccessat faccessat2 getdents getdents64 statfs fstatfs".split()
OPEN = {"open": 1, "openat": 2}  # and which argument has the flags
# Landlock has no say in what is opened by O_PATH, and up to Linux 6.1 none in O_TRUNC, which empties what is opened to be read.
O_PATH, CHANGES = 0o10000000, os.O_ACCMODE | os.O_CREAT | os.O_TRUNC
# What a child that runs plans needs to hear from its kernel.
FRAMES = ("recvmsg", "recvfrom", "sendto", "sendmsg")
# What a party needs to talk to its partners; its sockets are those of `_network`.
SOCKETS = ("bind", "listen", "accept", "accept4", "connect", "getsockname", "getpeername", "getsockopt", "setsockopt",
           "shutdown")  # fmt: skip

# Calls whose first argument is a process.
OF_A_PROCESS = ("getpgid", "getsid", "sched_getparam", "sched_getscheduler", "sched_getaffinity", "sched_setaffinity",
                "get_robust_list")  # fmt: skip
CLOCKS, NEWEST_CLOCK = ("clock_gettime", "clock_getres", "clock_nanosleep"), 11  # CLOCK_TAI
IOCTLS = (0x5401, 0x5451, 0x5450, 0x541B, 0x5421, 0x5413)  # TCGETS FIOCLEX FIONCLEX FIONREAD FIONBIO TIOCGWINSZ
PRCTLS = (15, 16, 0x53564D41, 3)  # PR_SET_NAME PR_GET_NAME PR_SET_VMA PR_GET_DUMPABLE
FCNTLS = (0, 1, 2, 3, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_DUPFD_CLOEXEC
F_SETFL, STATUS_FLAGS = 4, os.O_NONBLOCK | 0o500003  # and what F_GETFL gives besides: O_ACCMODE, O_LARGEFILE of both
FUTEX_WAITS, FUTEX_WAKES = (0, 9), (1, 3, 4, 5, 10)  # WAIT and by bits; WAKE REQUEUE CMP_REQUEUE WAKE_OP and by bits
FUTEX_PRIVATE, FUTEX_REALTIME = 0x80, 0x100
BARRIERS = (0, 8, 16, 32, 64, 128, 256)  # of membarrier: what there is, and those among the own threads
POLICIES = (0, 4)  # of get_mempolicy: the own one, and the nodes that it may have; not where a page of a file lies
# Not MADV_MERGEABLE: whether pages of two jobs were merged shows in time. NORMAL … DONTNEED, FREE, DONTFORK, DOFORK, HUGEPAGE,
# NOHUGEPAGE, DONTDUMP, DODUMP, WIPEONFORK, KEEPONFORK, POPULATE.
ADVICE = (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17, 18, 19, 22, 23)
ALL_BITS = (1 << 64) - 1
MAP_PRIVATE = 0x02
# With it FIXED ANONYMOUS 32BIT DENYWRITE EXECUTABLE NORESERVE POPULATE NONBLOCK STACK FIXED_NOREPLACE; not GROWSDOWN, LOCKED
# or HUGETLB: such memory counts as something else than data, or comes from a pool of the machine.
MAP_FLAGS = 0x10 | 0x20 | 0x40 | 0x800 | 0x1000 | 0x4000 | 0x8000 | 0x10000 | 0x20000 | 0x100000
# What libc makes a thread with: all is shared with it, and nothing is a process or a namespace. CLONE_DETACHED is ignored.
THREAD, CLONE_DETACHED = 0x3D0F00, 0x400000
AF_INET, AF_INET6, AF_UNIX, AF_NETLINK, NETLINK_ROUTE, SOCK_STREAM, SOCK_TYPE = 2, 10, 1, 16, 0, 1, 0xF

Test = tuple[int, str, int, int]
"""Which argument, how it is compared ("is", "most" or "masked"), with what: a value, or a mask and a value."""
Rule = tuple[str, tuple[Test, ...]]


def _is(place: int, value: int) -> Test:
    return place, "is", value, 0


def _masked(place: int, mask: int, value: int) -> Test:
    return place, "masked", mask, value


def by_argument(own: int) -> Iterator[Rule]:
    """What is allowed for some arguments; ``own`` is the number of the process."""
    for who in (0, own):
        yield from ((name, (_is(0, who),)) for name in OF_A_PROCESS)
        yield "getpriority", (_is(0, os.PRIO_PROCESS), _is(1, who))
        yield "prlimit64", (_is(0, who), _is(2, 0))  # reads limits: the third argument is the new one
    yield "tgkill", (_is(0, own),)
    yield from ((name, ((0, "most", NEWEST_CLOCK, 0),)) for name in CLOCKS)
    yield "clone", (_masked(0, ALL_BITS ^ CLONE_DETACHED, THREAD),)
    yield "mmap", (_masked(3, ALL_BITS ^ MAP_FLAGS, MAP_PRIVATE),)
    yield from (("madvise", (_is(2, advice),)) for advice in ADVICE)
    for what in FUTEX_WAITS + FUTEX_WAKES:
        yield "futex", (_masked(1, ALL_BITS ^ FUTEX_REALTIME, what | FUTEX_PRIVATE),)
    yield from (("membarrier", (_is(0, command),)) for command in BARRIERS)
    yield from (("get_mempolicy", (_is(4, flags),)) for flags in POLICIES)
    yield from (("ioctl", (_is(1, request),)) for request in IOCTLS)
    yield from (("prctl", (_is(0, option),)) for option in PRCTLS)
    yield from (("fcntl", (_is(1, command),)) for command in FCNTLS)
    yield "fcntl", (_is(1, F_SETFL), _masked(2, ALL_BITS ^ STATUS_FLAGS, 0))


def _network(own: int) -> Iterator[Rule]:
    """TCP, and what libzmq needs besides: its threads ask for their own scheduler, and set it to what it is.

    They name themselves by numbers that nobody knows before they run; no hostile code runs in a party.
    """
    for family in (AF_INET, AF_INET6):
        yield "socket", (_is(0, family), _masked(1, SOCK_TYPE, SOCK_STREAM))
    yield "socket", (_is(0, AF_NETLINK), _is(2, NETLINK_ROUTE))  # names of interfaces: libzmq ends where it can't ask for them
    yield "socketpair", (_is(0, AF_UNIX),)
    yield "sched_getparam", ()
    yield "sched_getscheduler", ()
    yield "sched_setscheduler", (_is(1, os.sched_getscheduler(own)),)


def seccomp(paths: bool, more: Iterable[str] = (), network: bool = False) -> None:
    """Refuse every system call of this process but those listed here; raises OSError.

    ``paths``: whether some may name a file. ``more`` are allowed whole, and with ``network`` those of a party.
    """
    import pyseccomp as sc

    refuse = sc.SyscallFilter(sc.ERRNO(errno.EPERM))
    refuse.set_attr(sc.Attr.ACT_BADARCH, sc.KILL_PROCESS)
    with contextlib.suppress(OSError):  # before libseccomp 2.5 filters are lists: correct, a little slower
        refuse.set_attr(sc.Attr.CTL_OPTIMIZE, 2)  # a binary tree, for computations that call futex a million times
    own = os.getpid()
    whole = dict.fromkeys((*PLAIN, *more, *(PATHS if paths else ()), *(SOCKETS if network else ())))
    rules: list[Rule] = [*((name, ()) for name in whole), *by_argument(own), *(_network(own) if network else ())]
    rules += [(name, (_masked(place, O_PATH | CHANGES, os.O_RDONLY),)) for name, place in OPEN.items() if paths]
    for name, tests in rules:
        if sc.resolve_syscall(sc.system_arch(), name) >= 0:  # negative: not on this architecture
            refuse.add_rule(sc.ALLOW, name, *(_compared(sc, test) for test in tests))
    for name in ("clone3", "openat2"):  # their flags can't be read by a filter; libc falls back to clone and openat
        if sc.resolve_syscall(sc.system_arch(), name) >= 0:
            refuse.add_rule(sc.ERRNO(errno.ENOSYS), name)
    for what in FUTEX_WAITS:
        shared = _masked(1, ALL_BITS ^ FUTEX_REALTIME, what)
        refuse.add_rule(sc.ERRNO(errno.EAGAIN), "futex", _compared(sc, shared))
    # glibc asks for the processors of a thread by its number to describe the thread, and takes only this for no answer.
    refuse.add_rule(sc.ERRNO(errno.ENOSYS), "sched_getaffinity", sc.Arg(0, sc.GT, own))
    refuse.load()


def _compared(sc: Any, test: Test) -> Any:
    place, how, first, second = test
    if how == "masked":
        return sc.Arg(place, sc.MASKED_EQ, first, second)
    return sc.Arg(place, sc.LE if how == "most" else sc.EQ, first)
