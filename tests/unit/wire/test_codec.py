"""Messages to frames and back, and nothing else: every odd frame is one WireError."""

import dataclasses

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.errors import WireError
from syft_lab.wire import codec
from syft_lab.wire.messages import KINDS, Hello, Message, Ping, Refused, Release, Table

BY_TYPE = {
    "str": st.text(max_size=20),
    "int": st.integers(-(2**63), 2**63 - 1),
    "bytes": st.binary(max_size=20),
    "list[int]": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    "list[bytes]": st.lists(st.binary(max_size=8), max_size=4),
}


def messages() -> st.SearchStrategy[Message]:
    def of(kind):
        fields = {f.name: BY_TYPE[str(f.type)] for f in dataclasses.fields(kind) if f.name != "payload"}
        if kind.max_payload:
            fields["payload"] = st.lists(st.binary(max_size=30), max_size=3)
        return st.builds(kind, **fields)

    return st.one_of([of(kind) for kind in KINDS.values()])


@given(messages(), st.integers(0, 2**63 - 1))
def test_every_message_comes_back_as_it_was(message, id):
    frames = [bytes(f) for f in codec.encode(message, id)]
    assert codec.decode(frames) == (message, id)


@given(messages(), st.data())
def test_truncated_and_flipped_frames_are_a_message_or_a_wire_error(message, data):
    header = bytearray(codec.encode(message, 7)[0])
    if data.draw(st.booleans()):
        del header[data.draw(st.integers(0, len(header) - 1)) :]
    else:
        header[data.draw(st.integers(0, len(header) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        codec.decode([bytes(header)])
    except WireError:
        codec.id_of(bytes(header))


@given(st.lists(st.binary(max_size=100), max_size=4))
def test_any_frames_are_a_message_or_a_wire_error(frames):
    try:
        codec.decode(frames)
    except WireError:
        pass


HELLO = {"versions": [1], "software": "x", "head": b""}


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd\xff\xff\xff\xff",  # an array that claims 2**32 - 1 items
        b"\x91" * 60_000 + b"\xc0",  # nested 60 000 deep
        b"\xc7\x08\x05" + b"x" * 8,  # an extension type
        b"\x81\x90\xc0",  # a map with a list as its key
        msgpack.packb([1, "hello", 1]),
        msgpack.packb([1, "hello", -1, HELLO]),
        msgpack.packb([True, "hello", 1, HELLO]),
        msgpack.packb(["1", "hello", 1, HELLO]),
        msgpack.packb([1, "no such kind", 1, {}]),
        msgpack.packb([1, ["hello"], 1, HELLO]),
        msgpack.packb([1, "hello", 1, {**HELLO, "more": 1}]),
        msgpack.packb([1, "hello", 1, {"versions": [1]}]),
        msgpack.packb([1, "hello", 1, {**HELLO, "versions": ["1"]}]),
        msgpack.packb([1, "hello", 1, {**HELLO, "versions": [True]}]),
        msgpack.packb([1, "hello", 1, {**HELLO, "head": "text"}]),
        msgpack.packb([1, "hello", 1, {**HELLO, "software": 1.5}]),
        msgpack.packb([1, "ping", 1, {"payload": []}]),
        b"\x00" * (codec.MAX_HEADER + 1),
    ],
)
def test_hostile_headers_are_refused(header):
    with pytest.raises(WireError):
        codec.decode([header])


def test_a_payload_that_the_kind_can_not_carry_is_refused():
    (header,) = codec.encode(Hello([1], "x"), 1)
    with pytest.raises(WireError, match="can't carry"):
        codec.decode([header, b"payload"])
    (header,) = codec.encode(Ping(), 1)
    with pytest.raises(WireError):
        codec.decode([header, *[b""] * (codec.MAX_FRAMES + 1)])
    with pytest.raises(WireError):
        codec.decode([])


def test_a_message_too_large_to_send_is_refused_before_it_is_sent():
    with pytest.raises(WireError, match="too large"):
        codec.encode(Refused("wire", "x" * (codec.MAX_HEADER + 1)), 1)
    with pytest.raises(WireError, match="too large"):
        codec.encode(Table([b""] * (codec.MAX_FRAMES + 1)), 1)


def test_the_id_of_a_refused_header_is_found_where_there_is_one():
    assert codec.id_of(msgpack.packb([9, "from the future", 42, {}])) == 42
    assert codec.id_of(msgpack.packb([9, "x", True, {}])) == 0
    assert codec.id_of(b"") == 0


def test_payload_is_not_copied_on_the_way_out():
    block = bytearray(100)
    assert codec.encode(Ping([block]), 1)[1] is block


def test_costs_travel_as_integers():
    message = Release("0" * 32, "d", 1, b"{}", 100_000, 0, 3)
    assert codec.decode(codec.encode(message, 1))[0] == message
