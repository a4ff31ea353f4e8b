"""Which walls this machine can put up: tried, not assumed.

    L3  bubblewrap (its own namespaces: no network, no other process) around L2
    L2  Landlock and seccomp: the job reads the standard library and installed packages, and nothing else. Landlock does
        not hide that a file exists, nor its size and times, from code that guesses its name
    L1  seccomp without any system call that takes a path (kernels without Landlock)
    L0  none (no Linux, or a container that forbids them): approved code is refused

`probe` starts a process at each level, from the strongest down, which puts the walls up and tries to climb them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from syft_lab.kernel.executor import origin
from syft_lab.printable import printed

NAMES = ("L3", "L2", "L1", "L0")
MEANING = {
    "L3": "bubblewrap around Landlock and seccomp",
    "L2": "Landlock and seccomp",
    "L1": "seccomp without paths; cells can import only what is preloaded",
    "L0": "none: approved code is refused",
}
SECONDS = 20.0
GPU = "this machine's GPU is not given to approved code: its driver's calls would widen the surface"


@dataclass(frozen=True)
class Level:
    """What was found to hold. ``why`` says why it is no better."""

    name: str
    why: str = ""

    @property
    def prefix(self) -> list[str]:
        """The command that goes before Python's."""
        return _bubblewrap() if self.name == "L3" else []

    @property
    def label(self) -> str:
        """What analysts and receipts are told: nothing about the machine."""
        return f"{self.name}, {MEANING[self.name]}"

    @printed
    def __str__(self) -> str:
        notes = [*([self.why] if self.why else []), *([GPU] if self.name != "L0" and has_gpu() else [])]
        return self.label + (f" ({'; '.join(notes)})" if notes else "")


def has_gpu() -> bool:
    """Whether this machine has a GPU that CUDA or ROCm would use; cells run on the CPU all the same."""
    return os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")


def probe(strongest: str | None = None) -> Level:
    """The strongest level that holds here, but not above ``strongest`` (or SYFT_LAB_ISOLATION)."""
    return _probe(strongest or os.environ.get("SYFT_LAB_ISOLATION") or NAMES[0])


@cache
def _probe(wanted: str) -> Level:
    names = NAMES[NAMES.index(wanted) :] if wanted in NAMES else ("L0",)
    if not sys.platform.startswith("linux"):
        return Level("L0", f"{sys.platform} has no such walls; run the owner in a Linux container")
    why = ""
    for name in names[:-1]:
        fault = _missing(name) or _try(Level(name))
        if not fault:
            return Level(name, why)
        why = why or fault
    return Level("L0", why or "asked for")


def _missing(name: str) -> str:
    if name == "L3" and shutil.which("bwrap") is None:
        return "for L3, install bubblewrap"
    return ""


def _try(level: Level) -> str:
    """Why the level does not hold; empty if it does."""
    command = [*level.prefix, *origin.command("syft_lab.kernel.executor.levels", level.name)]
    try:
        done = subprocess.run(command, env=environment(), capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{level.name} can't be tried: {type(error).__name__}"
    if done.returncode == 0:
        return ""
    said = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines()
    return f"{level.name} does not hold here: {said[-1][:200] if said else f'exit code {done.returncode}'}"


def environment() -> dict[str, str]:
    """The clean environment of what runs code: no secret of the owner's, one thread until a job asks for more.

    The tunable has malloc ask for huge pages: a fork copies page tables, and then takes 5 ms in place of 10.
    """
    return {
        "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "TZ": os.environ.get("TZ", ""),
        "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "agg",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "TORCHINDUCTOR_CACHE_DIR": "/nonexistent", "PYTORCH_KERNEL_CACHE_PATH": "/nonexistent",
    }  # fmt: skip


def _bubblewrap() -> list[str]:
    """Own namespaces, and of the file system only what Python needs, read-only."""
    paths = {sys.prefix, sys.base_prefix, os.path.realpath(sys.executable), str(origin.package()), *origin.packages()}
    paths |= {sysconfig.get_paths()[k] for k in ("stdlib", "platstdlib", "purelib", "platlib")}
    outside = sorted(p for p in {os.path.realpath(p) for p in paths} | {os.path.abspath(p) for p in paths} if _outside(p))
    binds = [part for p in outside for part in ("--ro-bind", p, p)]
    links = [
        part for d in ("lib", "lib64", "bin", "sbin") if os.path.islink(f"/{d}") for part in ("--symlink", f"usr/{d}", f"/{d}")
    ]
    folders = [part for d in ("lib", "lib64", "bin", "sbin") if os.path.isdir(f"/{d}") and not os.path.islink(f"/{d}")
               for part in ("--ro-bind", f"/{d}", f"/{d}")]  # fmt: skip
    return ["bwrap", "--unshare-all", "--new-session", "--cap-drop", "ALL", "--ro-bind", "/usr", "/usr",
            *links, *folders, "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--ro-bind-try", "/etc/localtime",
            "/etc/localtime", "--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/sys/devices/system/cpu",
            "/sys/devices/system/cpu", *binds, "--"]  # fmt: skip


def _outside(path: str) -> bool:
    return os.path.exists(path) and not path.startswith("/usr/")


def _climb(name: str) -> list[str]:
    """Put up the walls of ``name`` in this process, and give what still works that should not."""
    import fcntl
    import socket

    import pyseccomp  # noqa: F401 - needs files to find its library

    from syft_lab.kernel.executor import guard

    guard.detach(os.getppid())
    guard.enter(name, 10, 1 << 30, 0, [p for p in guard.readable_paths() if os.path.exists(p)])
    attempts: dict[str, Callable[[], object]] = {
        "open a file": lambda: open("/etc/hostname"),  # noqa: SIM115
        "list a folder": lambda: os.listdir("/"),
        "make a socket": socket.socket,
        "fork": os.fork,
        "signal another process": lambda: os.kill(os.getppid(), 0),
        "make a memory file": lambda: os.memfd_create("x"),
        "have a file signal another process": lambda: fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid()),
        "ask about another process": lambda: os.getsid(os.getppid()),
        "move another process": lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0)),
    }
    works = []
    for what, attempt in attempts.items():
        try:
            attempt()
        except OSError:
            continue
        works.append(what)
    return works


if __name__ == "__main__":
    try:
        found = _climb(sys.argv[1])
    except (OSError, ImportError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}")
        sys.exit(1)
    print(json.dumps(found) if found else "holds")
    sys.exit(1 if found else 0)
