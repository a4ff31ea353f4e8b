"""Attempts that reach past a job by the arguments of allowed calls, or by calls that take a number: other processes, files that
others have open, settings, and things that would outlive the job. Each is true where the call gets through to the system.

A call that a filter refuses fails with EPERM, or ENOSYS; one that gets through succeeds, or fails for another reason.
"""

from __future__ import annotations

import pyseccomp

BEGIN = """
import ctypes, os, signal, struct
l = ctypes.CDLL(None, use_errno=True)
def big(a): return ctypes.c_long(a) if type(a) is int else a
def through(r): return r >= 0 or ctypes.get_errno() not in (1, 38)
def call(n, *a): ctypes.set_errno(0); return through(l.syscall(big(n), *map(big, a)))
def fcntl(*a): ctypes.set_errno(0); return through(l.fcntl(*map(big, a)))
b = ctypes.create_string_buffer(4096)
r, w = os.pipe()
"""
ABOVE = 1 << 32  # a bit that Linux does not read in an argument of 32 bits
ENDED = "ctypes.get_errno() == 110"  # it waited until its time was over


def attempts(owner: int, thread: int) -> dict[str, str]:
    """Expressions by what they try on the process ``owner``, which has the ``thread``; true where it gets through."""
    return {
        # fcntl and ioctl: signals to others, and marks on files that others have open
        "signals of a file go to another (F_SETOWN)": f"fcntl(r, 8, {owner})",
        "signals of a file go to another (F_SETOWN_EX)": f"fcntl(r, 15, struct.pack('ii', 1, {owner}))",
        "choose the signal (F_SETSIG)": "fcntl(r, 10, 9)",
        "let a file send signals (O_ASYNC)": "fcntl(r, 4, 0x2000)",
        "let a file send signals, with a higher bit": f"fcntl(r, 4, 0x2000 | {ABOVE})",
        "another command with a higher bit (F_SETOWN)": f"call({n('fcntl')}, r, {8 | ABOVE}, {owner})",
        "let a file send signals (FIOASYNC)": f"call({n('ioctl')}, r, 0x5452, b)",
        "signals of a socket go to another (SIOCSPGRP)": f"call({n('ioctl')}, r, 0x8902, b)",
        "type into a terminal (TIOCSTI)": f"call({n('ioctl')}, r, 0x5412, b)",
        "ask whom a file signals (F_GETOWN)": "fcntl(r, 9, 0)",
        "ask which signal (F_GETSIG)": "fcntl(r, 11, 0)",
        "lease a file": "fcntl(r, 1024, 0)",
        "ask for a lease": "fcntl(r, 1025, 0)",
        "watch a folder (F_NOTIFY)": "fcntl(r, 1026, 1)",
        "lock a file (F_SETLK)": "fcntl(r, 6, b)",
        "lock an open file (F_OFD_SETLK)": "fcntl(r, 37, b)",
        "ask who holds a lock (F_GETLK)": "fcntl(r, 5, b)",
        "lock a whole file (flock)": f"call({n('flock')}, r, 1)",
        "grow a pipe": "fcntl(r, 1031, 1 << 20)",
        "leave a hint at a file": "fcntl(r, 1036, b)",
        "seal a file": "fcntl(w, 1033, 1)",
        "advise on a file": f"call({n('fadvise64')}, r, 0, 0, 4)",
        # calls that take the number of a process or thread
        "ask for another's group": f"call({n('getpgid')}, {owner})",
        "ask for another's group, with a higher bit": f"call({n('getpgid')}, {owner | ABOVE})",
        "ask for another's session": f"call({n('getsid')}, {owner})",
        "find processes by their number": f"any(call({n('getsid')}, p) for p in range({owner - 3}, {owner + 1}))",
        "move another to a group": f"call({n('setpgid')}, {owner}, 0)",
        "ask for another's priority": f"call({n('getpriority')}, 0, {owner})",
        "ask for the priority of a user": f"call({n('getpriority')}, 2, 0)",
        "ask for another's scheduler": f"call({n('sched_getscheduler')}, {owner})",
        "set another's scheduler": f"call({n('sched_setscheduler')}, {owner}, 0, bytes(8))",
        "ask for another's parameters": f"call({n('sched_getparam')}, {owner}, b)",
        "set another's parameters": f"call({n('sched_setparam')}, {owner}, bytes(8))",
        "ask for another's scheduling": f"call({n('sched_getattr')}, {owner}, b, 48, 0)",
        "set another's scheduling": f"call({n('sched_setattr')}, {owner}, struct.pack('IIQiI', 48, 0, 0, 19, 0) + bytes(24), 0)",
        "ask for another's time slice": f"call({n('sched_rr_get_interval')}, {owner}, b)",
        "ask for another's processors": f"call({n('sched_getaffinity')}, {owner}, 128, b)",
        "pin another to a processor": f"call({n('sched_setaffinity')}, {owner}, 8, struct.pack('Q', 1))",
        "pin another's thread": f"call({n('sched_setaffinity')}, {thread}, 8, struct.pack('Q', 1))",
        "ask for another's priority on disks": f"call({n('ioprio_get')}, 1, {owner})",
        "set another's priority on disks": f"call({n('ioprio_set')}, 1, {owner}, 0x6000)",
        "read another's robust list": f"call({n('get_robust_list')}, {owner}, b, ctypes.addressof(b) + 8)",
        "read another's CPU time": f"call({n('clock_gettime')}, {~owner << 3 | 2}, b)",
        "read another's CPU time, in 32 bits": f"call({n('clock_gettime')}, {(~owner << 3 | 2) & 0xFFFFFFFF}, b)",
        "find another by its clock": f"call({n('clock_getres')}, {~owner << 3 | 2}, b)",
        "sleep by another's CPU time": f"call({n('clock_nanosleep')}, {~owner << 3 | 2}, 0, bytes(16), 0)",
        "find another by a lock (FUTEX_LOCK_PI)": f"call({n('futex')}, struct.pack('I', {owner}) + bytes(4), 6, 0, bytes(16))",
        "find another by a lock (FUTEX_TRYLOCK_PI)": f"call({n('futex')}, struct.pack('I', {owner}) + bytes(4), 8, 0, 0)",
        "signal another's thread (tkill)": f"call({n('tkill')}, {thread}, 0)",
        "signal another's thread (tgkill)": f"call({n('tgkill')}, {owner}, {thread}, 0)",
        "queue a signal to another": f"call({n('rt_sigqueueinfo')}, {owner}, 18, struct.pack('iii', 18, 0, -1) + bytes(116))",
        "queue a signal to another's thread": f"call({n('rt_tgsigqueueinfo')}, {owner}, {thread}, 18, "
        "struct.pack('iii', 18, 0, -1) + bytes(116))",
        "signal by a pidfd": f"call({n('pidfd_send_signal')}, r, 0, 0, 0)",
        "take another's file": f"call({n('pidfd_getfd')}, r, 0, 0)",
        "advise on another's memory": f"call({n('process_madvise')}, r, b, 1, 20, 0)",
        "free another's memory": f"call({n('process_mrelease')}, r, 0)",
        "write another's memory": f"call({n('process_vm_writev')}, {owner}, b, 0, b, 0, 0)",
        "move another's pages": f"call({n('move_pages')}, {owner}, 0, 0, 0, 0, 0)",
        "move another to a node": f"call({n('migrate_pages')}, {owner}, 64, bytes(8), bytes(8))",
        "compare another with itself": f"call({n('kcmp')}, {owner}, {owner}, 1, 0, 0)",
        "ask for another's capabilities": f"call({n('capget')}, struct.pack('Ii', 0x20080522, {owner}), b)",
        "wait for another": f"call({n('waitid')}, 1, {owner}, 0, 4, 0)",
        "a timer that signals a thread": f"call({n('timer_create')}, 1, struct.pack('QiiI', 0, 10, 4, {thread}) + bytes(44), b)",
        # how processes are listed by their files
        "list /proc": "os.listdir('/proc')",
        "read its own status in /proc": "open('/proc/self/status').read()",
        "read the load, and the last process": "open('/proc/loadavg').read()",
        STAT: f"os.stat('/proc/{owner}')",
        "point at a process's folder in /proc": f"os.open('/proc/{owner}', os.O_PATH)",
        "point at a folder by openat2": f"call({n('openat2')}, -100, b'/', struct.pack('QQQ', os.O_PATH, 0, 0), 24)",
        "read where a link points": "os.readlink('/proc/self')",
        # settings of its own that walls rest on, and things that would outlive it
        "outlive the fork server": f"call({n('prctl')}, 1, 0, 0, 0, 0)",
        "let others read its memory": f"call({n('prctl')}, 4, 1, 0, 0, 0)",
        "adopt orphans": f"call({n('prctl')}, 36, 1, 0, 0, 0)",
        "name who may trace it": f"call({n('prctl')}, 0x59616D61, {owner}, 0, 0, 0)",
        "change its timer slack": f"call({n('prctl')}, 29, 1, 0, 0, 0)",
        "merge its memory with others' (prctl)": f"call({n('prctl')}, 67, 0, 1, 1, 1)",
        "merge its memory with others'": f"call({n('madvise')}, 0, 0, 12)",
        "merge its memory with others', with a higher bit": f"call({n('madvise')}, 0, 0, {12 | ABOVE})",
        "take pages of the machine's pool": f"call({n('mmap')}, 0, 1 << 21, 3, 0x40022, -1, 0)",
        "take memory that counts as a stack (MAP_GROWSDOWN)": f"call({n('mmap')}, 0, 4096, 3, 0x122, -1, 0)",
        "take memory that counts as a stack, with a higher bit": f"call({n('mmap')}, 0, 4096, 3, {0x122 | ABOVE}, -1, 0)",
        "take memory that stays (MAP_LOCKED)": f"call({n('mmap')}, 0, 4096, 3, 0x2022, -1, 0)",
        "map a file's pages in another order": f"call({n('remap_file_pages')}, 0, 4096, 0, 0, 0)",
        # futexes on pages that others have mapped
        "wait where others wake (FUTEX_WAIT)": f"call({n('futex')}, bytes(8), 0, 0, struct.pack('qq', 0, 1)) and {ENDED}",
        "wait where others wake (FUTEX_WAIT_BITSET)": f"call({n('futex')}, bytes(8), 9, 0, struct.pack('qq', 0, 1), 0, 1) and {ENDED}",
        "wait where others wake, by the other clock": f"call({n('futex')}, bytes(8), 0x109, 0, struct.pack('qq', 0, 1), 0, 1) and {ENDED}",
        "wait where others wake (futex_waitv)": f"call({n('futex_waitv')}, bytes(24), 1, 0, 0, 0)",
        "wake others (FUTEX_WAKE)": f"call({n('futex')}, bytes(8), 1, 1)",
        "wake others, with a higher bit": f"call({n('futex')}, bytes(8), {1 | ABOVE}, 1)",
        "wake others (FUTEX_WAKE_BITSET)": f"call({n('futex')}, bytes(8), 10, 1, 0, 0, 1)",
        "wake others (FUTEX_WAKE_OP)": f"call({n('futex')}, bytes(8), 5, 1, 1, b, 0)",
        "move others to wait elsewhere (FUTEX_REQUEUE)": f"call({n('futex')}, bytes(8), 3, 1, 1, b)",
        "move others to wait elsewhere (FUTEX_CMP_REQUEUE)": f"call({n('futex')}, bytes(8), 4, 1, 1, b, 0)",
        # what Linux counts, or does, for all processes of a user or of the machine
        "queue a signal, which its user's other processes then can't":
            "signal.pthread_sigmask(0, [40]) is not None and "
            f"call({n('tgkill')}, os.getpid(), os.getpid(), 40) and ctypes.get_errno() != 11",
        "interrupt others' processors (membarrier)": f"call({n('membarrier')}, 2, 0, 0)",
        "wait for all processors (membarrier)": f"call({n('membarrier')}, 1, 0, 0)",
        "ask which node has a page of a file": f"call({n('get_mempolicy')}, bytes(8), 0, 0, b, 3)",
        "read only what is in memory (preadv2)": f"call({n('preadv2')}, r, 0, 0, 0, 0, 8)",
        "read ahead": f"call({n('readahead')}, r, 0, 0)",
        "set a file's times": f"call({n('utimensat')}, r, 0, 0, 0)",
        "empty a file that is opened to be read": f"call({n('openat')}, -100, b'/dev/null', 0o1000)",
        "open a file to write": f"call({n('openat')}, -100, b'/dev/null', 1)",
        "see which pages of a file are in memory": f"call({n('mincore')}, 0, 0, b)",
        "make a process (clone)": f"l.syscall(big({n('clone')}), big(17), big(0), big(0), big(0), big(0)) == 0 and os._exit(0) or "
        "through(-1 if ctypes.get_errno() else 0)",
        "make a thread that shares no folder": f"call({n('clone')}, 0x10D00, 0, 0, 0, 0)",
        "change its personality": f"call({n('personality')}, 0xFFFFFFFF)",
        "change its mask for files": f"call({n('umask')}, 0)",
        "be nicer": f"call({n('setpriority')}, 0, 0, 6)",
        "bound itself": f"call({n('setrlimit')}, 7, struct.pack('QQ', 9, 9))",
        "bound itself (prlimit)": f"call({n('prlimit64')}, 0, 7, struct.pack('QQ', 9, 9), 0)",
        "make semaphores that stay": f"call({n('semget')}, 0, 1, 0o600)",
        "make a queue that stays": f"call({n('msgget')}, 0, 0o600)",
        "open a POSIX queue": f"call({n('mq_open')}, b'no', 0, 0, 0)",
        "be told of a queue": f"call({n('mq_notify')}, -1, 0)",
        "leave a key": f"call({n('add_key')}, b'user', b'x', b'y', 1, -2)",
        "find a key": f"call({n('request_key')}, b'user', b'x', 0, 0)",
        "join another's namespaces": f"call({n('setns')}, r, 0)",
        "make secret memory": f"call({n('memfd_secret')}, -1)",
        "ask the disk by itself": f"call({n('io_setup')}, 1, bytes(8))",
        "watch files": f"call({n('inotify_init1')}, 0)",
        "take signals as a file": f"call({n('signalfd4')}, -1, bytes(8), 8, 0)",
        "take timers as files": f"call({n('timerfd_create')}, 0, 0)",
        "put up walls of its own": f"call({n('landlock_create_ruleset')}, 0, 0, 1)",
        "filter its own calls": f"call({n('seccomp')}, 2, 0, struct.pack('I', 0x7FFF0000))",
    }  # fmt: skip


def program(owner: int, thread: int, apart: bool) -> str:
    """Code that makes all attempts, and prints those that get through as JSON; ``apart``: each in a process of its own.

    Without walls one would change what the next one meets; behind walls none changes anything.
    """
    return f"""{BEGIN}
import json
def through_alone(test):
    pid = os.fork()
    if pid == 0: os._exit(0 if gets_through(test) else 1)
    return os.waitpid(pid, 0)[1] == 0
def gets_through(test):
    try: return bool(eval(test))
    except Exception: return False
tests = {attempts(owner, thread)!r}
print(json.dumps([what for what, test in tests.items() if {"through_alone" if apart else "gets_through"}(test)]))
"""


STAT = "find a process by its folder in /proc"


def n(name: str) -> str:
    """The number of a system call here."""
    number = pyseccomp.resolve_syscall(pyseccomp.system_arch(), name)
    if number < 0:
        raise LookupError(f"there is no system call {name} here")
    return str(number)
