"""The numbers that libzmq gives to connections, made unpredictable: its routing ids are a zero byte and four that count on.

libzmq 4.3.5 begins to count at what ``rand()`` of the C library says, the same in each process that seeds nothing. It lets a
peer bring an id, and ends the process (an assertion) where it is about to give one that a peer brought. No option forbids
either. So the place where it begins is drawn from 2^32, from the system's randomness, and nobody is told it: routing ids don't
travel. Who brings an id that could be one of these is found at the first message, as the numbers given so far are known.
"""

from __future__ import annotations

import ctypes
import secrets
from typing import Any

import zmq

_BITS, _FIRST_MS = 32, 5000


class Numbers:
    """The ids that libzmq can have given: they count from ``first``; ``most`` is a bound on how many it gave."""

    def __init__(self, first: int) -> None:
        self._first = first
        self.most = 0

    def place(self, routing: bytes) -> int | None:
        """Which one it is, from 1; None for an id that a peer brought."""
        if not looks_given(routing):
            return None
        place = (int.from_bytes(routing[1:], "big") - self._first) % (1 << _BITS)
        return place if 1 <= place <= self.most else None


def looks_given(routing: bytes) -> bool:
    """Whether an id has the form of those that libzmq gives."""
    return len(routing) == 5 and not routing[0]


def numbered_router(context: zmq.Context[Any]) -> tuple[zmq.Socket[Any], Numbers]:
    """A ROUTER that begins to count at a place nobody can know; nothing is set on it yet.

    Call it before anything else in this process uses libzmq. Raises RuntimeError where libzmq does not count from there.
    """
    library = ctypes.CDLL(None)
    seed = secrets.randbits(_BITS)
    library.srand(ctypes.c_uint(seed))
    drawn = [library.rand(), library.rand()]
    expected = (drawn[0] | drawn[1] << 31) % (1 << _BITS)  # as libzmq's generate_random does
    library.srand(ctypes.c_uint(seed))
    router: zmq.Socket[Any] = context.socket(zmq.ROUTER)
    first = _given(context, router)
    if not looks_given(first) or int.from_bytes(first[1:], "big") != expected:
        router.close(linger=0)
        raise RuntimeError("this libzmq numbers connections in a way that Syft Lab does not know; use pyzmq 27.3")
    return router, Numbers(expected)


def _given(context: zmq.Context[Any], router: zmq.Socket[Any]) -> bytes:
    """The id that a router gives to its first peer: one in this process."""
    place = f"inproc://{secrets.token_hex(16)}"
    router.bind(place)
    peer: zmq.Socket[Any] = context.socket(zmq.DEALER)
    router.rcvtimeo = _FIRST_MS
    try:
        peer.connect(place)
        peer.send(b"")
        return bytes(router.recv_multipart()[0])
    finally:
        peer.close(linger=0)
        router.unbind(place)
        router.rcvtimeo = -1
