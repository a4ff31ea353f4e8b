"""The transport seam: messages over anything that carries lists of frames, and an in-memory twin for tests.

`Endpoint` is one side of one connection: it cuts large messages into pieces and puts them together. `Client` asks and
waits for the reply with the same id. `Hub` serves many connections: one endpoint each, a handler for every request.
Who is at the other end is the transport's to say, by public key.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from syft_lab.errors import BusyError, ConnectionLost, LabError, WireError, from_code
from syft_lab.wire import chunks, codec
from syft_lab.wire.codec import Frame
from syft_lab.wire.messages import ANSWERS, VERSIONS, Message, Refused
from syft_lab.wire.rates import Room

Send = Callable[[list[Frame]], Awaitable[None]]
Handler = Callable[[str, Message], Awaitable[Message]]
MayCarry = Callable[[str, type[Message]], int]
Opened = Callable[[codec.Header, bytes], chunks.Transfer]
IN_HAND, IN_HAND_ALL, TRANSFERS = 32, 1024, 4
# Bytes of large messages, from their opening until they are answered. A session on tensors has 128 MiB on their way at most.
HELD, ALL_HELD = 256 << 20, 1 << 30
CONNECTIONS = 4096
MAX_REFUSAL = 4000
ALIVE, ALIVE_TOO = b"L", b"Y"
ALIVE_SECONDS, SILENT_ROUNDS = 2.0, 3


class Transport(Protocol):
    """Carries lists of frames in order. `receive` raises ConnectionLost when the other side is gone."""

    async def send(self, frames: list[Frame]) -> None:
        """Send one wire message."""

    async def receive(self) -> Sequence[Frame]:
        """The next wire message."""

    def close(self) -> None:
        """End the connection; idempotent."""


class Endpoint:
    """One side of one connection. ``opened`` judges a large message before anything is allocated: it gives the transfer, or
    raises the error that it is refused with. ``dropped`` hears of each transfer that ends before it is whole."""  # noqa: D209

    def __init__(self, send: Send, opened: Opened, dropped: Callable[[chunks.Transfer], None] = lambda transfer: None) -> None:
        self._send, self._opened, self._dropped = send, opened, dropped
        self._sending = asyncio.Semaphore(TRANSFERS)  # no more of them than the other side takes at a time
        self._incoming: dict[bytes, chunks.Transfer] = {}
        self._windows: dict[bytes, asyncio.Semaphore] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._over = False

    async def put(self, message: Message, id: int, version: int = VERSIONS[-1]) -> None:
        """Send a message, in pieces if it is large."""
        header, *payload = codec.encode(message, id, version)
        if chunks.size_of(payload) <= chunks.PIECE:
            await self._send([b"M", header, *payload])
            return
        async with self._sending:
            await self._put_pieces(header, payload)

    def end(self) -> None:
        """The connection is gone: nobody waits any more for the other side to take a large message, or for one of its own."""
        self._over = True
        self.drop_all()
        for window in self._windows.values():
            window.release()

    async def put_mark(self, mark: bytes) -> None:
        """Send a wire message that is only a mark."""
        await self._send([mark])

    async def _put_pieces(self, header: Frame, payload: Sequence[Frame]) -> None:
        transfer = os.urandom(8)
        window = self._windows[transfer] = asyncio.Semaphore(chunks.WINDOW)
        try:
            await self._send([chunks.opening(transfer, payload), header])
            for piece in chunks.pieces(transfer, payload):
                async with asyncio.timeout(chunks.STALE_SECONDS):  # wait_for of Python 3.11 can lose a cancellation
                    await window.acquire()
                if self._over:
                    raise ConnectionLost("the other side is gone")
                await self._send(piece)
        except TimeoutError:
            raise ConnectionLost("the other side stopped taking a large message; try again") from None
        finally:
            del self._windows[transfer]

    async def take(self, frames: Sequence[Frame]) -> tuple[Message, int] | None:
        """Take a wire message in; gives the message and its id once it is whole. Raises what it is refused with."""
        first = bytes(frames[0][:512]) if frames else b""
        if first == b"M":
            if chunks.size_of(frames[2:]) > chunks.PIECE:
                raise WireError(f"a payload of more than {chunks.PIECE} bytes comes in pieces")
            return codec.decode(frames[1:])
        transfer = first[1:9]
        if first[:1] == b"O" and len(frames) == 2 and len(transfer) == 8:
            self._open(transfer, first, frames[1])
        elif first[:1] == b"C" and len(frames) == 2 and len(first) == 13:
            return await self._piece(transfer, int.from_bytes(first[9:], "big"), frames[1])
        elif first[:1] == b"A" and len(frames) == 1 and len(first) == 13:
            if transfer in self._windows:
                self._windows[transfer].release()
        else:
            raise WireError("a wire message begins with M, O, C or A")
        return None

    def _open(self, transfer: bytes, first: bytes, header: Frame) -> None:
        if self._over:
            raise ConnectionLost("this connection is gone")
        self._drop_stale()
        if transfer in self._incoming or len(self._incoming) >= TRANSFERS:
            raise WireError(f"at most {TRANSFERS} large messages travel at a time on one connection")
        self._incoming[transfer] = self._opened(codec.read_header(header), first)
        self._sweep()

    async def _piece(self, transfer: bytes, index: int, data: Frame) -> tuple[Message, int] | None:
        found = self._incoming.get(transfer)
        if found is None:
            raise WireError("a piece of no open transfer")
        try:
            found.add(index, data)
        except WireError:
            self._drop(transfer)
            raise
        if found.complete:
            del self._incoming[transfer]
        with contextlib.suppress(ConnectionLost):
            await self._send([b"A" + transfer + found.count.to_bytes(4, "big")])
        return (found.header.message(found.payload), found.header.id) if found.complete and found.kept else None

    def let_go(self, id: int) -> None:
        """Keep nothing of the message with an id that is on its way: nobody waits for it any more."""
        for transfer in self._incoming.values():
            if transfer.header.id == id:
                transfer.let_go()

    def takes(self, id: int) -> bool:
        """Whether the message with an id is on its way, and kept."""
        return any(t.kept and t.header.id == id for t in self._incoming.values())

    def drop_all(self) -> None:
        """Drop all large messages that are on their way in."""
        for transfer in list(self._incoming):
            self._drop(transfer)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _drop(self, transfer: bytes) -> None:
        self._dropped(self._incoming.pop(transfer))

    def _drop_stale(self) -> None:
        now = time.monotonic()
        for key in [k for k, t in self._incoming.items() if now - t.touched > chunks.STALE_SECONDS]:
            self._drop(key)

    def _sweep(self) -> None:
        """Drop what does not go on, and look again while anything is on its way."""
        self._drop_stale()
        if self._sweeping is not None:
            self._sweeping.cancel()
        later = asyncio.get_running_loop().call_later
        self._sweeping = later(chunks.STALE_SECONDS / 4, self._sweep) if self._incoming else None


class Client:
    """The asking side of a connection: any number of requests at a time, each answered or failed.

    Lives on one event loop. A connection on which nothing comes for 6 to 8 s, though an answer is pending and the other side
    answers `alive`, is over: whoever waits hears of it, and asks again over another.
    """

    def __init__(self, transport: Transport, max_payload: int = 1 << 30) -> None:
        self._transport = transport
        self._places: dict[int, memoryview] = {}
        self._max_payload, self._buffers = max_payload, chunks.Buffers()
        self._endpoint = Endpoint(transport.send, self._opened)
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._awaited: dict[int, type[Message] | None] = {}
        self._heard = 0
        self._lively = False  # whether the other side answers `alive`; older owners don't
        self._reader = asyncio.get_running_loop().create_task(self._read())
        self._listener = asyncio.get_running_loop().create_task(self._listen())
        self.closed = False

    async def request(self, message: Message, timeout: float, into: memoryview | None = None) -> Message:
        """Send a message and wait for its reply; raises the error in a `Refused`, or ConnectionLost after ``timeout`` s.

        A large payload that is as long as ``into`` is received there, and is the reply's payload.
        """
        if self.closed:
            raise ConnectionLost("this connection is closed; connect again")
        id = next(self._ids)
        reply = self._pending[id] = asyncio.get_running_loop().create_future()
        self._awaited[id] = ANSWERS.get(type(message))
        if into is not None:
            self._places[id] = into
        try:
            async with asyncio.timeout(timeout):
                await self._put(message, id, reply)
                found: Message = await reply
        except TimeoutError:
            raise ConnectionLost(f"the owner did not answer within {timeout:g} s; ask again, or ask the owner") from None
        finally:
            self._pending.pop(id, None)
            self._places.pop(id, None)
            self._awaited.pop(id, None)
            self._endpoint.let_go(id)
        if isinstance(found, Refused):
            raise from_code(found.code, found.text)
        return found

    def _opened(self, header: codec.Header, first: bytes) -> chunks.Transfer:
        """How a large reply is taken in: one to each request, of the kind that answers it. Others are let pass, unkept: whoever
        asked may have stopped waiting."""  # noqa: D209
        awaited = header.id in self._pending and not self._pending[header.id].done() and not self._endpoint.takes(header.id)
        if awaited and header.kind is not self._awaited[header.id]:
            raise WireError(f"the owner answers with {header.kind.kind}, which is no answer to what was asked; tell the owner")
        into = self._places.pop(header.id, None) if awaited else None
        return chunks.Transfer(header, first, self._max_payload, self._buffers, into, kept=awaited)

    async def _put(self, message: Message, id: int, reply: asyncio.Future[Message]) -> None:
        """Send; a large message stops being sent once its reply, a refusal, is there."""
        if chunks.size_of(getattr(message, "payload", ())) <= chunks.PIECE:
            await self._endpoint.put(message, id)
            return
        sending = asyncio.ensure_future(self._endpoint.put(message, id))
        try:
            await asyncio.wait((sending, reply), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()

    def close(self) -> None:
        """End the connection; pending requests fail with ConnectionLost."""
        self._reader.cancel()
        self._end(ConnectionLost("the connection was closed while an answer was pending"))

    def _end(self, error: LabError) -> None:
        if self.closed:
            return
        self.closed = True
        if asyncio.current_task() is not self._listener:
            self._listener.cancel()
        self._transport.close()
        self._endpoint.end()
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(error)

    async def _read(self) -> None:
        try:
            while True:
                frames = await self._transport.receive()
                self._heard += 1
                if is_one(frames, ALIVE_TOO):
                    self._lively = True
                    continue
                found = await self._endpoint.take(frames)
                if found is not None:
                    reply = self._pending.get(found[1])
                    if reply is not None and not reply.done():
                        reply.set_result(found[0])
        except (ConnectionLost, WireError) as error:
            self._end(error)

    async def _listen(self) -> None:
        """While something is asked, ask for a sign of life; end the connection after `SILENT_ROUNDS` without any.

        Rounds are counted, not seconds: where a cell held up this loop, what came meanwhile is read before the next round.
        """
        silent = 0
        while not self.closed:
            before = self._heard
            if self._pending or not self._lively:
                with contextlib.suppress(TimeoutError, ConnectionLost):
                    async with asyncio.timeout(ALIVE_SECONDS):  # a link that is full can't take it
                        await self._transport.send([ALIVE])
            await asyncio.sleep(ALIVE_SECONDS)
            silent = silent + 1 if self._pending and self._heard == before else 0
            if silent >= SILENT_ROUNDS and self._lively:
                self._reader.cancel()
                seconds = SILENT_ROUNDS * ALIVE_SECONDS
                self._end(ConnectionLost(f"nothing came from the owner for {seconds:g} s while an answer was pending"))


def is_one(frames: Sequence[Frame], mark: bytes) -> bool:
    """Whether a wire message is this mark and nothing else."""
    return len(frames) == 1 and bytes(frames[0][: len(mark) + 1]) == mark


class Hub:
    """The serving side of many connections. ``handler(key, message)`` gives the reply or raises an error of the tree.

    ``may_carry(key, kind)`` gives the bytes of payload that a large message of a key may have, or raises the error that it is
    refused with; nothing is allocated before. Of all such messages a key has `HELD` bytes at most, from their opening until
    they are answered.
    """

    def __init__(self, handler: Handler, max_payload: int, may_carry: MayCarry = lambda key, kind: kind.max_payload) -> None:
        self._handler, self._may_carry = handler, may_carry
        self._max_payload, self._buffers = max_payload, chunks.Buffers()
        self._endpoints: dict[bytes, Endpoint] = {}
        self._in_hand: Counter[str] = Counter()
        self._room, self._unsent = Room(HELD, ALL_HELD), Room(HELD, ALL_HELD)
        self._tasks: set[asyncio.Task[None]] = set()

    def feed(self, connection: bytes, key: str, frames: Sequence[Frame], send: Send) -> None:
        """Take a wire message from ``connection``, whose other end holds ``key``. Call it on the event loop."""
        endpoint = self._endpoints.get(connection)
        if endpoint is None:
            if len(self._endpoints) >= CONNECTIONS:  # the oldest; a live one that lost a transfer is told so
                self._endpoints.pop(next(iter(self._endpoints))).drop_all()
            endpoint = self._endpoints[connection] = Endpoint(
                send, lambda header, first: self._opened(key, header, first), lambda t: self._room.free(key, t.size)
            )
        task = asyncio.get_running_loop().create_task(self._take(endpoint, key, frames))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _opened(self, key: str, header: codec.Header, first: bytes) -> chunks.Transfer:
        """Judge a large message by its header and sizes, and make room for it."""
        most = min(self._max_payload, self._may_carry(key, header.kind))
        transfer = chunks.Transfer(header, first, most, self._buffers)
        if not self._room.take(key, transfer.size):
            raise BusyError(f"the owner holds {self._room.of(key) >> 20} MiB of yours that it has not answered yet, and has no "
                            "room for more now; wait, then ask again")  # fmt: skip
        return transfer

    def drop(self, connection: bytes) -> None:
        """Forget a connection that is gone; what was being sent over it ends."""
        endpoint = self._endpoints.pop(connection, None)
        if endpoint is not None:
            endpoint.end()

    def drop_all(self) -> None:
        """Forget all connections."""
        for connection in list(self._endpoints):
            self.drop(connection)

    async def drain(self, timeout: float) -> None:
        """Wait until the requests in hand are answered, for ``timeout`` seconds at most; then cancel the rest."""
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=timeout)
            for task in left:
                task.cancel()

    async def _take(self, endpoint: Endpoint, key: str, frames: Sequence[Frame]) -> None:
        if is_one(frames, ALIVE):
            with contextlib.suppress(ConnectionLost):
                await endpoint.put_mark(ALIVE_TOO)
            return
        try:
            found = await endpoint.take(frames)
        except LabError as error:
            id = codec.id_of(frames[1]) if len(frames) > 1 else 0
            if id:
                await self._reply(endpoint, Refused(error.code, str(error)), id)
            return
        if found is None:
            return
        in_pieces = bytes(frames[0][:1]) == b"C"
        try:
            await self._serve(endpoint, key, *found)
        finally:
            if in_pieces:
                self._room.free(key, chunks.size_of(getattr(found[0], "payload", ())))

    async def _serve(self, endpoint: Endpoint, key: str, message: Message, id: int) -> None:
        if self._in_hand[key] >= IN_HAND or self._in_hand.total() >= IN_HAND_ALL:
            busy = f"the owner has {self._in_hand[key]} of your requests in hand; wait for their answers, then ask again"
            await self._reply(endpoint, Refused(BusyError.code, busy), id)
            return
        self._in_hand[key] += 1
        try:  # until the answer has left, so that nobody has more of them wait than they may ask for
            await self._send_answer(endpoint, key, await self._answer(key, message), id)
        finally:
            self._in_hand[key] -= 1
            if not self._in_hand[key]:
                del self._in_hand[key]

    async def _send_answer(self, endpoint: Endpoint, key: str, answer: Message, id: int) -> None:
        """Send an answer, which waits until the other side takes it; a large one, if there is room for it to wait.

        A key whose answers have all left may always have one.
        """
        size = chunks.size_of(getattr(answer, "payload", ()))
        if size <= chunks.PIECE:
            await self._reply(endpoint, answer, id)
        elif self._unsent.take(key, size, alone=True):
            try:
                await self._reply(endpoint, answer, id)
            finally:
                self._unsent.free(key, size)
        else:
            many = f"answers of {self._unsent.of(key) >> 20} MiB wait until you take them; then ask for this one again"
            await self._reply(endpoint, Refused(BusyError.code, many), id)

    async def _answer(self, key: str, message: Message) -> Message:
        try:
            return await self._handler(key, message)
        except LabError as error:
            return Refused(error.code, str(error)[:MAX_REFUSAL])
        except asyncio.CancelledError:
            raise
        except BaseException:
            # A fault of ours, or a panic in a library. Its text might hold anything: the other side learns that it was.
            return Refused(LabError.code, "the owner's service met a fault; nothing was released. Tell the owner")

    async def _reply(self, endpoint: Endpoint, reply: Message, id: int) -> None:
        # If whoever asked is gone, the answer is kept, and asking again gives it.
        with contextlib.suppress(ConnectionLost):
            try:
                await endpoint.put(reply, id)
            except WireError as error:  # too large to send; an asker who hears nothing would wait
                await endpoint.put(Refused(error.code, str(error)), id)


class MemoryTransport:
    """The in-memory twin: what a test connects to a `Hub` in place of a socket. Copies frames, as a socket would."""

    def __init__(self, hub: Hub, key: str) -> None:
        self._hub, self._key = hub, key
        self._name = os.urandom(8)
        self._inbox: asyncio.Queue[Sequence[Frame] | None] = asyncio.Queue()

    async def send(self, frames: list[Frame]) -> None:
        """Hand the frames to the hub."""
        self._hub.feed(self._name, self._key, [bytes(f) for f in frames], self._deliver)

    async def _deliver(self, frames: list[Frame]) -> None:
        self._inbox.put_nowait([bytes(f) for f in frames])

    async def receive(self) -> Sequence[Frame]:
        """The hub's next wire message."""
        found = await self._inbox.get()
        if found is None:
            raise ConnectionLost("the connection broke while an answer was pending")
        return found

    def close(self) -> None:
        """End the connection."""
        self._hub.drop(self._name)
        self._inbox.put_nowait(None)
