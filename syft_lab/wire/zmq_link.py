"""Links over ZeroMQ: ROUTER at the owner, DEALER at the analyst, CURVE always, ZAP enforced.

The owner's ROUTER lives in a process of its own, the door (`door`). `ZmqServer` talks to that over a Unix socket, with
libzmq's own pattern for event loops (a readable file descriptor means "look at EVENTS until empty").
The client turns monitor events into errors, so that a wrong key or a dead address is one line and never a hang.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

import syft_lab
from syft_lab.errors import ConnectionLost, KeyMismatchError, UnreachableError, UsageError
from syft_lab.identity import Keys
from syft_lab.wire import door, sockets, zerocopy
from syft_lab.wire.chunks import MAX_WIRE_FRAME
from syft_lab.wire.codec import Frame
from syft_lab.wire.link import Hub

BATCH = 64
START_SECONDS, DOOR_SECONDS, WRITE_SECONDS, TOLD_SECONDS = 20.0, 3.0, 0.05, 60.0
CUT_OFF_TIMES, CUT_OFF_PAUSE = 8, 0.1  # in a row, before it is an error; seconds between, about
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "TZ")
# Systems give ports above to connections and kernels that come and go; an owner wants its own again at the next start.
PORTS = range(20_000, 30_000)
_BROKE = "the connection to the owner broke while an answer was pending"


class ZmqServer:
    """The owner's side of its door: starts that, feeds `Hub` with what comes in, and starts another if it dies.

    ``admits()`` gives the keys that may shake hands; `tell` after it changed. `Hub`'s handler decides on every message.
    ``notify`` hears what an owner should know, with names that ``named`` gives to keys. Lives on one event loop.
    """

    def __init__(
        self, keys: Keys, admits: Callable[[], Iterable[str]], hub: Hub, notify: Callable[[str], None] = lambda text: None,
        named: Callable[[str], str] = lambda key: key,
    ) -> None:  # fmt: skip
        zerocopy.begin()
        self._keys, self._admits, self._hub, self._notify, self._named = keys, admits, hub, notify, named
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._inner: zmq.Socket[bytes] | None = None
        self._door: subprocess.Popen[bytes] | None = None
        self._host, self._port = "", 0
        self._up: asyncio.Future[dict[str, Any]] | None = None
        self._token = ""
        self._writable: list[asyncio.Future[None]] = []
        self._acknowledged: dict[bytes, asyncio.Future[None]] = {}
        self._restarting: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._told: dict[str, float] = {}
        self.closed = False

    async def bind(self, host: str, port: int) -> int:
        """Listen on ``host:port`` (0: a free one of `PORTS`, or else any); gives the port. Raises UsageError if it is taken."""
        ports = [port] if port else [*secrets.SystemRandom().sample(PORTS, 20), 0]
        try:
            told = await self._start(host, ports)
            if "port" not in told:
                raise UsageError(f"can't listen on {host}:{port}: {told.get('error')}; choose another with --listen")
        except BaseException:
            self.close()
            raise
        self._host, self._port = host, int(told["port"])
        return self._port

    @property
    def door(self) -> int:
        """The process that holds the socket; 0 while there is none."""
        return 0 if self._door is None else self._door.pid

    def tell(self, ended: Iterable[str] = ()) -> None:
        """Tell the door who may shake hands now, and to end all connections of some keys, ahead of what is sent next."""
        orders = self._orders(ended, b"")
        if not all(self._order(order) for order in orders):  # it takes nothing now
            self._telling = self._loop.create_task(self.told(ended))

    async def told(self, ended: Iterable[str] = ()) -> None:
        """The same; returns once the door knows, or is gone (the next one is told as it starts)."""
        name = secrets.token_bytes(8)
        known = self._acknowledged[name] = self._loop.create_future()
        try:
            with contextlib.suppress(TimeoutError, ConnectionLost):
                async with asyncio.timeout(DOOR_SECONDS):
                    for order in self._orders(ended, name):
                        await self._surely(order)
                    await known
        finally:
            self._acknowledged.pop(name, None)

    def _orders(self, ended: Iterable[str], name: bytes) -> list[list[Frame]]:
        keys = json.dumps(list(self._admits())).encode()
        bars: list[list[Frame]] = [[door.BAR, key.encode()] for key in ended]
        return [*bars, [door.ADMITS, keys, name]]

    def close(self) -> None:
        """Stop listening and end all connections; what was sent goes out first. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._restarting is not None:
            self._restarting.cancel()
        self._order([door.END])
        self._let_go(linger=door.LINGER_MS)
        if self._door is not None:
            _end(self._door)
        self._context.term()

    # The door

    async def _start(self, host: str, ports: Sequence[int]) -> dict[str, Any]:
        """Start a door, and wait until it listens; gives what it said: a port, or an error."""
        self._token, self._up = secrets.token_hex(16), self._loop.create_future()
        inner = self._inner = self._context.socket(zmq.PAIR)
        inner.sndhwm = inner.rcvhwm = door.INNER_MESSAGES
        place = Path(tempfile.mkdtemp(prefix="syft-door-"))  # nobody else may look in, and it goes once both ends are there
        try:
            inner.bind(f"ipc://{place}/s")
            self._loop.add_reader(inner.FD, self._readable)
            self._door = process = _spawn({
                "inner": f"ipc://{place}/s", "token": self._token, "secret": self._keys.curve_secret, "host": host,
                "ports": list(ports), "admits": list(self._admits()), "handshake_ms": sockets.HANDSHAKE_MS,
                "max_frame": MAX_WIRE_FRAME, "parent": os.getpid(),
            })  # fmt: skip
            threading.Thread(target=self._wait_for, args=(process,), name="syft-door", daemon=True).start()
            self._loop.call_soon(self._readable)
            async with asyncio.timeout(START_SECONDS):
                return await self._up
        except TimeoutError:
            raise UsageError("the owner's door to the network did not start; is this machine very busy? Try again") from None
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        _close(process)
        with contextlib.suppress(RuntimeError):  # the loop is over
            self._loop.call_soon_threadsafe(self._lost, process, code)

    def _lost(self, process: subprocess.Popen[bytes], code: int) -> None:
        """The door died: all connections are gone. Start another at the same port."""
        if self.closed or process is not self._door:
            return
        self._let_go(linger=0)
        self._hub.drop_all()
        if self._up is not None and not self._up.done():
            self._up.set_result({"error": "the door to the network could not start"})
        if self._port and (self._restarting is None or self._restarting.done()):
            self._notify(f"the door to the network ended ({code}); another is started, and analysts connect again")
            self._restarting = self._loop.create_task(self._restart())

    async def _restart(self) -> None:
        pause = FIRST_PAUSE
        while not self.closed:
            try:
                if "port" in await self._start(self._host, [self._port]):
                    return
            except UsageError:
                pass
            self._let_go(linger=0)
            if self._door is not None:
                _end(self._door)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _let_go(self, linger: int) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            self._loop.remove_reader(inner.FD)
            inner.close(linger=linger)
        self._wake()

    # Messages

    def _readable(self) -> None:
        for _ in range(BATCH):
            if self._inner is None:
                return
            try:
                mark, *frames = self._inner.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                self._wake()
                return
            self._hear(mark.bytes, frames)
        self._loop.call_soon(self._readable)  # let others on the loop have a turn

    def _hear(self, mark: bytes, frames: Sequence[zmq.Frame]) -> None:
        if mark == door.CAME:
            connection = frames[0].bytes

            async def send(out: list[Frame]) -> None:
                await self._send(connection, out)

            self._hub.feed(connection, frames[1].bytes.decode(), [f.buffer for f in frames[2:]], send)
        elif mark == door.GONE:
            self._hub.drop(frames[0].bytes)
        elif mark == door.ADMITS:
            known = self._acknowledged.get(frames[0].bytes)
            if known is not None and not known.done():
                known.set_result(None)
        elif mark == door.CUT:
            self._tell_of(*(f.bytes.decode() for f in frames))
        elif mark == door.UP and self._up is not None and not self._up.done():
            told = json.loads(frames[0].bytes)
            if hmac.compare_digest(str(told.pop("token")), self._token):
                self._up.set_result(told)

    def _tell_of(self, key: str, why: str) -> None:
        """Tell the owner that somebody was cut off; once a minute."""
        now = time.monotonic()
        if why and now - self._told.get(key, float("-inf")) > TOLD_SECONDS:
            self._told[key] = now
            self._notify(f"a connection of {self._named(key)} was cut off: {why}")

    async def _send(self, connection: bytes, frames: list[Frame]) -> None:
        """Send to an analyst; waits while the door takes no more."""
        await self._surely([door.SEND, connection, *frames])

    async def _surely(self, order: list[Frame]) -> None:
        while not self._order(order):
            if self._inner is None:
                raise ConnectionLost("the owner's door to the network is gone")
            waiting = self._loop.create_future()
            self._writable.append(waiting)
            self._loop.call_later(WRITE_SECONDS, _wake, waiting)  # the descriptor tells of changes only
            await waiting

    def _order(self, frames: list[Frame]) -> bool:
        """Send to the door; False where it takes nothing now."""
        if self._inner is None:
            return False
        try:
            self._inner.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        if self._inner.getsockopt(zmq.EVENTS) & zmq.POLLIN:  # type: ignore[operator,arg-type]  # sending may have swallowed the descriptor's edge
            self._loop.call_soon(self._readable)
        return True

    def _wake(self) -> None:
        waiting, self._writable = self._writable, []
        for each in waiting:
            _wake(each)


def _cut_off(address: str) -> KeyMismatchError:
    return KeyMismatchError(
        f"cut off before the handshake was over, {CUT_OFF_TIMES} times: either somebody answers at {address}, "
        "but not with the owner's key, or the owner is being flooded; "
        "compare the fingerprint with the owner and try again, or ask for a new invitation"
    )


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _spawn(given: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start a door: nothing of this process's environment, no `site`, only the two packages that it needs."""
    homes = [str(Path(str(package.__file__)).parents[1]) for package in (syft_lab, zmq)]
    code = f"import sys; sys.path[:0] = {homes!r}; from syft_lab.wire.door import main; main()"
    kept = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-I", "-S", "-B", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=kept,
        start_new_session=True,
    )  # fmt: skip
    if process.stdin is not None:
        process.stdin.write(json.dumps(given).encode() + b"\n")
        process.stdin.flush()  # and it stays open, until this process is gone
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for a door that was told to end; kill it if it does not."""
    try:
        process.wait(DOOR_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(DOOR_SECONDS)
    _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()


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
        self._reached = self._lost = self._cut_early = False
        self._receiving: asyncio.Future[list[zmq.Frame]] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._address = address

    @classmethod
    async def connect(cls, address: str, server_key: str, keys: Keys, timeout: float) -> ZmqTransport:
        """Connect to ``host:port``; raises UnreachableError or KeyMismatchError within ``timeout`` seconds."""
        end, reached, early = time.monotonic() + timeout, False, 0
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
            early = early + 1 if transport._cut_early else 0
            if early >= CUT_OFF_TIMES:
                raise _cut_off(address)
            if early:
                pause = CUT_OFF_PAUSE * (0.5 + secrets.randbelow(1000) / 1000)
                await asyncio.sleep(min(pause, max(0.0, end - time.monotonic())))
        transport._watch = asyncio.get_running_loop().create_task(transport._watch_for_loss())
        return transport

    async def _shakes_hands(self) -> bool:
        """False if the handshake was broken off: early, by another key or a flood; late, by a busy owner, or here."""
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
                self._cut_early = 1000 * (time.monotonic() - began) <= 0.9 * sockets.HANDSHAKE_MS
                return False

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
