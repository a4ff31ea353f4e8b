"""What this machine has: memory that one may count on, and files that can still be opened."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from syft_lab.errors import BusyError

SPARE_FILES = 16
_GROUPS = Path("/sys/fs/cgroup")


def memory() -> int:
    """Bytes of memory that this process may have: the machine's, or what its control groups leave of it."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in _group_limits():
        with contextlib.suppress(OSError, ValueError):  # "max", or no such group
            found = min(found, int(limit.read_text()))
    return found


def _group_limits() -> list[Path]:
    """Where the limits of this process's groups are written, of both versions of control groups, also of groups above."""
    try:
        said = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in said:
        _, kinds, path = line.split(":", 2)
        root, name = (_GROUPS / "memory", "memory.limit_in_bytes") if "memory" in kinds.split(",") else (_GROUPS, "memory.max")
        if not kinds or "memory" in kinds.split(","):
            place = root / path.strip("/")
            found += [folder / name for folder in (place, *place.parents) if folder == root or root in folder.parents]
    return found


def check_files() -> None:
    """Raise BusyError where so few files can be opened that work would fail in its middle. Before anything is paid for."""
    opened: list[int] = []
    try:
        for _ in range(SPARE_FILES):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        raise BusyError("the owner's kernel can open no more files just now; nothing was spent. Ask again in a while") from None
    finally:
        for descriptor in opened:
            os.close(descriptor)
