"""How much one peer may do: a bucket of tokens, and the messages that wait for their turn, counted by key. Pure: no clock."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

OVERHEAD = 512  # bytes that a message takes beside what is in it


class Bucket:
    """``burst`` at once, then ``rate`` a second. Times are seconds of any clock that never goes back."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._level, self._at = burst, float("-inf")

    def take(self, now: float, amount: float = 1) -> bool:
        """Whether one more is allowed, or as much as ``amount``; then it counts."""
        if self.wait(now, amount):
            return False
        self._level -= amount
        return True

    def wait(self, now: float, amount: float = 1) -> float:
        """Seconds until one more is allowed, or as much as ``amount``; 0 if it is now."""
        if now > self._at:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
            self._at = now
        return 0.0 if self._level >= amount else (amount - self._level) / self._rate


@dataclass(frozen=True)
class Waiting:
    """A message on its way in: whose, over which connection, its frames, and its size in bytes."""

    key: str
    connection: int
    frames: Sequence[Any]
    size: int


class Room:
    """Bytes that are held for keys: so many of one, so many of all."""

    def __init__(self, of_key: int, of_all: int) -> None:
        self._most, self._most_of_all = of_key, of_all
        self._held: Counter[str] = Counter()

    def take(self, key: str, size: int, alone: bool = False) -> bool:
        """Whether there is room for so many more; then they count, until `free`. ``alone``: there is for a key without any."""
        full = self._held[key] + size > self._most or self._held.total() + size > self._most_of_all
        if full and not (alone and not self._held[key]):
            return False
        self._held[key] += size
        return True

    def free(self, key: str, size: int) -> None:
        """They are gone."""
        self._held[key] -= size
        if not self._held[key]:
            del self._held[key]

    def of(self, key: str) -> int:
        """Bytes that are held for one key."""
        return self._held.get(key, 0)


class Turns:
    """Messages that wait to be handed on: each key has a queue, and keys take turns. ``bytes`` are what waits, in all."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._queues: dict[str, deque[Waiting]] = {}
        self._buckets: dict[str, Bucket] = {}
        self._of_key: Counter[str] = Counter()
        self._of_connection: Counter[int] = Counter()
        self.bytes = 0

    def add(self, message: Waiting) -> None:
        """Put a message at the end of its key's queue."""
        self._queues.setdefault(message.key, deque()).append(message)
        self._count(message, message.size)

    def of(self, key: str) -> int:
        """Bytes that wait of one key."""
        return self._of_key[key]

    def heaviest(self, connections: Sequence[int]) -> int | None:
        """The connection, of these, with the most bytes waiting."""
        return max(connections, key=lambda c: self._of_connection[c], default=None)

    def heaviest_key(self) -> str | None:
        """The key with the most bytes waiting, over all its connections."""
        return max(self._of_key, key=lambda k: self._of_key[k], default=None)

    def next(self, now: float, held: Container[str] = ()) -> tuple[Waiting | None, float]:
        """The message whose turn it is, still in its queue, and how long to wait if there is none (0: nothing waits).

        Those of keys that are ``held`` have none.
        """
        pause = 0.0
        for key, queue in self._queues.items():
            if key in held:
                continue
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = Bucket(self._rate, self._burst)
            wait = bucket.wait(now)
            if not wait:
                return queue[0], 0.0
            pause = wait if not pause else min(pause, wait)
        return None, pause

    def done(self, message: Waiting, now: float) -> None:
        """The message that `next` gave was handed on: its key is last now."""
        queue = self._queues.pop(message.key)
        queue.popleft()
        self._count(message, -message.size)
        if queue:
            self._queues[message.key] = queue
        self._buckets[message.key].take(now)

    def drop(self, connection: int) -> None:
        """Forget what came over a connection that is gone."""
        if not self._of_connection[connection]:
            return
        for key, queue in list(self._queues.items()):
            for message in [w for w in queue if w.connection == connection]:
                self._count(message, -message.size)
            left = deque(w for w in queue if w.connection != connection)
            if left:
                self._queues[key] = left
            else:
                del self._queues[key]

    def _count(self, message: Waiting, size: int) -> None:
        self.bytes += size
        self._of_key[message.key] += size
        self._of_connection[message.connection] += size
        if not self._of_key[message.key]:
            del self._of_key[message.key]
        if not self._of_connection[message.connection]:
            del self._of_connection[message.connection]
