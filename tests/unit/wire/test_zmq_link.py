"""Handshakes: an owner who is too busy for one is told from another program and from another key. The door comes, dies and goes."""

import asyncio
import os
import signal
import subprocess
import sys
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

OWNER, ANALYST = Keys.generate(), Keys.generate()


async def pong(key, message):
    return messages.Pong()


@contextmanager
def listening(admits=lambda: [ANALYST.public.curve], handler=pong):
    """An owner's socket on a loop of its own: the loop, the server and its port."""
    loop = LoopThread("owner")

    async def start():
        server = ZmqServer(OWNER, admits, Hub(handler, 1 << 20))
        return server, await server.bind("127.0.0.1", 0)

    async def stop(server):
        server.close()

    server, port = loop.run(start(), 30)
    try:
        yield loop, server, port
    finally:
        loop.run(stop(server), 20)
        loop.stop()


def connected(port, timeout, key=OWNER.public.curve, keys=ANALYST):
    async def work():
        client = Client(await ZmqTransport.connect(f"127.0.0.1:{port}", key, keys, timeout))
        try:
            return await client.request(messages.Ping(), 10)
        finally:
            client.close()

    return asyncio.run(work())


def test_an_owner_that_is_busy_for_a_while_is_tried_again(monkeypatch):
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 300)
    with listening() as (_, server, port):
        os.kill(server.door, signal.SIGSTOP)  # nobody answers the handshake
        later = threading.Timer(1.0, os.kill, (server.door, signal.SIGCONT))
        later.start()
        start = time.monotonic()
        assert isinstance(connected(port, 20), messages.Pong)
        assert time.monotonic() - start > 0.9
        later.join()


def test_an_owner_that_stays_busy_is_not_taken_for_another(monkeypatch):
    monkeypatch.setattr(sockets, "HANDSHAKE_MS", 300)
    with listening() as (_, server, port):
        os.kill(server.door, signal.SIGSTOP)
        start = time.monotonic()
        try:
            with pytest.raises(errors.UnreachableError, match="did not finish the handshake within 1 s: the owner is too busy"):
                connected(port, 1)
        finally:
            os.kill(server.door, signal.SIGCONT)
        assert time.monotonic() - start < 5


def test_another_key_is_seen_at_once():
    start = time.monotonic()
    with listening() as (_, _, port), pytest.raises(errors.KeyMismatchError, match="not with the owner's key, or .* flooded"):
        connected(port, 20, Keys.generate().public.curve)
    assert time.monotonic() - start < 8


def test_who_is_cut_off_early_some_times_tries_again(monkeypatch):
    cuts = iter([True] * 5)
    shakes = ZmqTransport._shakes_hands

    async def cut(transport):
        transport._cut_early = next(cuts, False)
        return False if transport._cut_early else await shakes(transport)

    monkeypatch.setattr(ZmqTransport, "_shakes_hands", cut)
    with listening() as (_, _, port):
        connected(port, 20)
    assert next(cuts, None) is None


def test_a_key_that_the_owner_does_not_know_shakes_no_hands():
    with listening() as (_, _, port), pytest.raises(errors.KeyMismatchError, match="does not know this machine's key"):
        connected(port, 20, keys=Keys.generate())


def test_a_key_is_let_in_once_the_owner_knows_it():
    known = []
    with listening(lambda: list(known)) as (loop, server, port):
        known.append(ANALYST.public.curve)
        loop.run(server.told(), 10)
        assert isinstance(connected(port, 20), messages.Pong)


def test_a_door_that_dies_is_replaced_at_the_same_port():
    with listening() as (_, server, port):
        first = server.door
        os.kill(first, signal.SIGKILL)
        end = time.monotonic() + 30
        while True:
            try:
                assert isinstance(connected(port, 5), messages.Pong)
                break
            except errors.ConnectError:
                assert time.monotonic() < end
        assert server.door != first


def test_no_key_of_the_owner_shows_in_arguments_or_environment():
    with listening() as (_, server, _):
        for what in ("cmdline", "environ"):
            with open(f"/proc/{server.door}/{what}") as shown:
                assert OWNER.curve_secret not in shown.read()


# An owner that is killed while another child of it, which was forked, keeps the door's standard input open.
KILLED = """
import asyncio, os, signal, time
from syft_lab.identity import Keys
from syft_lab.wire.link import Hub
from syft_lab.wire.zmq_link import ZmqServer

async def main():
    server = ZmqServer(Keys.generate(), list, Hub.__new__(Hub))
    await server.bind("127.0.0.1", 0)
    other = os.fork()
    if not other:
        time.sleep(60)
        os._exit(0)
    print(server.door, other, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_the_door_ends_with_its_owner():
    with subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED], stdout=subprocess.PIPE) as owner:
        door, other = map(int, owner.stdout.readline().split())
    os.kill(other, 0)
    try:
        end = time.monotonic() + 10
        while os.path.exists(f"/proc/{door}"):
            assert time.monotonic() < end
            time.sleep(0.02)
    finally:
        os.kill(other, signal.SIGKILL)
