"""The wire: a ping without journal, and 100 MB there and back, against bare CURVE sockets in the same run."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import zmq

import syft_lab as lab
from benchmarks.measure import Row, interleaved, process
from syft_lab.identity import Keys
from syft_lab.wire.link import Client, Hub
from syft_lab.wire.loop import LoopThread
from syft_lab.wire.messages import Message, Ping, Pong
from syft_lab.wire.zmq_link import ZmqServer, ZmqTransport

SIZE = 100_000_000
PIECE = 8 << 20  # what the baseline sends at a time


def serve_ours(pipe, secret: str, admitted: str) -> None:
    """Our server, echoing: the protocol at link level, no service behind it."""

    async def echo(key: str, message: Message) -> Message:
        return Pong(message.payload)

    async def main() -> None:
        server = ZmqServer(Keys(secret, bytes(32)), lambda: [admitted], Hub(echo, 1 << 30))
        pipe.send(await server.bind("127.0.0.1", 0))
        await asyncio.Event().wait()

    asyncio.run(main())


def serve_owner(pipe, home: str) -> None:
    """A whole owner: the ping goes through registry and service."""
    os.environ["SYFT_LAB_HOME"] = home
    owner = lab.Owner.start("hospital-a")
    owner.invite("alice", path=Path(home) / "alice.syft")
    pipe.send("ready")
    pipe.recv()


def serve_bare(pipe, secret: str) -> None:
    """Bare CURVE: small messages come straight back; large ones are put into one buffer, then sent back in chunks."""
    router = zmq.Context().socket(zmq.ROUTER)
    router.curve_server = True
    router.curve_secretkey = secret.encode()
    pipe.send(router.bind_to_random_port("tcp://127.0.0.1"))
    buffer = bytearray(SIZE)
    while True:
        name, data = router.recv_multipart(copy=False)
        if len(data) < 1000:
            router.send_multipart([name, data], copy=False)
        else:
            receive_into(buffer, data, lambda: router.recv_multipart(copy=False)[1])
            for piece in cut(buffer):
                router.send_multipart([name, piece], copy=False)


def cut(buffer: bytearray) -> Iterator[memoryview]:
    view = memoryview(buffer)
    return (view[i : i + PIECE] for i in range(0, len(buffer), PIECE))


def receive_into(buffer: bytearray, first, receive) -> None:
    view, at, data = memoryview(buffer), 0, first
    while True:
        view[at : at + len(data)] = data.buffer
        at += len(data)
        if at == len(buffer):
            return
        data = receive()


def run(rounds: int = 1) -> list[Row]:
    owner, analyst = Keys.generate(), Keys.generate()
    with (
        tempfile.TemporaryDirectory() as home,
        process(serve_owner, home),
        process(serve_ours, owner.curve_secret, analyst.public.curve) as port,
        process(serve_bare, owner.curve_secret) as bare_port,
    ):
        os.environ["SYFT_LAB_HOME"] = home
        session = lab.connect(f"{home}/alice.syft")
        loop = LoopThread("bench")

        async def connect() -> Client:
            return Client(await ZmqTransport.connect(f"127.0.0.1:{port}", owner.public.curve, analyst, 5))

        client = loop.run(connect(), 10)
        context = zmq.Context()
        bare = context.socket(zmq.DEALER)
        bare.curve_serverkey = owner.public.curve.encode()
        bare.curve_publickey, bare.curve_secretkey = analyst.public.curve.encode(), analyst.curve_secret.encode()
        bare.connect(f"tcp://127.0.0.1:{bare_port}")

        def bare_ping() -> None:
            bare.send(b"x" * 40)
            bare.recv()

        ours, baseline = interleaved(session.ping, bare_ping, 3000 * rounds, 300)
        rows = [Row("session.ping(), no journal", ours * 1e3, baseline * 1e3, "ms", "bare CURVE round trip",
                    "2 messages encrypted, sent, decrypted: ~0.11 ms", "≤ 4× bare", ours <= 4 * baseline)]  # fmt: skip
        block, buffer = bytearray(os.urandom(SIZE)), bytearray(SIZE)

        def echo() -> None:
            answer = loop.run(client.request(Ping([block]), 60), 60)
            assert len(answer.payload[0]) == SIZE

        def bare_echo() -> None:
            for piece in cut(block):
                bare.send(piece, copy=False)
            receive_into(buffer, bare.recv(copy=False), lambda: bare.recv(copy=False))

        ours, baseline = (2 * SIZE / 1e6 / t for t in interleaved(echo, bare_echo, 9 * rounds, 2))
        rows.append(Row("100 MB there and back", ours, baseline, "MB/s", "the same 8 MiB chunks, bare CURVE, into one buffer",
                        "200 MB encrypted and decrypted once each way", "≥ 0.8× bare", ours >= 0.8 * baseline))  # fmt: skip
        assert buffer == block
        session.close()
        loop.run(_close(client), 5)
        loop.stop()
        bare.close(linger=0)
        context.term()
    return rows


async def _close(client: Client) -> None:
    client.close()
