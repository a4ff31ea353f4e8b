"""What labels rest on is tried once a kind of operation, before anything leaves because of them; see `trial` for how.

A session's runner says which claims a value rests on; the owner's kernel has those that are new tried in a process that never
held private data, and tells the runner. Verdicts are kept for as long as the kernel runs, so they are of one version of torch
and one processor. A claim that falls, ends the process that tries it, or can't be tried at all keeps the value where it is.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from syft_lab.errors import FailedError, LabError, PrivateValueError, StalePointerError, from_code
from syft_lab.kernel.executor import origin, pipe, plans
from syft_lab.kernel.executor.data import Data
from syft_lab.kernel.executor.plans import Frames, Host

TRY_SECONDS, BOOT_SECONDS = 600.0, 120.0
MAX_VERDICTS = 100_000


class Wall:
    """Verdicts on claims. ``start`` makes a place to try them, kept until `close`, or if it is ``shared`` to the end."""

    def __init__(self, start: Callable[[], Host], shared: bool = False) -> None:
        self._start = start
        if shared:
            atexit.register(self._end)
        self._shared = shared
        self._host: Host | None = None
        self._lock = threading.Lock()
        self._verdicts: dict[bytes, str] = {}

    def prove(self, claims: Sequence[bytes]) -> None:
        """Raise PrivateValueError if a claim does not hold; those that were not tried yet are tried now."""
        for claim in claims:
            why = self._verdict(claim)
            if why:
                raise PrivateValueError(
                    f"this value stays at its owner, and nothing was spent: what its label rests on did not stand a trial on "
                    f"made-up values: {why}. That is a fault of Syft Lab, not of your data or plan; please report it"
                )

    def close(self) -> None:
        """End the process that tries, unless others share it; idempotent."""
        if not self._shared:
            with self._lock:
                self._end()

    def _end(self) -> None:
        if self._host is not None:
            self._host.close()
            self._host = None

    def _verdict(self, claim: bytes) -> str:
        name = hashlib.sha256(claim).digest()
        if name not in self._verdicts:
            with self._lock:
                if name not in self._verdicts:  # nobody tried it meanwhile
                    if len(self._verdicts) >= MAX_VERDICTS:
                        self._verdicts.clear()
                    why, lasts = self._tried(claim)
                    if not lasts:
                        return why
                    self._verdicts[name] = why
        return self._verdicts.get(name, "it was not tried")

    def _tried(self, claim: bytes) -> tuple[str, bool]:
        """What a trial says, and whether that lasts. A process that was lost since is begun anew."""
        for fresh in (self._host is None, True):
            if self._host is None:
                self._host = self._start()
            try:
                (why,), _ = self._host.call("try", {}, [claim])
                return str(why), True
            except StalePointerError as error:
                self._end()
                if fresh:
                    return f"the process that tried it ended ({error})", False
            except LabError as error:  # too little memory, say: another time it may do
                raise FailedError(f"what this value's label rests on could not be tried, so it stays: {error}") from None
        return "it was not tried", False


class Apart:
    """A process of this Python that tries claims, for owners within this one."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(BOOT_SECONDS + TRY_SECONDS)
        command = origin.command("syft_lab.kernel.executor.wall", str(theirs.fileno()))
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603

    def call(self, do: str, facts: Mapping[str, Any], frames: Frames = (), data: Data | None = None) -> tuple[Any, Frames]:
        """See `plans.Host`."""
        try:
            pipe.send(self._sock, [do, dict(facts)], frames)
            (kind, found), out, _ = pipe.receive(self._sock)
        except (OSError, EOFError, ValueError):
            self.close()
            raise StalePointerError("it ended, or took too long") from None
        if kind == "error":
            raise from_code(*found)
        return found, out

    def close(self) -> None:
        """See `plans.Host`."""
        self._sock.close()
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    limits = {"threads": 1, "memory": 16 << 30, "wall": TRY_SECONDS}
    given = {"joint": False, "device": "cpu"}
    sys.exit(plans.serve(socket.socket(fileno=int(sys.argv[1])), {"limits": limits, "plans": given}))
