"""libzmq's numbers begin where nobody can know, and what a peer brought is told from what libzmq gave."""

import pytest
import zmq

from syft_lab.wire import numbers
from syft_lab.wire.numbers import Numbers, numbered_router


def routing(number):
    return b"\0" + (number % (1 << 32)).to_bytes(4, "big")


def test_only_ids_that_were_given_have_a_place():
    issued = Numbers(0xFFFF_FFFE)
    issued.most = 3
    assert [issued.place(routing(0xFFFF_FFFE + i)) for i in range(5)] == [None, 1, 2, 3, None]
    for brought in (b"", b"twin", b"\1abcd", b"\0abc", b"\0abcde"):
        assert issued.place(brought) is None


def test_each_router_begins_to_count_elsewhere():
    begun = set()
    for _ in range(3):
        with zmq.Context() as context:
            router, issued = numbered_router(context)
            with router, context.socket(zmq.DEALER) as peer:
                peer.linger = 0
                router.rcvtimeo = 5000
                port = router.bind_to_random_port("tcp://127.0.0.1")
                peer.connect(f"tcp://127.0.0.1:{port}")
                peer.send(b"")
                given, _ = router.recv_multipart()
                issued.most = 1
                assert issued.place(given) == 1
                begun.add(given)
    assert len(begun) == 3


def test_a_libzmq_that_counts_from_elsewhere_is_not_used(monkeypatch):
    monkeypatch.setattr(numbers, "_given", lambda context, router: routing(0x6B8B4567))
    with zmq.Context() as context, pytest.raises(RuntimeError, match="numbers connections in a way"):
        numbered_router(context)
