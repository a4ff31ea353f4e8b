"""Where things are kept, and who may write there: one folder a party, one process a folder."""

from __future__ import annotations

import os
from pathlib import Path

import filelock
import platformdirs

from syft_lab.errors import StateError


def home() -> Path:
    """The folder of all state: ``SYFT_LAB_HOME``, or the platform's place for a user's data."""
    return Path(os.environ.get("SYFT_LAB_HOME") or platformdirs.user_data_dir("syft-lab", appauthor=False))


def owner_folder(name: str) -> Path:
    """State of the owner called ``name``."""
    return home() / "owners" / name


def connection_folder(alias: str) -> Path:
    """State of an analyst's connection."""
    return home() / "connections" / alias


def make_private(folder: Path) -> Path:
    """``folder``, made if need be, open to this user only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def lock(folder: Path, what: str) -> filelock.BaseFileLock:
    """Hold ``folder`` until `release`; the system frees it when the process dies. Raises StateError if it is held."""
    held = filelock.FileLock(folder / "lock", thread_local=False)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise StateError(f"{what} runs already, in another kernel or process; stop it there first") from None
    return held
