"""A fair queue in front of the executor: a few slots, and whoever has the fewest runs in them is next."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

Work = Callable[[], None]


class FairQueue:
    """Runs work in ``slots`` threads. An analyst holds all slots but one at most, so that one is free for others.

    Next is the oldest work of the analyst with the fewest runs in hand; among equals, of the one who was served longest
    ago. So ten analysts share the slots evenly, however much each of them filed.
    """

    def __init__(self, slots: int) -> None:
        self.slots, self.most = slots, max(1, slots - 1)
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._running: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._turn = 0
        self._ready = threading.Condition()
        self._stopped = False
        self._threads = [threading.Thread(target=self._serve, name=f"syft-run-{i}", daemon=True) for i in range(slots)]
        for thread in self._threads:
            thread.start()

    def put(self, analyst: str, work: Work) -> bool:
        """Take work of an analyst in; False when the queue is stopped."""
        with self._ready:
            if self._stopped:
                return False
            self._waiting.setdefault(analyst, deque()).append(work)
            self._ready.notify_all()
            return True

    def stop(self) -> None:
        """Drop what waits, and wait for what runs; idempotent."""
        with self._ready:
            self._stopped = True
            self._waiting.clear()
            self._ready.notify_all()
        for thread in self._threads:
            thread.join()

    def waiting(self, analyst: str) -> int:
        """How much of an analyst's work waits."""
        with self._ready:
            return len(self._waiting.get(analyst, ()))

    def _next(self) -> str | None:
        open_to = [a for a in self._waiting if self._running[a] < self.most]
        return min(open_to, key=lambda a: (self._running[a], self._served[a]), default=None)

    def _serve(self) -> None:
        while True:
            with self._ready:
                while not self._stopped and (analyst := self._next()) is None:
                    self._ready.wait()
                if self._stopped or analyst is None:
                    return
                work = self._waiting[analyst].popleft()
                if not self._waiting[analyst]:
                    del self._waiting[analyst]
                self._turn += 1
                self._running[analyst] += 1
                self._served[analyst] = self._turn
            try:
                work()
            finally:
                with self._ready:
                    self._running[analyst] -= 1
                    self._ready.notify_all()
