"""Handshakes: an owner who is too busy for one is told from another program and from another key."""

import asyncio
import threading
import time
from contextlib import contextmanager

import pytest

from syft_lab import errors
from syft_lab.identity import Keys
from syft_lab.wire import messages, sockets
from syft_lab.wire.link import Client, Hub
from syft_lab.wire.loop import LoopThread
from syft_lab.wire.zmq_link import ZmqServer, ZmqTransport

OWNER = Keys.generate()


async def pong(key, message):
    return messages.Pong()


@contextmanager
def listening(admits):
    """The port of an owner's socket on a loop of its own, which ``admits`` may hold up."""
    loop = LoopThread("owner")

    async def start():
        server = ZmqServer(OWNER, admits, Hub(pong, 1 << 20))
        return server, server.bind("127.0.0.1", 0)

    async def stop(server):
        server.close()

    server, port = loop.run(start(), 10)
    try:
        yield port
    finally:
        loop.run(stop(server), 20)
        loop.stop()


def connected(port, key, timeout):
    async def work():
        client = Client(await ZmqTransport.connect(f"127.0.0.1:{port}", key, Keys.generate(), timeout))
        try:
            return await client.request(messages.Ping(), 10)
        finally:
            client.close()

    return asyncio.run(work())


def test_an_owner_that_is_busy_for_a_while_is_tried_again(monkeypatch):
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 300)
    asked = []

    def admits(key):
        asked.append(key)
        if len(asked) <= 2:
            time.sleep(0.6)  # the owner's loop does nothing else
        return True

    with listening(admits) as port:
        assert isinstance(connected(port, OWNER.public.curve, 20), messages.Pong)
    assert len(asked) > 2


def test_an_owner_that_stays_busy_is_not_taken_for_another(monkeypatch):
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 300)
    free = threading.Event()
    with listening(lambda key: free.wait(20)) as port:
        start = time.monotonic()
        with pytest.raises(errors.UnreachableError, match="did not finish the handshake within 1 s: the owner is too busy"):
            connected(port, OWNER.public.curve, 1)
        assert time.monotonic() - start < 5
        free.set()


def test_another_key_is_seen_at_once():
    with listening(lambda key: True) as port, pytest.raises(errors.KeyMismatchError, match="not with the owner's key"):
        connected(port, Keys.generate().public.curve, 20)
