"""Waiting in words: counts of what is done, and the wait itself, which is that of a future."""

import threading
from concurrent.futures import Future

import pytest

from syft_lab.analyst import progress
from syft_lab.analyst.progress import Work, watched
from syft_lab.errors import FailedError


def test_what_is_done_is_counted_from_where_a_wait_began():
    work = Work()
    early = work.ask(1000, 0)
    early(None)
    start = work.operations_done, work.bytes_done
    first, _ = work.ask(3000, 0), work.ask(2000, 64_000_000)
    assert work.since(*start) == "0 of 5,000 operations, 0 of 64 MB"
    first(None)
    assert work.since(*start) == "3,000 of 5,000 operations, 0 of 64 MB"
    assert Work().since(0, 0) == ""


@pytest.fixture
def said(monkeypatch):
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.01)
    monkeypatch.setattr(progress, "EVERY", 0.01)
    lines = []
    monkeypatch.setattr(progress._Line, "say", lambda self, text: lines.append(text))
    return lines


def test_a_wait_gives_the_result_or_the_error_or_ends(said):
    done, broken, never = Future(), Future(), Future()
    done.set_result(7)
    broken.set_exception(FailedError("no"))
    assert watched(done, 1, "a", Work()) == 7
    with pytest.raises(FailedError, match="no"):
        watched(broken, 1, "a", Work())
    with pytest.raises(TimeoutError):
        watched(never, 0.1, "a", Work())
    assert said
    assert said[0].startswith("a: working, ")


def test_a_future_that_failed_with_a_timeout_of_its_own_is_not_waited_for(said):
    broken = Future()
    broken.set_exception(TimeoutError("theirs"))
    with pytest.raises(TimeoutError, match="theirs"):
        watched(broken, 60, "a", Work())


def test_what_comes_while_it_is_said_how_far_it_is_is_not_lost(said, monkeypatch):
    future, work = Future(), Work()
    done = work.ask(10, 0)
    monkeypatch.setattr(progress._Line, "say", lambda self, text: (said.append(text), future.done() or future.set_result(1)))
    assert watched(future, 60, "alice", work) == 1
    assert said[0].startswith("alice: 0 of 10 operations, ")
    done(None)


def test_without_a_notebook_or_in_a_thread_nothing_is_shown():
    line = progress._Line()
    line.say("x")
    line.close()
    assert line._handle is None
    other = progress._Line()
    thread = threading.Thread(target=lambda: other.say("x"))
    thread.start()
    thread.join()
    assert other._shown == ""
