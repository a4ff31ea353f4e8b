"""What one key may do: buckets, and queues whose keys take turns."""

import pytest

from syft_lab.wire.rates import Bucket, Room, Turns, Waiting


def test_a_bucket_gives_a_burst_and_then_its_rate():
    bucket = Bucket(2.0, 3)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait(10.0) == pytest.approx(0.5)
    assert bucket.take(10.5)
    assert not bucket.take(10.6)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_is_set_back_gives_nothing_away():
    bucket = Bucket(1.0, 1)
    assert bucket.take(10.0)
    assert not bucket.take(3.0)


def served(turns, count, now=0.0, held=()):
    order = []
    for _ in range(count):
        message, pause = turns.next(now, held)
        if message is None:
            return order, pause
        turns.done(message, now)
        order.append(message.frames)
    return order, 0.0


def test_keys_take_turns_however_much_one_of_them_sends():
    turns = Turns(100.0, 100)
    for i in range(5):
        turns.add(Waiting("a", 1, f"a{i}", 10))
    turns.add(Waiting("b", 2, "b0", 10))
    assert served(turns, 10)[0] == ["a0", "b0", "a1", "a2", "a3", "a4"]
    assert (turns.bytes, turns.of("a")) == (0, 0)


def test_who_passes_its_rate_waits_and_others_do_not():
    turns = Turns(10.0, 2)
    for i in range(4):
        turns.add(Waiting("a", 1, f"a{i}", 10))
    turns.add(Waiting("b", 2, "b0", 10))
    order, pause = served(turns, 10)
    assert order == ["a0", "b0", "a1"]
    assert pause == pytest.approx(0.1)
    assert served(turns, 10, now=0.1)[0] == ["a2"]


def test_keys_that_are_held_have_no_turn():
    turns = Turns(100.0, 100)
    turns.add(Waiting("a", 1, "a0", 10))
    assert served(turns, 2, held={"a"}) == ([], 0.0)
    assert served(turns, 2) == (["a0"], 0.0)


def test_what_came_over_a_connection_that_is_gone_waits_no_more():
    turns = Turns(100.0, 100)
    for connection, size in ((1, 10), (2, 30), (1, 10), (3, 25)):
        turns.add(Waiting("a" if connection < 3 else "b", connection, f"{connection}", size))
    assert turns.heaviest([1, 2]) == 2
    assert turns.heaviest([1, 3]) == 3
    turns.drop(2)
    turns.drop(2)
    assert (turns.bytes, turns.of("a"), turns.of("b")) == (45, 20, 25)
    assert sorted(served(turns, 10)[0]) == ["1", "1", "3"]
    assert turns.heaviest_key() is None


def test_the_heaviest_key_is_that_with_the_most_over_all_its_connections():
    turns = Turns(100.0, 100)
    for connection in range(8):
        turns.add(Waiting("many", connection, "m", 10))
    turns.add(Waiting("one", 8, "o", 40))
    assert turns.heaviest_key() == "many"


def test_a_bucket_gives_amounts_and_says_how_long_a_large_one_waits():
    bucket = Bucket(10.0, 100)
    assert bucket.take(0.0, 90)
    assert not bucket.take(0.0, 30)
    assert bucket.wait(0.0, 30) == pytest.approx(2.0)
    assert bucket.take(2.0, 30)


def test_room_is_bounded_for_a_key_and_for_all_and_comes_back():
    room = Room(10, 15)
    assert room.take("a", 6)
    assert not room.take("a", 6)
    assert room.take("b", 9)
    assert not room.take("c", 1)
    assert room.take("c", 100, alone=True)
    assert not room.take("c", 1, alone=True)
    room.free("c", 100)
    room.free("b", 9)
    assert (room.of("a"), room.of("b")) == (6, 0)
    assert room.take("a", 4)
