"""Where things are kept, and who may read and write there: one folder a party, one process a folder, one user.

All that is written is made here: folders are 0700 and files 0600 under any umask, parents that had to be made included.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from syft_lab.errors import StateError

if TYPE_CHECKING:
    import filelock

BINARY = getattr(os, "O_BINARY", 0)  # Windows would change the ends of lines


def home() -> Path:
    """The folder of all state: ``SYFT_LAB_HOME``, or the platform's place for a user's data."""
    chosen = os.environ.get("SYFT_LAB_HOME")
    if chosen:
        return Path(chosen)
    import platformdirs  # here, for parties of secure computation keep nothing, and need it not

    return Path(platformdirs.user_data_dir("syft-lab", appauthor=False))


def owner_folder(name: str) -> Path:
    """State of the owner called ``name``."""
    return home() / "owners" / name


def connection_folder(alias: str) -> Path:
    """State of an analyst's connection."""
    return home() / "connections" / alias


def make_private(folder: Path) -> Path:
    """``folder``, made with its parents if need be, open to this user only.

    Where it is there, and others may enter it, or folders of ours around it, or write to the state folder, that is taken from
    them with a warning. Raises StateError for folders of another user.
    """
    for place in reversed((folder, *folder.parents)):
        if not place.exists():
            place.mkdir(mode=0o700, exist_ok=True)
            place.chmod(0o700)  # the umask may have taken more away
        elif place == folder or home() in place.parents:
            _close(place, 0o077)
        elif place == home():  # the user may have chosen one that others read
            _close(place, 0o022)
    return folder


def _close(folder: Path, doors: int) -> None:
    """Take from others what they may do in ``folder``, as far as ``doors`` (bits of its mode) goes."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if os.name != "posix" or not mode & doors:
        return
    try:
        folder.chmod(mode & ~doors)
    except PermissionError:
        raise StateError(f"others have access to {folder}, which is another user's folder: choose one of your own") from None
    warnings.warn(f"others had access to {folder}, which holds what is private; it is closed to them now", stacklevel=4)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[io.BufferedRandom]:
    """A new file for this user only, which takes the place of ``path`` when it is whole and on the disk; or not at all.

    It can be read back. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.partial")
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:  # the disk is full, say: what was begun must not keep it so
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def given(path: Path) -> Iterator[BinaryIO]:
    """A file where the user wants it, for this user only; what was there is written over. Raises OSError."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | BINARY, 0o600), "wb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # no pipe, and no terminal
            path.chmod(0o600)
            file.truncate()
        yield file


def lock(folder: Path, what: str) -> filelock.BaseFileLock:
    """Hold ``folder`` until `release`; the system frees it when the process dies. Raises StateError if it is held."""
    import filelock  # here for the same reason

    held = filelock.FileLock(folder / "lock", thread_local=False, mode=0o600)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise StateError(f"{what} runs already, in another kernel or process; stop it there first") from None
    return held
