"""Links between parties: ZeroMQ with CURVE, one DEALER to one DEALER, and their twin in memory for threads of one process.

Bodies travel as parts of 1 MiB, so that encrypting, sending and decrypting go on beside each other in libzmq's own threads.
A link that breaks stays broken: a run can't go on with other masks, it is begun anew.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping, Sequence

import zmq
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils.monitor import parse_monitor_message

from syft_lab.errors import PartnerError, PartnerGoneError
from syft_lab.identity import Keys, PublicKeys
from syft_lab.wire import sockets, zerocopy

PART = 1 << 20
LINGER_MS = 2000
_GONE = "is gone, or the connection to it broke"
_BEGINS = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED
_EVENTS = _BEGINS | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED


class MemoryLink:
    """One end of a link inside a process."""

    def __init__(self, out: queue.SimpleQueue[bytes | None], inward: queue.SimpleQueue[bytes | None]) -> None:
        self._out, self._in = out, inward

    def send(self, head: bytes, body: memoryview) -> None:
        """See `party.Link`."""
        self._out.put(head + bytes(body))

    def receive(self, into: memoryview, timeout: float) -> bytes:
        """See `party.Link`."""
        try:
            message = self._in.get(timeout=timeout)
        except queue.Empty:
            raise PartnerError(f"did not send what was its turn within {timeout:g} s") from None
        if message is None:
            self._in.put(None)
            raise PartnerGoneError(_GONE)
        at = len(message) - into.nbytes
        if at < 0:
            raise PartnerError("sent a message of another length")
        into[:] = message[at:]
        return message[:at]

    def close(self) -> None:
        """See `party.Link`."""
        self._out.put(None)


def in_memory() -> list[dict[int, MemoryLink]]:
    """Links among three parties in threads of this process."""
    queues = {(a, b): queue.SimpleQueue[bytes | None]() for a in range(3) for b in range(3) if a != b}
    return [{b: MemoryLink(queues[a, b], queues[b, a]) for b in range(3) if b != a} for a in range(3)]


class ZmqLink:
    """A link to one partner, whose CURVE key is known."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._monitor = socket.get_monitor_socket(_EVENTS)
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._connections: set[int] = set()
        self._up = self._broken = False

    def send(self, head: bytes, body: memoryview) -> None:
        """See `party.Link`."""
        if self._broken:  # the socket may not have heard of it yet
            raise PartnerGoneError(_GONE)
        parts = [body[at : at + PART] for at in range(0, body.nbytes, PART)]
        try:
            self._socket.send_multipart([head, *parts], copy=False)
        except zmq.ZMQError:
            raise PartnerGoneError(_GONE) from None

    def receive(self, into: memoryview, timeout: float) -> bytes:
        """See `party.Link`."""
        end = time.monotonic() + timeout
        while True:
            try:
                return self._take(into)
            except zmq.Again:
                pass
            if self._broken:
                raise PartnerGoneError(_GONE)
            ready = dict(self._poller.poll(max(0, int((end - time.monotonic()) * 1000))))
            if not ready:
                raise PartnerError(f"did not send what was its turn within {timeout:g} s")
            if self._monitor in ready:
                self._hear()

    def _take(self, into: memoryview) -> bytes:
        head = self._socket.recv(zmq.NOBLOCK)
        at = 0
        while self._socket.getsockopt(zmq.RCVMORE):
            part = self._socket.recv(copy=False)  # a message arrives whole
            size = part.buffer.nbytes
            if at + size > into.nbytes:
                raise PartnerError("sent a message of another length")
            into[at : at + size] = part.buffer
            at += size
        if at != into.nbytes:
            raise PartnerError("sent a message of another length")
        return head

    def _hear(self) -> bool:
        """Take in an event of the connection; gives whether it is up.

        Where this party listens strangers may knock, and go: it is broken when there is no connection left. While a stranger
        stays, a partner who is gone is missed by its silence.
        """
        said = parse_monitor_message(self._monitor.recv_multipart())
        event, file = said["event"], said["value"]
        if event & _BEGINS:
            self._connections.add(file)
        elif event == zmq.EVENT_DISCONNECTED:
            self._connections.discard(file)
        else:
            self._up = True
        self._broken = self._broken or (self._up and not self._connections)
        return bool(event == zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def wait(self, timeout: float) -> None:
        """Until the partner is there, with its key."""
        end = time.monotonic() + timeout
        while self._monitor.poll(max(0, int((end - time.monotonic()) * 1000))):
            if self._hear():
                return
        raise PartnerError(f"did not connect with its key within {timeout:g} s")

    def close(self) -> None:
        """See `party.Link`."""
        if not self._socket.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close(linger=LINGER_MS)


class Mesh:
    """The links of one party, before and while they are up. It listens for the partners with higher indexes, and calls the
    others.

    Nobody gets in before `expect` has said whose keys the partners have: only who holds a partner's key gets its place.
    ``names`` are of all parties, in their order.
    """

    def __init__(self, index: int, keys: Keys, names: Sequence[str], host: str = "127.0.0.1") -> None:
        self._index, self._keys, self._names = index, keys, tuple(names)
        self._publics: Sequence[PublicKeys] = ()
        zerocopy.begin()
        self._context = zmq.Context()
        self._zap = ThreadAuthenticator(self._context)
        self._zap.start()
        self._links: dict[int, ZmqLink] = {}
        self.ports: dict[int, int] = {}
        for other in range(index + 1, len(names)):
            domain = f"party-{other}"
            self._zap.configure_curve_callback(domain=domain, credentials_provider=_Only(self, other))
            socket = self._socket()
            socket.curve_server = True
            socket.zap_domain = domain.encode()
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            self._links[other] = ZmqLink(socket)  # now, so that it hears of a partner who is quick
            self.ports[other] = socket.bind_to_random_port(f"tcp://{host}")

    def expect(self, publics: Sequence[PublicKeys]) -> Mesh:
        """Take in the keys of all parties, in their order; gives itself."""
        self._publics = tuple(publics)
        return self

    def holds(self, other: int, key: str) -> bool:
        """Whether this is the key of that party."""
        return other < len(self._publics) and self._publics[other].curve == key

    def _socket(self) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        socket.curve_secretkey = self._keys.curve_secret.encode()
        socket.curve_publickey = self._keys.public.curve.encode()
        socket.maxmsgsize = 2 * PART  # what CURVE adds counts
        sockets.endure(socket)
        # A handshake that a busy machine did not finish is tried again. A link that was up and broke is not used any more.
        socket.setsockopt(zmq.RECONNECT_IVL, 50)
        socket.sndhwm, socket.backlog = 0, sockets.BACKLOG  # lock-step bounds what is on its way
        socket.sndtimeo = 0  # so sending waits only where nobody is there any more
        return socket

    def connect(self, addresses: Mapping[int, str], timeout: float = 30.0) -> dict[int, ZmqLink]:
        """Links to all partners, once each of them has heard of the others' keys; ``addresses`` ("host:port") are of those with
        lower indexes."""  # noqa: D209
        for other in range(self._index):
            socket = self._socket()
            socket.curve_serverkey = self._publics[other].curve.encode()
            self._links[other] = ZmqLink(socket)
            socket.connect(f"tcp://{addresses[other]}")
        for other, link in self._links.items():
            try:
                link.wait(timeout)
            except PartnerError as error:
                raise PartnerError(f"{self._names[other]} {error}") from None
        return dict(sorted(self._links.items()))

    def close(self) -> None:
        """End all links."""
        self._zap.stop()
        self._context.destroy(linger=LINGER_MS)  # with the sockets that tell of connections


class _Only:
    """Answers ZAP: one partner's key."""

    def __init__(self, mesh: Mesh, other: int) -> None:
        self._mesh, self._other = mesh, other

    def callback(self, domain: str, key: bytes) -> bool:
        """Called by pyzmq's authenticator with the key in Z85."""
        return self._mesh.holds(self._other, key.decode())
