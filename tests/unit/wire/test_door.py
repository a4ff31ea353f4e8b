"""The door by itself, with real sockets; with owners and analysts: tests/attacks/test_network.py."""

import contextlib
import socket

import pytest
import zmq

from syft_lab.wire import door, numbers


@pytest.fixture
def alone():
    """A door that nobody runs, and a way to let somebody in."""
    context = zmq.Context()
    router, issued = numbers.numbered_router(context)
    router.bind("tcp://127.0.0.1:*")
    kernel = context.socket(zmq.PAIR)
    kernel.bind("inproc://kernel")
    made = door.Door(context, router, issued, kernel, 4096, [])
    with contextlib.ExitStack() as ends:

        def let_in(key):
            here, there = map(ends.enter_context, socket.socketpair())
            there.setblocking(False)
            return made._new(bytes([made._numbers]), made._numbers, key, here.fileno(), 0.0), there

        yield made, let_in
        router.disable_monitor()
    context.destroy(linger=0)


def unread(made, connection, size):
    """What a connection was answered, and did not read: its frame is still here."""
    connection.held = zmq.Frame(b"x" * 70_000, track=True, copy=False, copy_threshold=0), getattr(connection, "held", None)
    connection.unread.append((connection.held[0].tracker, size))
    made._unread[connection.key] += size
    made._check_unread(connection.key)


def is_cut_off(end):
    try:
        return end.recv(1) == b""
    except BlockingIOError:
        return False


def test_answers_of_all_that_nobody_reads_are_bounded_and_who_has_the_most_goes(alone):
    made, let_in = alone
    (deaf, deaf_end), *others = [let_in(key) for key in ("deaf", "slow", "slower", "quick")]
    size = door.ALL_UNREAD // 4 - 1
    for connection, _ in others[:2]:
        unread(made, connection, size)
    unread(made, deaf, size + 4)
    assert made._held == {"deaf", "slow", "slower"}
    unread(made, others[2][0], size)
    assert not is_cut_off(deaf_end)
    unread(made, others[2][0], 100)
    assert [is_cut_off(end) for _, end in others] == [False, False, True]
    assert not is_cut_off(deaf_end)
    unread(made, others[0][0], size + 100)
    assert [is_cut_off(end) for _, end in others] == [True, False, True]


def test_what_was_read_since_counts_no_more(alone):
    made, let_in = alone
    (slow, slow_end), (quick, quick_end) = let_in("slow"), let_in("quick")
    done = zmq.MessageTracker()
    assert done.done
    quick.unread.append((done, door.ALL_UNREAD))
    made._unread["quick"] += door.ALL_UNREAD
    unread(made, slow, 100)
    assert not is_cut_off(quick_end)
    assert not is_cut_off(slow_end)
    assert made._unread == {"slow": 100, "quick": 0}
