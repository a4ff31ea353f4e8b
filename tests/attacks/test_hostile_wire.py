"""Hostile bytes on a real socket: nothing crashes, leaks or allocates, and nobody gets in who should not."""

import os
import random
import socket
import time
from pathlib import Path

import msgpack
import pytest
import zmq

import syft_lab as lab
from syft_lab import canonical, errors
from syft_lab.identity import Invitation, Keys
from syft_lab.wire import chunks, codec
from syft_lab.wire import messages as m


class Raw:
    """A DEALER with any keys, for frames that our own client would never send."""

    def __init__(self, address, server_key, keys, identity=None):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 2000
        if identity:
            self.socket.identity = identity
        if keys is not None:
            self.socket.curve_serverkey = server_key.encode()
            self.socket.curve_publickey, self.socket.curve_secretkey = keys.public.curve.encode(), keys.curve_secret.encode()
        self.socket.connect(f"tcp://{address}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.context.term()

    def send(self, *frames):
        self.socket.send_multipart(list(frames))

    def ask(self, message, id=1):
        self.send(b"M", *codec.encode(message, id))
        return self.reply()

    def reply(self):
        first, *frames = self.socket.recv_multipart()
        assert first == b"M"
        return codec.decode(frames)[0]


@pytest.fixture
def raw(owner, session):
    """A raw socket with alice's keys."""
    with Raw(owner.address, owner.keys.public.curve, session._keys) as made:
        yield made


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hostile(draw):
    """One wire message of a fuzzer: plausible beginnings, hostile ends."""
    header = codec.encode(m.Release("0" * 32, "patients", 1, b"{}", 1, 0, 0), draw.randrange(1, 2**31))[0]
    flipped = bytearray(header)
    flipped[draw.randrange(len(flipped))] ^= draw.randrange(1, 256)
    big = codec.encode(m.Ping(), 5)[0]
    return draw.choice(
        [
            [draw.randbytes(draw.randrange(0, 60)) for _ in range(draw.randrange(1, 5))],
            [b"M", bytes(flipped)],
            [b"M", header[: draw.randrange(len(header))]],
            [b"M", header, draw.randbytes(50)],
            [b"M", b"\x91" * 5000],
            [b"M", b"\xdd\xff\xff\xff\xff"],
            [b"M", msgpack.packb([1, "hello", 1, {"versions": [2**63], "software": "x" * 60000, "head": b"["}])],
            [b"M", *[b""] * 60],
            [b"O" + draw.randbytes(8) + (2**63).to_bytes(8, "big"), big],
            [b"O" + draw.randbytes(8) + (1 << 20).to_bytes(8, "big"), big],
            [b"O" + draw.randbytes(8), big],
            [b"C" + draw.randbytes(12), draw.randbytes(100)],
            [b"A" + draw.randbytes(12)],
        ]
    )


def test_fuzzed_frames_never_crash_leak_or_allocate(owner, session, raw):
    draw = random.Random(11)
    spent = session.budget().spent
    session.ping()
    before = resident()
    for _ in range(4000):
        raw.send(*hostile(draw))
    assert raw_answers(raw)
    assert session.ping() > 0
    assert session["patients"].count().release(epsilon=0.1).value is not None
    assert session.budget().spent["clinic"] == pytest.approx(spent["clinic"] + 0.1)
    assert resident() - before < 150 << 20
    assert owner.audit.verify()


def raw_answers(raw):
    """Wait until the owner has worked through what was sent: it answers a ping with an id of its own."""
    raw.send(b"M", *codec.encode(m.Account(), 2**40))
    while True:
        first, *frames = raw.socket.recv_multipart()
        if first == b"M":
            message, id = codec.decode(frames)
            if id == 2**40:
                return isinstance(message, m.Accounts | m.Refused)


def test_claims_of_size_allocate_nothing(owner, session, raw):
    before = resident()
    ping = codec.encode(m.Ping(), 7)[0]
    for i in range(200):
        raw.send(b"O" + i.to_bytes(8, "big") + (1 << 30).to_bytes(8, "big"), ping)
    assert isinstance(raw.reply(), m.Refused)
    session.ping()
    assert resident() - before < 50 << 20


def test_only_who_may_compute_sends_large_messages_and_only_of_kinds_that_are_large(owner, session, raw):
    """Each key that was ever known is let in, to be told why it is refused: revoked, of an invitation, replaced."""

    def opens(one, message, size=2 << 20):
        one.send(b"O" + os.urandom(8) + size.to_bytes(8, "big"), codec.encode(message, 7)[0])
        return one.reply()

    put = m.Put("0" * 32, 1, 1, "uint8", [2 << 20], 0)
    assert "larger than the limit for ping" in opens(raw, m.Ping()).text
    assert "larger than the limit for put" in opens(raw, put, 9 << 20).text
    assert raw.ask(m.Ping([bytes(65 << 10)])).text == "a ping has at most 64 KiB"
    owner.invite("bob", budgets={"clinic": 1.0})
    guest = Keys(Invitation.read(Path("bob.syft")).secret, bytes(32))
    with Raw(owner.address, owner.keys.public.curve, guest) as one:
        assert opens(one, put).code == "invitation"
    hub = owner._service.hub
    raw.send(b"O" + os.urandom(8) + (2 << 20).to_bytes(8, "big"), codec.encode(put, 8)[0])
    key = session._keys.public.curve
    wait_until(lambda: hub._room.of(key) == 2 << 20)
    owner.revoke("alice")
    wait_until(lambda: hub._room.of(key) == 0)
    with Raw(owner.address, owner.keys.public.curve, session._keys) as one:
        assert "revoked" in opens(one, put).text


def wait_until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_frame_over_the_limit_ends_the_connection_and_only_that(owner, session, raw):
    raw.send(b"M", bytes(chunks.MAX_WIRE_FRAME + 1))
    assert session.ping() > 0


def test_a_replayed_release_is_answered_once_and_paid_once(owner, session, raw):
    query = session["patients"].count().query.canonical()
    message = m.Release("ab" * 16, "patients", 1, query, 100_000, 0, 0)
    answers = [raw.ask(message, id=i) for i in range(1, 6)]
    assert len({canonical.loads(bytes(a.payload[0]))["entry"] for a in answers}) == 1
    assert session.budget().spent == {"clinic": 0.1}
    changed = raw.ask(m.Release("ab" * 16, "patients", 1, query, 200_000, 0, 0))
    assert (changed.code, session.budget().spent) == ("usage", {"clinic": 0.1})


def test_another_analyst_can_not_replay_a_release(owner, session, raw):
    owner.invite("bob", budgets={"clinic": 1.0})
    query = session["patients"].count().query.canonical()
    message = m.Release("cd" * 16, "patients", 1, query, 100_000, 0, 0)
    raw.ask(message)
    bob = lab.connect("bob.syft", alias="as-bob")
    try:
        with pytest.raises(errors.UsageError, match="another question"):
            bob._ask(message, m.Released)
        assert bob.budget().spent == {"clinic": 0.0}
    finally:
        bob.close()


def test_who_names_its_own_connection_is_not_heard(owner, session):
    """Names of connections are libzmq's to give: an answer goes to nobody who chose another's, whoever that is."""
    owner.invite("bob")
    bob = lab.connect("bob.syft", alias="as-bob")
    bob.close()
    for keys in (session._keys, bob._keys):
        with Raw(owner.address, owner.keys.public.curve, keys, b"alice") as named:
            named.send(b"M", *codec.encode(m.Account(), 1))
            with pytest.raises(zmq.Again):
                named.reply()
    assert session.budget().spent == {"clinic": 0.0}


@pytest.mark.parametrize("keys", [None, Keys.generate()], ids=["no CURVE", "unknown key"])
def test_who_is_not_known_gets_no_answer(owner, keys):
    with Raw(owner.address, owner.keys.public.curve, keys) as stranger:
        stranger.send(b"M", *codec.encode(m.Datasets(), 1))
        with pytest.raises(zmq.Again):
            stranger.reply()


def test_plain_tcp_rubbish_and_silence_disturb_nobody(owner, session):
    host, port = owner.address.split(":")
    draw = random.Random(3)
    held = []
    for i in range(40):
        rubbish = socket.create_connection((host, int(port)))
        held.append(rubbish)
        if i % 2:
            rubbish.sendall(draw.randbytes(200))
    assert session.ping() > 0
    for rubbish in held:
        rubbish.close()


def test_an_invitations_key_can_enrol_and_nothing_else(owner, home):
    invitation = Invitation.read(home / "alice.syft")
    once = Keys(invitation.secret, bytes(32))
    query = b'{"aggregate":"count","by":[],"filter":null,"value":null}'
    with Raw(owner.address, invitation.curve, once) as guest:
        for message in (
            m.Hello([1], "x"), m.Ping(), m.Datasets(), m.Mock("patients", 1), m.Account(), m.Price("patients", 1, query, 1, 0),
            m.Release("0" * 32, "patients", 1, query, 1, 0, 0), m.Rotate("x" * 40, "0" * 64, b"", b""),
        ):  # fmt: skip
            assert guest.ask(message).code == "invitation"
        assert guest.ask(m.Enrol([1], "x", "x" * 40, "0" * 64, b"")).code == "invitation"
        keys = Keys.generate()
        stolen = keys.sign("enrol", b"something else")
        assert guest.ask(m.Enrol([1], "x", keys.public.curve, keys.public.signing, stolen)).code == "invitation"
        assert guest.ask(m.Enrol([1], "x", "nonsense", "0" * 64, b"")).code == "wire"
    assert owner.enrolled == []


def test_a_rotation_without_both_signatures_is_refused(owner, session, raw):
    keys = Keys.generate()
    for signature in (b"", keys.sign("rotate", b"x")):
        assert raw.ask(m.Rotate(keys.public.curve, keys.public.signing, signature, signature)).code == "key"
    assert session.ping() > 0


def test_messages_that_only_an_owner_sends_are_refused(owner, raw):
    for message in (m.Welcome(1, b"", b"", []), m.Refused("x", "y"), m.Released(), m.Pong()):
        assert raw.ask(message).code == "wire"


def test_a_malformed_head_in_hello_is_refused_and_suspends_nothing(owner, session, raw):
    for head in (
        b"{",
        b"[]",
        b'{"root":"x","signature":"","size":1,"time":""}',
        b'{"root":"00","signature":"","size":-1,"time":""}',
    ):
        assert raw.ask(m.Hello([1], "x", head)).code == "wire"
    forged = b'{"root":"' + b"00" * 32 + b'","signature":"' + b"00" * 64 + b'","size":99,"time":"2030"}'
    assert raw.ask(m.Hello([1], "x", forged)).code == "key"
    assert not owner.suspended
