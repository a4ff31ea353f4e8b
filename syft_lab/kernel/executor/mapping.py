"""Memory that no two jobs share: files mapped without a descriptor, and what the fork server shares made private.

Python's `mmap` keeps a descriptor of the file for as long as it is mapped, which code in the process could find. Linux only.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

MAP_FIXED = 0x10


def _system() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _map(libc: Any, place: int, size: int, protection: int, flags: int, fd: int) -> int:
    found = libc.mmap(place or None, size, protection, flags, fd, 0)
    if found in (None, ctypes.c_void_p(-1).value):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "mmap")
    return int(found)


def private(fd: int, size: int) -> memoryview:
    """The first ``size`` bytes of a file, changeable for this process alone; raises OSError.

    ``fd`` may be closed at once: no descriptor is kept. The memory is given back when nothing uses it any more.
    """
    libc = _system()
    place = _map(libc, 0, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd)
    kind: Any = type("Whole", (ctypes.c_ubyte * size,), {})  # a class of ours, whose end can be waited for
    whole = kind.from_address(place)
    weakref.finalize(whole, libc.munmap, place, size).atexit = False  # what ends may still hold arrays of it
    return memoryview(whole).cast("B")


def unshare() -> int:
    """Make private whatever memory this process shares, as it is now; gives how many bytes that were.

    Forks of this process could pass values to each other through such memory; libraries make it for their own use. Raises
    OSError where that is impossible.
    """
    libc = _system()
    ranges = list(shared())
    for place, size in ranges:
        content = ctypes.string_at(place, size)
        _map(libc, place, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_FIXED, -1)
        ctypes.memmove(place, content, size)
    return sum(size for _, size in ranges)


def shared(lines: Iterable[str] | None = None) -> Iterator[tuple[int, int]]:
    """Start and size of the memory of this process that others may see it write; ``lines`` are those of /proc/self/smaps.

    Raises OSError for such memory that can't be read.
    """
    place, size, perms = 0, 0, ""
    for line in _smaps() if lines is None else lines:
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            low, _, high = first.partition("-")
            place, size, perms = int(low, 16), int(high, 16) - int(low, 16), rest[:4]
        elif first == "VmFlags:" and {"sh", "mw"} <= set(rest.split()):  # shared, and may be written or made writable
            if "r" not in perms:
                raise OSError(errno.EACCES, "shared memory that can't be read can't be made private")
            yield place, size


def _smaps() -> list[str]:
    """What this process has mapped; where the system does not say what may be made writable, all that is shared may."""
    try:
        with open("/proc/self/smaps") as maps:
            return list(maps)
    except FileNotFoundError:
        with open("/proc/self/maps") as maps:
            return [line for each in maps for line in (each, f"VmFlags: {'sh mw' if each.split()[1][3] == 's' else ''}")]
