"""Connections as the system sees them: how much came over one, and how to end one, by its descriptor.

libzmq has no call for either. A descriptor comes from a monitor's event, or with a message (``SRCFD``); libzmq may have closed
it since, and the system given its number to another connection: then that one is ended, and dials again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections import OrderedDict

STRANGERS, STRANGE_SECONDS, STRANGE_BYTES = 128, 5.0, 256 << 10
_TCP_INFO_SIZE, _BYTES_RECEIVED = 256, 128  # of Linux's struct tcp_info


def shut(descriptor: int) -> None:
    """End a connection both ways; libzmq hears of it, and closes its descriptor itself."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def received(descriptor: int) -> int:
    """Bytes that came over a connection since it began; 0 where the system does not say."""
    if not hasattr(socket, "TCP_INFO"):
        return 0
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        return int(struct.unpack_from("Q", told, _BYTES_RECEIVED)[0])
    except (OSError, struct.error):
        return 0


class Strangers:
    """Connections over which no message came yet: few, short and small. ``most`` may stay at a time, the newest.

    Those libzmq never reads from are among them: of a peer that takes a routing id in use. What they send, it keeps.
    """

    def __init__(self, most: int = STRANGERS) -> None:
        self._most = most
        self._since: OrderedDict[int, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def came(self, descriptor: int, now: float) -> None:
        """A connection was accepted."""
        self._since.pop(descriptor, None)
        self._since[descriptor] = now
        while len(self._since) > self._most:
            shut(self._since.popitem(last=False)[0])

    def known(self, descriptor: int) -> None:
        """It is no stranger any more: it is gone, or a message came."""
        self._since.pop(descriptor, None)

    def sweep(self, now: float) -> None:
        """End those that are too old, or sent too much."""
        for descriptor, since in list(self._since.items()):
            if now - since > STRANGE_SECONDS or received(descriptor) > STRANGE_BYTES:
                del self._since[descriptor]
                shut(descriptor)
