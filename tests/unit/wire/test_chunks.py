"""Large messages in pieces: whole again, or refused before anything is allocated."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syft_lab.errors import WireError
from syft_lab.wire import chunks, codec
from syft_lab.wire.messages import Hello, Ping

T = b"12345678"
PING = codec.read_header(codec.encode(Ping(), 5)[0])


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=5), st.integers(1, 9))
def test_a_payload_is_whole_again_after_its_pieces(payload, piece):
    original, chunks.PIECE = chunks.PIECE, piece
    try:
        transfer = chunks.Transfer(PING, chunks.opening(T, payload), 1 << 20, chunks.Buffers())
        for first, data in chunks.pieces(T, payload):
            assert not transfer.complete
            transfer.add(int.from_bytes(first[9:], "big"), data)
        assert transfer.complete
        assert [bytes(p) for p in transfer.payload] == payload
    finally:
        chunks.PIECE = original


def test_the_sum_of_sizes_is_judged_before_room_is_made():
    first = b"O" + T + (1 << 62).to_bytes(8, "big") + (1 << 20).to_bytes(8, "big")
    tracemalloc.start()
    with pytest.raises(WireError, match="larger than the limit"):
        chunks.Transfer(PING, first, 1 << 30, chunks.Buffers())
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()


def test_a_kind_without_payload_can_not_open_a_transfer():
    hello = codec.read_header(codec.encode(Hello([1], "x"), 1)[0])
    with pytest.raises(WireError, match="larger than the limit for hello"):
        chunks.Transfer(hello, chunks.opening(T, [b"x"]), 1 << 30, chunks.Buffers())


@pytest.mark.parametrize("first", [b"O" + T, b"O" + T + b"x" * 7, b"O" + T + bytes(8) * 33])
def test_odd_openings_are_refused(first):
    with pytest.raises(WireError, match="1 to 32 sizes"):
        chunks.Transfer(PING, first, 1 << 30, chunks.Buffers())


@pytest.mark.parametrize(("index", "data"), [(1, b"ab"), (0, b""), (0, b"abcde")])
def test_pieces_out_of_order_or_too_long_are_refused(index, data):
    transfer = chunks.Transfer(PING, chunks.opening(T, [b"abcd"]), 1 << 20, chunks.Buffers())
    with pytest.raises(WireError, match="out of order or too long"):
        transfer.add(index, data)


def test_a_piece_after_the_last_is_refused():
    transfer = chunks.Transfer(PING, chunks.opening(T, [b"ab"]), 1 << 20, chunks.Buffers())
    transfer.add(0, b"ab")
    with pytest.raises(WireError):
        transfer.add(1, b"c")


def test_a_payload_goes_straight_into_memory_that_waits_for_it():
    place = memoryview(bytearray(4))
    transfer = chunks.Transfer(PING, chunks.opening(T, [b"abcd"]), 1 << 20, chunks.Buffers(), place)
    transfer.add(0, b"abcd")
    assert transfer.payload[0] is place
    assert bytes(place) == b"abcd"


def test_memory_of_another_size_stays_as_it_is():
    place = memoryview(bytearray(3))
    transfer = chunks.Transfer(PING, chunks.opening(T, [b"abcd"]), 1 << 20, chunks.Buffers(), place)
    transfer.add(0, b"abcd")
    assert bytes(transfer.payload[0]) == b"abcd"
    assert bytes(place) == bytes(3)


def test_buffers_are_taken_again_once_nobody_holds_a_view_and_never_before():
    buffers = chunks.Buffers()
    first = buffers.take(buffers.SIZE)
    part = first[5:10]
    first[5:10] = b"alive"
    del first
    others = [buffers.take(buffers.SIZE) for _ in range(buffers.KEPT + 2)]
    for other in others:
        other[:10] = b"x" * 10
    assert bytes(part) == b"alive"
    places = {id(o.obj) for o in others}
    del part, other, others
    again = buffers.take(buffers.SIZE - 1)
    assert id(again.obj) in places | {id(k) for k in buffers._kept}
    assert len(buffers._kept) == buffers.KEPT
    assert again.nbytes == buffers.SIZE - 1


def test_nothing_is_allocated_before_a_piece_and_nothing_stays_of_what_is_let_go():
    transfer = chunks.Transfer(PING, chunks.opening(T, [b"abcd"]), 1 << 20, chunks.Buffers())
    assert not transfer._buffers
    transfer.add(0, b"ab")
    assert transfer._buffers
    transfer.let_go()
    transfer.add(1, b"cd")
    assert not transfer._buffers
    assert transfer.complete
