"""A job that tries to leave marks for the next, by every way that Linux and Python have, and one that looks for them."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import numpy as np
import polars as pl

from syft_lab.kernel.executor.data import pack_table
from syft_lab.kernel.executor.supervisor import Executor, Job, Limits

# Marks that are of files and keys carry the number of the process that runs the tests, so that runs don't meet.
KEY, PATH = 0x5F7 << 20 | os.getpid() & 0xFFFFF, f"syft-mark-{os.getpid()}"

# What a job can see of its surroundings. Descriptors are listed with their position and flags; not those limits (CPU, data,
# addresses) that are its own, or count from the size of the fork server.
LOOK = f"""
import builtins, ctypes, json, os, resource, signal, sys, threading
l = ctypes.CDLL(None, use_errno=True)
def said(f, *a):
    try: return str(f(*a))
    except OSError: return "refused"
def name():
    b = ctypes.create_string_buffer(16); l.prctl(16, b, 0, 0, 0); return b.value.decode()
def files():
    found = []
    for fd in range(256):
        try: os.get_inheritable(fd)
        except OSError: continue
        found.append([fd, said(os.lseek, fd, 0, 1), l.fcntl(fd, 3), l.fcntl(fd, 9), l.fcntl(fd, 11), l.fcntl(fd, 1025)])
    return found
def look():
    return {{
        "files": files(), "name": name(), "affinity": said(os.sched_getaffinity, 0), "scheduler": said(os.sched_getscheduler, 0),
        "priority": said(os.getpriority, 0, 0), "slack": l.prctl(30, 0, 0, 0, 0), "folder": said(os.getcwd),
        "limits": [said(resource.getrlimit, i) for i in range(16) if i not in (0, 2, 9)], "mask": sorted(signal.pthread_sigmask(0, [])),
        "pending": sorted(signal.sigpending()), "handlers": [str(signal.getsignal(s)) for s in signal.valid_signals()],
        "timer": signal.getitimer(0), "environment": dict(os.environ), "threads": threading.active_count(),
        "modules": "mark" in sys.modules, "builtins": hasattr(builtins, "mark"), "recursion": sys.getrecursionlimit(),
        "rows": [float(patients["age"].sum()), float(patients["age"][0])],
        "file": [said(os.stat, f"{{d}}/{PATH}") != "refused" and os.path.exists(f"{{d}}/{PATH}") for d in ("/tmp", "/dev/shm", ".")],
        "memory": l.shmget({KEY}, 0, 0) >= 0, "semaphores": l.semget({KEY}, 0, 0) >= 0, "messages": l.msgget({KEY}, 0) >= 0,
        "queue": l.mq_open(b"/{PATH}", 0) >= 0, "key": l.syscall(249, b"user", b"{PATH}", None, -4) >= 0,
    }}
"""
MARK = f"""
def leave(f, *a):
    try: f(*a)
    except (OSError, ValueError, OverflowError, RuntimeError): pass
def write(path): open(path, "w").close()
def mark():
    for fd in range(256):
        for offset in (123456789, 4096): leave(os.lseek, fd, offset, 0)
        for command, value in ((4, 0o6000), (8, os.getpid()), (10, 9), (1024, 0), (6, ctypes.create_string_buffer(64)), (1036, b"x" * 8)):
            l.fcntl(fd, command, value)
    l.prctl(15, b"mark", 0, 0, 0); l.prctl(29, 12345, 0, 0, 0)
    leave(os.sched_setaffinity, 0, [max(os.sched_getaffinity(0))]); leave(os.sched_setscheduler, 0, 3, os.sched_param(0))
    leave(os.setpriority, 0, 0, 12); leave(os.nice, 3); leave(os.umask, 0o7); leave(os.chdir, "/tmp"); leave(os.setsid)
    for i in range(16): leave(resource.setrlimit, i, (7, 7))
    for s in (signal.SIGUSR1, signal.SIGTERM, signal.SIGCHLD): leave(signal.signal, s, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2, signal.SIGHUP]); leave(signal.raise_signal, signal.SIGUSR2)
    signal.setitimer(signal.ITIMER_REAL, 900)
    os.environ["MARK"] = "1"; sys.modules["mark"] = os; builtins.mark = 1; sys.setrecursionlimit(1234)
    patients.loc[0, "age"] = -1.0
    for d in ("/tmp", "/dev/shm", "."): leave(write, f"{{d}}/{PATH}")
    l.shmget({KEY}, 4096, 0o1666); l.semget({KEY}, 1, 0o1666); l.msgget({KEY}, 0o1666)
    l.mq_open(b"/{PATH}", 0o102, 0o666, None); l.syscall(248, b"user", b"{PATH}", b"x", 1, -4)
    leave(threading.Thread(target=threading.Event().wait, daemon=True).start)
"""


def compare(executor: Executor) -> dict[str, Any]:
    """What a job sees otherwise after another left marks; what the one that leaves them sees of them; and how it ended."""
    data = pack_table({"age": pl.Series("age", np.arange(50_000.0))})
    try:
        before = _see(executor, data, f"{LOOK}\nprint(json.dumps(look()))")
        marked = _see(executor, data, f"{LOOK}\n{MARK}\nmark()\nprint(json.dumps(look()))")
        after = _see(executor, data, f"{LOOK}\nprint(json.dumps(look()))")
    finally:
        data.close()
    return {
        "left": {k: [before[k], after[k]] for k in before if before[k] != after.get(k)},
        "tried": sorted(k for k in before if before[k] != marked.get(k)),
        "seen": before,
    }


def _see(executor: Executor, data: Any, code: str) -> dict[str, Any]:
    outcome = executor.run(f"look-{time.monotonic_ns()}", Job(code, {"patients": data}, [], {}, 1, Limits(wall=20, cpu=10)))
    if outcome.why:
        raise AssertionError(f"{outcome.why}\n{outcome.log}")
    return dict(json.loads(outcome.log))
