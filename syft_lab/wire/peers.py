"""Connections as the system sees them: how much came over one, and how to end one, by its descriptor.

libzmq has no call for either. A descriptor comes from a monitor's event, or with a message (``SRCFD``); libzmq may have closed
it since, and the system given its number to another connection: then that one is ended, and dials again.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import socket
import struct
from collections import Counter

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


def origin(descriptor: int) -> str:
    """The address that a connection comes from, of IPv6 the network (/64); "" where the system does not say."""
    try:
        with socket.socket(fileno=os.dup(descriptor)) as connection:
            address = ipaddress.ip_address(str(connection.getpeername()[0]).partition("%")[0])
    except (OSError, ValueError, IndexError):
        return ""
    if address.version == 6 and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Strangers:
    """Connections over which no message came yet: few, short and small. ``most`` may stay at a time.

    Beyond, one goes of the address that has the most of them, so that a flood from one address ends none of others. Which one
    is drawn: the oldest would always be whoever is far away and dials honestly.
    Those libzmq never reads from are among them: of a peer that takes a routing id in use. What they send, it keeps.
    """

    def __init__(self, most: int = STRANGERS) -> None:
        self._most = most
        self._since: dict[int, tuple[float, str]] = {}
        self._of_origin: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._since)

    def came(self, descriptor: int, now: float) -> None:
        """A connection was accepted."""
        self.known(descriptor)
        self._since[descriptor] = now, origin(descriptor)
        self._of_origin[self._since[descriptor][1]] += 1
        while len(self._since) > self._most:
            crowd = max(self._of_origin, key=lambda o: self._of_origin[o])
            evicted = secrets.choice([d for d, (_, o) in self._since.items() if o == crowd])
            self.known(evicted)
            shut(evicted)

    def known(self, descriptor: int) -> None:
        """It is no stranger any more: it is gone, or a message came."""
        _, place = self._since.pop(descriptor, (0.0, None))
        if place is not None:
            self._of_origin[place] -= 1
            if not self._of_origin[place]:
                del self._of_origin[place]

    def sweep(self, now: float) -> None:
        """End those that are too old, or sent too much."""
        for descriptor, (since, _) in list(self._since.items()):
            if now - since > STRANGE_SECONDS or received(descriptor) > STRANGE_BYTES:
                self.known(descriptor)
                shut(descriptor)
