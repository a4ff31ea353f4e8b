"""How far a wait for an owner is: a line under the cell, in a notebook, once it takes long; Interrupt ends the wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from IPython import get_ipython
from IPython.display import DisplayHandle, display

SHOWN_AFTER, EVERY = 2.0, 0.25  # seconds


@dataclass
class Work:
    """Operations and bytes that were asked for, and those of them that are done. Counted from any thread."""

    operations: int = 0
    bytes: int = 0
    operations_done: int = 0
    bytes_done: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def ask(self, operations: int, size: int) -> Callable[[object], None]:
        """Count something that was asked for; call what it gives when that is done."""
        with self._lock:
            self.operations += operations
            self.bytes += size

        def done(_: object) -> None:
            with self._lock:
                self.operations_done += operations
                self.bytes_done += size

        return done

    def since(self, operations: int, size: int) -> str:
        """What is done, in words, of all after so many operations and bytes."""
        with self._lock:
            pairs = [
                (self.operations_done - operations, self.operations - operations, 1, "operations"),
                (self.bytes_done - size, self.bytes - size, 1_000_000, "MB"),
            ]
        return ", ".join(f"{done // by:,} of {of // by:,} {unit}" for done, of, by, unit in pairs if of >= by)


def watched(future: Future[Any], timeout: float, who: str, work: Work) -> Any:
    """The result of ``future``, like `Future.result`; in a notebook a line says how far it is, and is gone in the end."""
    began, line = time.monotonic(), _Line()
    start = work.operations_done, work.bytes_done
    try:
        while True:
            spent = time.monotonic() - began
            try:
                return future.result(max(0.0, min(timeout - spent, EVERY if spent > SHOWN_AFTER else SHOWN_AFTER)))
            except TimeoutError:
                if future.done():
                    return future.result()
                spent = time.monotonic() - began
                if spent >= timeout:
                    raise
            line.say(f"{who}: {work.since(*start) or 'working'}, {spent:.0f} s")
    finally:
        line.close()


class _Line:
    """A line of output that changes. Nothing where there is no notebook, or in a thread whose output has no cell."""

    def __init__(self) -> None:
        self._handle: DisplayHandle | None = None
        self._shown = ""

    def say(self, text: str) -> None:
        if text == self._shown or threading.current_thread() is not threading.main_thread():
            return
        shell, self._shown = get_ipython(), text
        if getattr(shell, "kernel", None) is None:
            return
        data = {"text/plain": text}
        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.update({"text/plain": ""}, raw=True)
