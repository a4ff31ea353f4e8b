"""Links over ZeroMQ: ROUTER at the owner, DEALER at the analyst, CURVE always, ZAP enforced.

The server reads its socket with libzmq's own pattern for event loops (a readable file descriptor means "look at
EVENTS until empty") and sends without blocking: a peer that does not read loses its connection, and holds up nobody.
The client turns monitor events into errors, so that a wrong key or a dead address is one line and never a hang.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence

import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator
from zmq.utils.monitor import parse_monitor_message

from syft_lab.errors import ConnectionLost, KeyMismatchError, UnreachableError, UsageError
from syft_lab.identity import Keys
from syft_lab.wire import sockets, zerocopy
from syft_lab.wire.chunks import MAX_WIRE_FRAME
from syft_lab.wire.codec import Frame
from syft_lab.wire.link import Hub

DOMAIN = "syft-lab"
BATCH = 64
# Systems give ports above to connections and kernels that come and go; an owner wants its own again at the next start.
PORTS = range(20_000, 30_000)
_BROKE = "the connection to the owner broke while an answer was pending"


class _Admission:
    """Answers ZAP: may this public key shake hands?"""

    def __init__(self, admits: Callable[[str], bool]) -> None:
        self._admits = admits

    def callback(self, domain: str, key: bytes) -> bool:
        """Called by pyzmq's authenticator with the key in Z85."""
        return self._admits(key.decode())


class ZmqServer:
    """The owner's socket. ``admits(key)`` decides at the handshake; `Hub`'s handler decides on every message."""

    def __init__(self, keys: Keys, admits: Callable[[str], bool], hub: Hub) -> None:
        zerocopy.begin()
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._context = zmq.asyncio.Context()
        self._authenticator = AsyncioAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback(domain=DOMAIN, credentials_provider=_Admission(admits))
        # A plain socket in the authenticator's context: we drive it ourselves.
        self._router = zmq.Context(self._context).socket(zmq.ROUTER)
        self._router.curve_server = True
        self._router.curve_secretkey = keys.curve_secret.encode()
        self._router.zap_domain = DOMAIN.encode()
        self._router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.maxmsgsize = MAX_WIRE_FRAME
        sockets.endure(self._router)
        self._router.sndhwm, self._router.backlog = sockets.UNREAD_MESSAGES, sockets.BACKLOG
        self._router.linger = 200
        self._reading = False

    def bind(self, host: str, port: int) -> int:
        """Listen on ``host:port`` (0: a free one of `PORTS`, or else any); gives the port. Raises UsageError if it is taken."""
        for chosen in (port,) if port else (*secrets.SystemRandom().sample(PORTS, 20), 0):
            try:
                self._router.bind(f"tcp://{host}:{chosen or '*'}")
                break
            except zmq.ZMQError as error:
                if error.errno == zmq.EADDRINUSE and chosen != port:
                    continue
                self.close()
                raise UsageError(f"can't listen on {host}:{port}: {error.strerror}; choose another with --listen") from None
        endpoint = self._router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._reading = True
        self._loop.add_reader(self._router.FD, self._readable)
        self._loop.call_soon(self._readable)
        return int(endpoint.rsplit(":", 1)[1])

    def close(self) -> None:
        """Stop listening and end all connections; idempotent."""
        if self._router.closed:
            return
        if self._reading:
            self._loop.remove_reader(self._router.FD)
        self._router.close()
        self._authenticator.stop()
        self._context.term()

    def _readable(self) -> None:
        if self._router.closed:
            return
        for _ in range(BATCH):
            try:
                routing, *frames = self._router.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._receive(routing, frames)
        self._loop.call_soon(self._readable)  # let others on the loop have a turn

    def _receive(self, routing: zmq.Frame, frames: Sequence[zmq.Frame]) -> None:
        if not frames:
            return
        try:
            key = frames[-1].get("User-Id")
        except zmq.ZMQError:
            return  # no authenticated key, no message
        if isinstance(key, str):
            connection = routing.bytes

            async def send(out: list[Frame]) -> None:
                self._send(connection, out)

            self._hub.feed(connection, key, [f.buffer for f in frames], send)

    def _send(self, connection: bytes, frames: list[Frame]) -> None:
        if self._router.closed:
            raise ConnectionLost("the owner's service stopped")
        try:
            self._router.send_multipart([connection, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            self._hub.drop(connection)
            raise ConnectionLost("the analyst is gone, or does not read") from None
        finally:
            if self._router.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]  # sending may have swallowed the descriptor's edge
                self._loop.call_soon(self._readable)


class ZmqTransport:
    """The analyst's socket, connected: make it with `connect`."""

    def __init__(self, address: str, server_key: str, keys: Keys) -> None:
        zerocopy.begin()
        self._context = zmq.asyncio.Context()  # our own, and ended by `close`: a context left to the collector can hang it
        self._socket: zmq.asyncio.Socket = self._context.socket(zmq.DEALER)
        self._socket.curve_serverkey = server_key.encode()
        self._socket.curve_publickey = keys.public.curve.encode()
        self._socket.curve_secretkey = keys.curve_secret.encode()
        self._socket.linger = 0
        sockets.endure(self._socket)
        self._socket.reconnect_ivl = sockets.NEVER_MS  # a broken link is an error to handle above, not to hide
        self._socket.maxmsgsize = MAX_WIRE_FRAME
        self._monitor = self._socket.get_monitor_socket()
        self._reached = self._lost = False
        self._receiving: asyncio.Future[list[zmq.Frame]] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._address = address

    @classmethod
    async def connect(cls, address: str, server_key: str, keys: Keys, timeout: float) -> ZmqTransport:
        """Connect to ``host:port``; raises UnreachableError or KeyMismatchError within ``timeout`` seconds."""
        end, reached = time.monotonic() + timeout, False
        while True:
            transport = cls(address, server_key, keys)
            try:
                transport._socket.connect(f"tcp://{address}")
                if await asyncio.wait_for(transport._shakes_hands(), max(0.0, end - time.monotonic())):
                    break
            except zmq.ZMQError:
                transport.close()
                raise UnreachableError(f"{address!a} is no address: it should look like host:7000") from None
            except TimeoutError:
                transport.close()
                if reached or transport._reached:
                    raise UnreachableError(
                        f"somebody answers at {address}, but did not finish the handshake within {timeout:.3g} s: the owner is "
                        "too busy, or another program listens there; try again, with a longer timeout if need be"
                    ) from None
                raise UnreachableError(
                    f"nobody answers at {address}; is the owner's kernel running, and the port open?"
                ) from None
            except BaseException:
                transport.close()
                raise
            transport.close()
            reached = True
        transport._watch = asyncio.get_running_loop().create_task(transport._watch_for_loss())
        return transport

    async def _shakes_hands(self) -> bool:
        """False if the handshake was broken off since it took too long: by an owner that is too busy just now, or here."""
        began = time.monotonic()  # before the timers of both sides
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                return True
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                raise KeyMismatchError(
                    f"the owner at {self._address} does not know this machine's key; ask the owner for an invitation"
                )
            if event == zmq.EVENT_CONNECTED:
                self._reached = True
            elif event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
                           zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):  # fmt: skip
                if not self._reached:
                    raise UnreachableError(f"nobody listens at {self._address}; is the owner's kernel running?")
                # Another key is seen at the first message; the events of that and of a timer are the same.
                if 1000 * (time.monotonic() - began) > 0.9 * sockets.HANDSHAKE_MS:
                    return False
                raise KeyMismatchError(
                    f"somebody answers at {self._address}, but not with the owner's key; "
                    "compare the fingerprint with the owner, or ask for a new invitation"
                )

    async def _watch_for_loss(self) -> None:
        while True:
            event = parse_monitor_message(await self._monitor.recv_multipart())["event"]
            if event in (zmq.EVENT_DISCONNECTED, zmq.EVENT_CLOSED, zmq.EVENT_MONITOR_STOPPED):
                self._lost = True
                if self._receiving is not None and not self._receiving.done():
                    self._receiving.set_exception(ConnectionLost(_BROKE))
                return

    async def send(self, frames: list[Frame]) -> None:
        """Send one wire message; waits while the link is full."""
        if self._lost:
            raise ConnectionLost(_BROKE)
        try:
            await self._socket.send_multipart(frames, copy=False)
        except asyncio.CancelledError:
            # zmq.asyncio cancels what is pending when a socket is closed; nobody cancelled whoever sends here.
            task = asyncio.current_task()
            if self._socket.closed and (task is None or not task.cancelling()):
                raise ConnectionLost(_BROKE) from None
            raise
        except zmq.ZMQError:
            raise ConnectionLost(_BROKE) from None

    async def receive(self) -> Sequence[Frame]:
        """The next wire message; raises ConnectionLost once the owner is gone."""
        if self._lost:
            raise ConnectionLost(_BROKE)
        receiving = self._receiving = asyncio.ensure_future(self._socket.recv_multipart(copy=False))
        return [f.buffer for f in await receiving]

    def close(self) -> None:
        """End the connection; idempotent."""
        if self._watch is not None:
            self._watch.cancel()
        if not self._context.closed:
            self._socket.disable_monitor()
            self._monitor.close(linger=0)
            self._socket.close()
            self._context.term()
