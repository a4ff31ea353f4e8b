"""Between the owner's kernel and a child that runs plans: JSON and raw frames over a socket pair. Not for strangers."""

from __future__ import annotations

import array
import json
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

Frames = Sequence[bytes | memoryview | bytearray]
MAX_HEADER = 64 << 20


def send(sock: socket.socket, header: Any, frames: Frames = (), fds: Sequence[int] = ()) -> None:
    """Send one message; ``fds`` travel with its first bytes."""
    sizes = [memoryview(f).nbytes for f in frames]
    said = json.dumps([header, sizes]).encode()
    start = len(said).to_bytes(8, "little") + said
    if fds:
        sent = sock.sendmsg([start], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
        sock.sendall(start[sent:])
    else:
        sock.sendall(start)
    for frame in frames:
        sock.sendall(frame)


def receive(
    sock: socket.socket,
    most_fds: int = 0,
    take: Callable[[Any, int], memoryview] = lambda header, size: memoryview(bytearray(size)),
) -> tuple[Any, list[memoryview], list[int]]:
    """The next message: its header, frames and files. Raises EOFError once the other side is gone.

    ``take`` gives memory for a frame of the message with this header.
    """
    fds: list[int] = []
    if most_fds:
        first, ancillary, _, _ = sock.recvmsg(8, socket.CMSG_SPACE(4 * most_fds))
        for _, _, received in ancillary:
            got = array.array("i")
            got.frombytes(received[: len(received) - len(received) % 4])
            fds += got
        length = first + bytes(_exactly(sock, 8 - len(first))) if first else b""
    else:
        length = bytes(_exactly(sock, 8))
    if len(length) < 8:
        raise EOFError
    size = int.from_bytes(length, "little")
    if size > MAX_HEADER:
        raise ValueError("a header is longer than anything that is said here")
    header, sizes = json.loads(_exactly(sock, size).tobytes())
    return header, [_filled(sock, take(header, size)) for size in sizes], fds


def waiting(sock: socket.socket, seconds: float) -> bool:
    """Whether a message, or the end, comes within so many seconds."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _exactly(sock: socket.socket, size: int) -> memoryview:
    return _filled(sock, memoryview(bytearray(size)))


def _filled(sock: socket.socket, found: memoryview) -> memoryview:
    view = found
    while view:
        got = sock.recv_into(view)
        if not got:
            raise EOFError
        view = view[got:]
    return found
