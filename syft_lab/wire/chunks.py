"""Large messages in pieces: pure bookkeeping of transfers, as docs/protocol.md lays them out.

`pieces` cuts, `Transfer` puts together again. Nothing is allocated before the header was judged and a piece came, and never
more than its kind may carry; numpy's ``empty`` touches no page before a piece fills it, so that memory grows with what came.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from syft_lab.errors import WireError
from syft_lab.wire.codec import MAX_FRAMES, Frame, Header

# Small enough to stay in the cache between decryption and copy, and to overlap both ways: measured 15–30 % faster at
# 100 MB than 8 MiB (benchmarks/wire.py), and a stranger can make us hold less.
PIECE = 1 << 20
# Pieces on their way, of one transfer. Those of all that a connection may have (`link.TRANSFERS`) stay below what the door lets
# wait for somebody who reads slowly.
WINDOW = 4
MAX_WIRE_FRAME = PIECE + (1 << 20)
STALE_SECONDS = 60.0  # with 1 Mbit/s, which four transfers share, a piece of each comes every 34 s


def size_of(payload: Sequence[Frame]) -> int:
    """Bytes in all frames together."""
    return sum(memoryview(p).nbytes for p in payload)


def opening(transfer: bytes, payload: Sequence[Frame]) -> bytes:
    """The first frame of an ``O`` message: the transfer and the sizes to come."""
    return b"O" + transfer + b"".join(memoryview(p).nbytes.to_bytes(8, "big") for p in payload)


def sizes(first: bytes) -> list[int]:
    """The sizes in the first frame of an ``O`` message; raises WireError."""
    found = [int.from_bytes(first[i : i + 8], "big") for i in range(9, len(first), 8)]
    if (len(first) - 9) % 8 or not 1 <= len(found) <= MAX_FRAMES:
        raise WireError("an opening frame holds a transfer and 1 to 32 sizes")
    return found


def pieces(transfer: bytes, payload: Sequence[Frame]) -> Iterator[list[Frame]]:
    """The ``C`` messages of a payload, in order; the data are views, not copies."""
    index = 0
    for frame in payload:
        view = memoryview(frame).cast("B")
        for start in range(0, view.nbytes, PIECE):
            yield [b"C" + transfer + index.to_bytes(4, "big"), view[start : start + PIECE]]
            index += 1


class Buffers:
    """Memory for large frames, taken again once nobody holds a view of it: new pages cost more than what is done with them."""

    KEPT, SIZE = 8, 8 << 20

    def __init__(self) -> None:
        self._kept: list[np.ndarray[Any, Any]] = []
        self._lock = threading.Lock()

    def take(self, size: int) -> memoryview:
        """So many bytes."""
        if not self.SIZE // 2 < size <= self.SIZE:
            return np.empty(size, np.uint8).data.cast("B")
        with self._lock:
            for kept, held in zip(self._kept, _references(self._kept), strict=True):
                if held == _FREE:
                    return kept.data[:size]
            found = np.empty(self.SIZE, np.uint8)
            if len(self._kept) < self.KEPT:
                self._kept.append(found)
        return found.data[:size]


def _references(arrays: list[np.ndarray[Any, Any]]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


_FREE = _references([np.empty(1, np.uint8)])[0]  # of one that a list alone holds; it differs between versions of Python


class Transfer:
    """A large message on its way in. Raises WireError for sizes beyond the limits and for a piece out of order.

    A payload of one frame goes straight ``into`` memory that waits for it, if that is as large. One that nobody waits for (not
    ``kept``) is let pass: its sender goes on, and nothing of it stays.
    """

    def __init__(
        self, header: Header, first: bytes, max_payload: int, buffers: Buffers, into: memoryview | None = None,
        kept: bool = True,
    ) -> None:  # fmt: skip
        self._sizes = sizes(first)
        self.size = sum(self._sizes)
        if self.size > min(max_payload, header.kind.max_payload):
            raise WireError(f"a payload of {self.size} bytes is larger than the limit for {header.kind.kind} here")
        self.header, self.kept = header, kept
        self.count = 0
        self.touched = time.monotonic()
        self._take, self._buffers = buffers.take, [into] if into is not None and [into.nbytes] == self._sizes else []
        self._frame = self._filled = 0
        self._skip_full()

    @property
    def complete(self) -> bool:
        """Whether every byte came."""
        return self._frame == len(self._sizes)

    @property
    def payload(self) -> list[Frame]:
        """The frames put together; zero-copy views."""
        if not self._buffers:  # nothing is allocated before the first piece
            self._buffers = [self._take(n) for n in self._sizes]
        return list(self._buffers)

    def let_go(self) -> None:
        """Keep nothing of it: who waited for it waits no more."""
        self.kept = False
        self._buffers.clear()

    def add(self, index: int, data: Frame) -> None:
        """Take the next piece; copies it into its place."""
        piece = memoryview(data).cast("B")
        room = 0 if self.complete else self._sizes[self._frame] - self._filled
        if index != self.count or not 0 < piece.nbytes <= min(PIECE, room):
            raise WireError("a piece of a large message is out of order or too long; the transfer ends")
        if self.kept:
            memoryview(self.payload[self._frame])[self._filled : self._filled + piece.nbytes] = piece
        self._filled += piece.nbytes
        self.count += 1
        self.touched = time.monotonic()
        self._skip_full()

    def _skip_full(self) -> None:
        while not self.complete and self._filled == self._sizes[self._frame]:
            self._frame += 1
            self._filled = 0
