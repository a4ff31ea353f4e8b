"""Asking and serving over the in-memory twin: the same code as over sockets, without one."""

import asyncio
import os
import time

import pytest

from syft_lab.errors import BudgetError, BusyError, ConnectionLost, LabError, RefusedError, WireError
from syft_lab.wire import chunks, codec, link
from syft_lab.wire.link import Client, Hub, MemoryTransport
from syft_lab.wire.messages import ANSWERS, KINDS, Account, Accounts, Collected, Datasets, Ping, Pong, Refused


async def echo(key, message):
    if isinstance(message, Ping):
        return Pong(message.payload)
    if isinstance(message, Account):
        return Accounts(key.encode())
    raise BudgetError("nothing left")


def run(work):
    return asyncio.run(asyncio.wait_for(work, 30))


def test_a_request_is_answered_and_the_key_is_the_transports():
    async def work():
        client = Client(MemoryTransport(Hub(echo, 1 << 20), "alice's key"))
        assert await client.request(Account(), 5) == Accounts(b"alice's key")
        client.close()

    run(work())


def test_errors_of_the_tree_travel_by_code():
    async def work():
        client = Client(MemoryTransport(Hub(echo, 1 << 20), "k"))
        with pytest.raises(BudgetError, match="nothing left"):
            await client.request(Datasets(), 5)
        client.close()

    run(work())


def test_a_fault_in_the_handler_says_nothing_of_itself():
    async def broken(key, message):
        raise ValueError("patient 17 is 42 years old")

    async def work():
        client = Client(MemoryTransport(Hub(broken, 1 << 20), "k"))
        with pytest.raises(LabError) as caught:
            await client.request(Ping(), 5)
        assert "17" not in str(caught.value)
        client.close()

    run(work())


def test_an_answer_too_large_to_send_is_told_and_a_long_refusal_is_cut():
    async def too_large(key, message):
        if isinstance(message, Ping):
            raise BudgetError("x" * 10**6)
        return Accounts(bytes(codec.MAX_HEADER + 1))

    async def work():
        client = Client(MemoryTransport(Hub(too_large, 1 << 20), "k"))
        with pytest.raises(WireError, match="too large"):
            await client.request(Account(), 5)
        with pytest.raises(BudgetError, match="^x{4000}$"):
            await client.request(Ping(), 5)
        client.close()

    run(work())


def test_large_messages_go_in_pieces_both_ways():
    async def work():
        client = Client(MemoryTransport(Hub(echo, 1 << 30), "k"))
        blocks = [bytes([i]) * (chunks.PIECE + i) for i in (1, 2)]
        answer = await client.request(Ping([*blocks, b"", b"tail"]), 20)
        assert [bytes(b) for b in answer.payload] == [*blocks, b"", b"tail"]
        client.close()

    run(work())


def test_a_payload_over_the_servers_limit_is_refused_and_the_link_lives_on():
    async def work():
        client = Client(MemoryTransport(Hub(echo, 1 << 20), "k"))
        with pytest.raises(WireError, match="larger than the limit"):
            await client.request(Ping([bytes(chunks.PIECE * (chunks.WINDOW + 2))]), 5)
        assert await client.request(Ping(), 5) == Pong([])
        client.close()

    run(work())


def test_many_requests_at_a_time_each_get_their_own_answer():
    async def work():
        client = Client(MemoryTransport(Hub(echo, 1 << 20), "k"))
        asked = [client.request(Ping([str(i).encode()]), 5) for i in range(link.IN_HAND)]
        answers = await asyncio.gather(*asked)
        assert [bytes(a.payload[0]) for a in answers] == [str(i).encode() for i in range(link.IN_HAND)]
        client.close()

    run(work())


def test_beyond_the_limit_of_requests_in_hand_the_owner_is_busy():
    async def work():
        release = asyncio.Event()

        async def slow(key, message):
            await release.wait()
            return Pong(())

        hub = Hub(slow, 1 << 20)
        client, other = (Client(MemoryTransport(hub, k)) for k in ("greedy", "modest"))
        asked = [asyncio.create_task(client.request(Ping(), 10)) for _ in range(link.IN_HAND + 5)]
        refused = 0
        while refused < 5:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            refused = sum(isinstance(t.exception(), BusyError) for t in done)
            await asyncio.sleep(0)
        theirs = asyncio.create_task(other.request(Ping(), 10))
        release.set()
        assert await theirs == Pong([])
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(r, Pong) for r in results) == link.IN_HAND
        client.close()
        other.close()

    run(work())


def test_no_answer_is_an_error_after_the_timeout_and_closing_fails_what_is_pending():
    async def never(key, message):
        await asyncio.Event().wait()

    async def work():
        client = Client(MemoryTransport(Hub(never, 1 << 20), "k"))
        with pytest.raises(ConnectionLost, match="within 0.05 s"):
            await client.request(Ping(), 0.05)
        pending = asyncio.create_task(client.request(Ping(), 10))
        await asyncio.sleep(0)
        client.close()
        with pytest.raises(ConnectionLost):
            await pending
        with pytest.raises(ConnectionLost, match="connect again"):
            await client.request(Ping(), 10)

    run(work())


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"M"],
        [b"Z", b"x"],
        [b"C" + bytes(8) + bytes(4), b"data"],
        [b"O" + bytes(8), b"not a header"],
        [b"A" + bytes(12)],
        [b"A" + bytes(8)],
        [b"M", b"\x91" * 1000],
        [b"M", *[b"x"] * 50],
    ],
)
def test_odd_wire_messages_are_dropped_and_the_link_lives_on(frames):
    async def work():
        transport = MemoryTransport(Hub(echo, 1 << 20), "k")
        client = Client(transport)
        await transport.send(frames)
        assert await client.request(Ping(), 5) == Pong([])
        client.close()

    run(work())


def test_a_header_from_the_future_is_told_to_its_asker():
    async def work():
        hub, answers = Hub(echo, 1 << 20), asyncio.Queue()

        async def deliver(frames):
            answers.put_nowait(frames)

        header = bytearray(codec.encode(Ping(), 77)[0]).replace(b"ping", b"pang")
        hub.feed(b"c", "k", [b"M", bytes(header)], deliver)
        reply, id = codec.decode((await answers.get())[1:])
        assert (reply.code, id) == ("wire", 77)

    run(work())


def test_only_so_many_transfers_are_open_at_a_time():
    async def work():
        hub, answers = Hub(echo, 1 << 30), asyncio.Queue()

        async def deliver(frames):
            answers.put_nowait(frames)

        header = codec.encode(Ping(), 9)[0]
        for i in range(link.TRANSFERS + 1):
            hub.feed(b"c", "k", [chunks.opening(bytes([i]) * 8, [bytes(10)]), header], deliver)
        reply, _ = codec.decode((await answers.get())[1:])
        assert "at a time" in reply.text

    run(work())


def test_the_hub_forgets_the_oldest_of_too_many_connections(monkeypatch):
    monkeypatch.setattr(link, "CONNECTIONS", 3)

    async def work():
        hub = Hub(echo, 1 << 20)
        clients = [Client(MemoryTransport(hub, str(i))) for i in range(6)]
        for client in clients:
            assert await client.request(Ping(), 5) == Pong([])
        assert len(hub._endpoints) <= 3
        assert await clients[0].request(Ping(), 5) == Pong([])
        for client in clients:
            client.close()

    run(work())


def test_many_large_answers_to_small_questions_travel_on_one_connection(monkeypatch):
    monkeypatch.setattr(chunks, "PIECE", 1 << 10)
    size, count = (chunks.WINDOW + 8) * chunks.PIECE, link.IN_HAND  # each waits for the other side in its middle

    async def large(key, message):
        return Pong([bytes([len(message.payload[0])]) * size])

    async def work():
        client = Client(MemoryTransport(Hub(large, 1 << 30), "k"))
        answers = await asyncio.gather(*[client.request(Ping([bytes(i)]), 25) for i in range(count)])
        assert [a.payload[0][0] for a in answers] == list(range(count))
        client.close()

    run(work())


def test_a_large_answer_is_received_where_its_asker_wants_it():
    async def work():
        client = Client(MemoryTransport(Hub(echo, 1 << 30), "k"))
        block = os.urandom(3 * chunks.PIECE)
        place = memoryview(bytearray(len(block)))
        answer = await client.request(Ping([block]), 20, place)
        assert answer.payload[0] is place
        assert bytes(place) == block
        small = await client.request(Ping([b"small"]), 20, place)
        assert bytes(small.payload[0]) == b"small"
        assert bytes(place) == block
        client.close()

    run(work())


def test_an_owner_that_answers_twice_writes_once_into_what_its_asker_holds():
    async def work():
        done = asyncio.Event()
        transport = MemoryTransport(Hub(echo, 1 << 30), "k")
        client = Client(transport)
        size = 2 * chunks.PIECE
        place = memoryview(bytearray(size))

        async def send(frames):  # in place of the honest hub
            if frames[0] == b"M":
                id = codec.decode(frames[1:])[1]
                header = codec.encode(Pong(), id)[0]
                for name in (b"first---", b"second--"):
                    await transport._deliver([chunks.opening(name, [bytes(size)]), header])
                for index in range(2):
                    await transport._deliver([b"C" + b"first---" + index.to_bytes(4, "big"), b"1" * chunks.PIECE])
                for index in range(2):
                    await transport._deliver([b"C" + b"second--" + index.to_bytes(4, "big"), b"2" * chunks.PIECE])
            elif frames[0][:9] == b"Asecond--" and frames[0][9:] == (2).to_bytes(4, "big"):
                done.set()

        client._endpoint._send = send
        await client.request(Ping(), 10, place)
        await asyncio.wait_for(done.wait(), 10)
        assert bytes(place) == b"1" * size
        client.close()

    run(work())


class Deaf(MemoryTransport):
    """A link that goes quiet once ``still`` is set: nothing comes, and nothing breaks."""

    still = False

    async def send(self, frames):
        if not self.still:
            await super().send(frames)


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(link, "ALIVE_SECONDS", 0.02)


def test_a_link_that_stands_still_is_over_after_some_rounds(quickly):
    async def work():
        transport = Deaf(Hub(echo, 1 << 20), "k")
        client = Client(transport)
        await client.request(Ping(), 5)
        while not client._lively:
            await asyncio.sleep(0)
        transport.still = True
        with pytest.raises(ConnectionLost, match="nothing came from the owner"):
            await client.request(Ping(), 25)
        assert client.closed

    run(work())


def test_a_long_answer_of_an_owner_who_is_alive_is_waited_for(quickly):
    async def slow(key, message):
        await asyncio.sleep(20 * link.ALIVE_SECONDS)
        return Pong(())

    async def work():
        client = Client(MemoryTransport(Hub(slow, 1 << 20), "k"))
        assert await client.request(Ping(), 25) == Pong([])
        client.close()

    run(work())


def test_a_loop_that_was_held_up_ends_no_link(quickly):
    async def work():
        answer = asyncio.Event()

        async def slow(key, message):
            await answer.wait()
            return Pong(())

        client = Client(MemoryTransport(Hub(slow, 1 << 20), "k"))
        pending = asyncio.create_task(client.request(Ping(), 25))
        while not client._lively:
            await asyncio.sleep(0)
        time.sleep(2 * link.SILENT_ROUNDS * link.ALIVE_SECONDS)  # a cell that keeps the interpreter's lock
        await asyncio.sleep(2 * link.ALIVE_SECONDS)
        answer.set()
        assert await pending == Pong([])
        client.close()

    run(work())


class Older(MemoryTransport):
    """A link to an owner of an older version, which drops what it does not know."""

    async def send(self, frames):
        if frames[0] != link.ALIVE:
            await super().send(frames)


def test_an_owner_of_an_older_version_that_knows_no_alive_is_waited_for(quickly):
    async def slow(key, message):
        await asyncio.sleep(20 * link.ALIVE_SECONDS)
        return Pong(())

    async def work():
        client = Client(Older(Hub(slow, 1 << 20), "k"))
        assert await client.request(Ping(), 25) == Pong([])
        client.close()

    run(work())


def opened(id, size, kind=None, name=None):
    header = codec.encode(kind or Ping(), id)[0]
    return [b"O" + (name or os.urandom(8)) + size.to_bytes(8, "big"), header]


def fed(hub, connection=b"c", key="k"):
    """What sends to a hub as a peer would that keeps to nothing, and the replies."""
    answers = asyncio.Queue()

    async def deliver(frames):
        if frames[0] == b"M":
            answers.put_nowait(codec.decode(frames[1:])[0])

    return (lambda frames: hub.feed(connection, key, frames, deliver)), answers


def test_a_key_that_may_not_is_told_why_before_anything_of_its_message_is_taken_in():
    def may(key, kind):
        raise RefusedError("the owner has revoked your access")

    async def work():
        hub = Hub(echo, 1 << 30, may)
        send, answers = fed(hub)
        send(opened(1, 15 << 20, name=b"transfer"))
        send([b"C" + b"transfer" + bytes(4), bytes(1 << 20)])
        assert (await answers.get()).text == "the owner has revoked your access"
        assert not hub._endpoints[b"c"]._incoming
        assert hub._room.of("k") == 0

    run(work())


def test_a_kind_that_may_carry_less_here_is_refused_and_a_whole_message_has_one_mib():
    async def work():
        send, answers = fed(Hub(echo, 1 << 30, lambda key, kind: 0))
        send(opened(1, 2 << 20))
        assert "larger than the limit for ping" in (await answers.get()).text
        send([b"M", codec.encode(Ping(), 2)[0], bytes(chunks.PIECE), b"x"])
        assert "comes in pieces" in (await answers.get()).text

    run(work())


def test_large_messages_of_a_key_are_bounded_over_its_connections_and_those_of_all_keys(monkeypatch):
    monkeypatch.setattr(link, "HELD", 10 << 20)
    monkeypatch.setattr(link, "ALL_HELD", 15 << 20)

    async def work():
        hub = Hub(echo, 1 << 30)
        (one, told), (two, told_too) = fed(hub, b"1"), fed(hub, b"2")
        one(opened(1, 6 << 20))
        two(opened(2, 6 << 20))
        assert (await told_too.get()).code == "busy"
        other, told_other = fed(hub, b"3", "other")
        other(opened(3, 10 << 20))
        assert (await told_other.get()).code == "busy"
        hub.drop(b"1")
        two(opened(4, 6 << 20))
        other(opened(5, 8 << 20))
        await asyncio.sleep(0.01)
        assert (hub._room.of("k"), hub._room.of("other")) == (6 << 20, 8 << 20)
        assert told.empty()
        hub.drop_all()
        assert hub._room.of("k") == hub._room.of("other") == 0

    run(work())


def test_what_came_over_a_connection_that_is_gone_takes_no_room():
    async def work():
        hub = Hub(echo, 1 << 30)
        send, _ = fed(hub)
        send(opened(1, 6 << 20))
        hub.drop(b"c")  # before the message had its turn
        await asyncio.sleep(0.01)
        assert hub._room.of("k") == 0

    run(work())


def test_a_message_takes_room_until_it_is_answered(monkeypatch):
    monkeypatch.setattr(chunks, "PIECE", 1 << 10)

    async def work():
        answer = asyncio.Event()

        async def slow(key, message):
            await answer.wait()
            return Pong(())

        hub = Hub(slow, 1 << 20)
        client = Client(MemoryTransport(hub, "k"))
        asked = asyncio.create_task(client.request(Ping([bytes(3 << 10)]), 20))
        while not hub._in_hand["k"]:
            await asyncio.sleep(0)
        assert hub._room.of("k") == 3 << 10
        answer.set()
        await asked
        await asyncio.sleep(0.01)
        assert hub._room.of("k") == 0
        client.close()

    run(work())


def test_a_message_that_does_not_go_on_is_dropped_though_nothing_else_comes(monkeypatch):
    monkeypatch.setattr(chunks, "STALE_SECONDS", 0.05)

    async def work():
        hub = Hub(echo, 1 << 30)
        send, _ = fed(hub)
        send(opened(1, 6 << 20))
        await asyncio.sleep(0.02)
        assert hub._room.of("k") == 6 << 20
        await asyncio.sleep(0.3)
        assert hub._room.of("k") == 0
        assert not hub._endpoints[b"c"]._incoming

    run(work())


@pytest.mark.parametrize("asked", ["never", "before"])
def test_a_large_reply_that_nobody_waits_for_is_let_pass_and_kept_by_nobody(monkeypatch, asked):
    async def work():
        transport = MemoryTransport(Hub(echo, 1 << 30), "k")
        client = Client(transport)
        await client.request(Ping(), 10)
        id, name = {"never": 1000, "before": 1}[asked], b"transfer"
        sent = []

        async def send(frames):
            sent.append(frames[0])

        client._endpoint._send = send
        await transport._deliver(opened(id, 3 << 20, Pong(), name))
        for index in range(2):
            await transport._deliver([b"C" + name + index.to_bytes(4, "big"), bytes(1 << 20)])
        while len(sent) < 2:  # the sender goes on: an honest owner's answer came too late
            await asyncio.sleep(0)
        (passing,) = client._endpoint._incoming.values()
        assert not passing.kept
        assert not passing._buffers
        assert not client.closed
        client.close()

    run(work())


def test_a_reply_that_is_given_up_is_kept_no_longer_and_one_of_another_kind_ends_the_link():
    async def silent(key, message):
        await asyncio.Event().wait()

    async def work():
        transport = MemoryTransport(Hub(silent, 1 << 30), "k")
        client = Client(transport)
        asked = asyncio.create_task(client.request(Ping(), 10))
        await asyncio.sleep(0)
        await transport._deliver(opened(1, 3 << 20, Pong(), b"transfer"))
        await transport._deliver([b"C" + b"transfer" + bytes(4), bytes(1 << 20)])
        while not (client._endpoint._incoming and client._endpoint._incoming[b"transfer"].count):
            await asyncio.sleep(0)
        assert client._endpoint._incoming[b"transfer"]._buffers
        asked.cancel()
        await asyncio.wait([asked])
        assert not client._endpoint._incoming[b"transfer"]._buffers
        asked = asyncio.create_task(client.request(Ping(), 10))
        await asyncio.sleep(0)
        await transport._deliver(opened(2, 1 << 30, Collected()))
        with pytest.raises(WireError, match="no answer to what was asked"):
            await asked
        assert client.closed

    run(work())


def test_every_message_to_an_owner_has_the_kind_of_its_answer():
    answers = set(ANSWERS.values()) | {Refused}
    assert set(ANSWERS) == set(KINDS.values()) - answers


def test_large_answers_of_a_key_wait_in_so_much_memory_and_no_more(monkeypatch):
    monkeypatch.setattr(link, "HELD", 10 << 20)

    async def large(key, message):
        return Pong([bytes(6 << 20)])

    async def work():
        hub = Hub(large, 1 << 30)
        send, answers = fed(hub)  # whose other end acknowledges no piece
        for id in (1, 2):
            send([b"M", codec.encode(Ping(), id)[0]])
        assert (await answers.get()).code == "busy"
        assert hub._unsent.of("k") == 6 << 20
        hub.drop(b"c")
        await asyncio.sleep(0.01)
        assert hub._unsent.of("k") == 0

    run(work())
