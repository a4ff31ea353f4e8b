"""What lies beside the journal: results that wait for a decision, and notes for the owner's eyes. A folder a request (0600)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syft_lab import state

SALT = 32


class Shelf:
    """Files of requests, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        state.make_private(folder)

    def keep(self, request: str, salt: bytes, blob: bytes) -> None:
        """Keep the result of a run, with the salt of its commitment."""
        self._write(request, "result.bin", salt + blob)

    def kept(self, request: str) -> tuple[bytes, bytes] | None:
        """The salt and the result."""
        path = self._folder / request / "result.bin"
        if not path.is_file():
            return None
        content = path.read_bytes()
        return content[:SALT], content[SALT:]

    def give(self, request: str, blob: bytes) -> None:
        """Keep a value that exists already when it is asked for; empty where it could not be computed."""
        self._write(request, "value.bin", blob)

    def given(self, request: str) -> bytes | None:
        """What `give` kept; None for a request to run code."""
        path = self._folder / request / "value.bin"
        return path.read_bytes() if path.is_file() else None

    def note(self, request: str, name: str, content: Mapping[str, Any]) -> None:
        """Keep a note."""
        self._write(request, f"{name}.json", json.dumps(content).encode())

    def noted(self, request: str, name: str) -> dict[str, Any] | None:
        """What was kept by `note`."""
        path = self._folder / request / f"{name}.json"
        try:
            return dict(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None

    def has(self, request: str, name: str) -> bool:
        """Whether there is such a note."""
        return os.path.exists(f"{self._folder}/{request}/{name}.json")

    def empty(self, request: str) -> None:
        """Delete what holds values, a part of a file that was being written too; notes stay."""
        for path in (self._folder / request).glob("*"):
            if path.suffix != ".json":
                path.unlink(missing_ok=True)

    def requests(self) -> list[str]:
        """The requests of which something is kept."""
        return [place.name for place in self._folder.iterdir()]

    def forget(self, request: str) -> None:
        """Delete all of it."""
        shutil.rmtree(self._folder / request, ignore_errors=True)

    def _write(self, request: str, name: str, content: bytes) -> None:
        with state.writing(state.make_private(self._folder / request) / name) as out:
            out.write(content)
