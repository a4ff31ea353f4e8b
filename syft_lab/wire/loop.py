"""An event loop in a thread of its own, so that neither a running cell nor a slow analyst holds up the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as WaitTimeout
from typing import Any, TypeVar

from syft_lab.errors import ConnectionLost

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for plain threads. Start it once; `stop` ends the loop and joins the thread."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.SelectorEventLoop()  # on Windows too: the sockets are watched as descriptors
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        if left:
            self.loop.run_until_complete(asyncio.wait(left, timeout=2))
        self.loop.close()

    @property
    def here(self) -> bool:
        """Whether this is the loop's own thread."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run ``work`` on the loop and wait for it; Interrupt cancels it. Raises ConnectionLost after ``timeout`` s."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(timeout)
        except WaitTimeout:
            future.cancel()
            if future.done() and not future.cancelled():
                return future.result()
            raise ConnectionLost(f"no answer within {timeout:g} s") from None
        except BaseException:
            future.cancel()
            raise

    def stop(self, timeout: float = 5.0) -> None:
        """End the loop; waits ``timeout`` seconds at most for its thread."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
