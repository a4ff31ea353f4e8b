"""What an analyst hears of a turn in which owners fail: who left for a reason tells it later than the partner that missed it."""

import time
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

from syft_lab import errors
from syft_lab.analyst import shared
from syft_lab.wire import messages as m
from syft_lab.wire.loop import LoopThread

GONE = errors.PartnerGoneError("bob is gone; the run ended")
ASKED = errors.PartnerError("alice was asked something else than this party; the run ended")


@pytest.fixture
def turn():
    """A turn at three owners, and the futures of their replies."""
    loop = LoopThread("test")
    session = SimpleNamespace(loop=loop.loop)
    lanes = [SimpleNamespace(owner=name, session=session) for name in ("alice", "bob", "carol")]
    ended = []
    joint = shared._Joint(SimpleNamespace(lanes=lanes, end=ended.append), [m.Leave("ab" * 16)] * 3, [], (0, 0))
    replies = [Future() for _ in lanes]
    for index, reply in enumerate(replies):
        reply.add_done_callback(lambda f, i=index: joint.heard(i, f))
    yield joint, replies, ended
    loop.stop()


def test_the_reason_is_told_though_another_owner_missed_its_partner_first(turn):
    joint, replies, ended = turn
    replies[0].set_exception(GONE)
    assert not joint.future.done()
    replies[1].set_exception(ASKED)
    with pytest.raises(errors.PartnerError, match="bob: alice was asked something else") as told:
        joint.future.result(5)
    assert not isinstance(told.value, errors.PartnerGoneError)
    assert "something else" in str(ended[0])


def test_where_nobody_knows_more_the_loss_is_told_soon(turn, monkeypatch):
    monkeypatch.setattr(shared, "WORD_SECONDS", 0.2)
    joint, replies, _ = turn
    began = time.monotonic()
    replies[0].set_exception(GONE)
    with pytest.raises(errors.PartnerGoneError, match="alice: bob is gone"):
        joint.future.result(5)
    assert time.monotonic() - began < 4


def test_when_all_have_spoken_nobody_waits(turn, monkeypatch):
    monkeypatch.setattr(shared, "WORD_SECONDS", 600)
    joint, replies, _ = turn
    replies[0].set_exception(GONE)
    replies[1].set_result((m.Ran(b""), None))
    replies[2].set_exception(GONE)
    with pytest.raises(errors.PartnerGoneError, match="alice: bob is gone"):
        joint.future.result(5)
