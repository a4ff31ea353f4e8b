"""A request's life: seen, expired, comments, what follows what, batches, notifications, a clock that tests control."""

import hashlib
import hmac
import http.server
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest

import syft_lab as lab
from syft_lab import errors
from syft_lab.kernel.executor import levels

from .deciding import approved, cell, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]


class Clock:
    """A clock for an owner; it goes when it is told to."""

    def __init__(self, owner):
        self.now = datetime.now(UTC)
        owner._journal.clock = lambda: self.now

    def go(self, **time):
        self.now += timedelta(**time)


def test_the_analyst_reads_that_it_was_seen(owner, session):
    asked = session.file(cell())
    assert asked.state == "filed"
    owner.requests[0].seen().seen()
    assert [r.state for r in session.requests] == ["seen"]
    assert "seen by the owner" in asked.progress
    assert [e.kind for e in owner._journal.entries()].count("seen") == 1
    approved(owner, 1)
    assert owner.requests[0].seen().state == "review"  # too late to matter


def test_comments_go_both_ways_also_after_the_end(owner, session):
    asked = session.file(cell())
    owner.requests[0].comment("Which study is this for?")
    asked.comment("study 12; the reason says so")
    assert [(c["by"], c["text"][:5]) for c in owner.requests[0].comments] == [("owner", "Which"), ("alice", "study")]
    owner.requests[0].deny("no such study")
    asked.comment("it is in the register since today")
    assert [c["by"] for c in asked.comments] == ["owner", "alice", "alice"]
    assert owner.requests[0].state == "denied"
    for bad in ("", "  ", "x" * 2001):
        with pytest.raises(errors.UsageError, match="1 to 2000"):
            asked.comment(bad)
    assert "which study" in repr(owner.requests[0]).lower()
    assert owner.audit.verify()


def test_a_comment_after_a_release_leaves_the_result_where_it_was(owner, session):
    asked = session.file(cell())
    approved(owner, 1).release()
    owner.requests[0].comment("you are welcome")
    asked.comment("thanks")
    assert asked.results["m"].get(20) > 0


def test_nobody_comments_on_what_is_anothers(owner, session):
    asked = session.file(cell())
    owner.invite("bob")
    with lab.connect("bob.syft", alias="bobs") as bob, pytest.raises(errors.UsageError, match="no request"):
        bob._filed.comment(asked, "hello")


def test_what_is_filed_again_is_linked_to_what_fell(owner, session):
    session.file(cell("m = patients.age.max()"))
    owner.requests[0].deny("a maximum is one person's value")
    second = session.file(cell("m = patients.age.quantile(0.9)"))
    assert second.follows == 1
    other = session.file(cell("n = 1", ("n",)))
    assert other.follows is None
    third = session.file(cell("k = 1", ("k",)), follows=3)
    assert third.follows == 3
    request = until(owner, 2, "checked")
    assert request.follows == 1
    assert request.earlier["against"] == 1
    assert "-m = patients.age.max()" in request.earlier["diff"]
    assert "+m = patients.age.quantile(0.9)" in request.earlier["diff"]
    with pytest.raises(errors.UsageError, match="no request 99"):
        session.file(cell(), follows=99)
    owner.invite("bob")
    with lab.connect("bob.syft", alias="bobs") as bob, pytest.raises(errors.UsageError, match="no request 1"):
        bob.file(cell(), follows=1)


def test_a_batch_is_approved_by_digests_and_one_wrong_stops_all(owner, session):
    asked = [session.file(cell(f"m = patients.age.sum() * {i}")) for i in range(4)]
    digests = {r.number: r.digest for r in asked}
    with pytest.raises(errors.UsageError, match="nothing was approved"):
        owner.requests.approve({**digests, 3: digests[2]})
    assert {r.state for r in owner.requests} <= {"filed", "seen"}
    assert set(owner.requests.approve({n: digests[n] for n in (1, 2)})) == {1, 2}
    assert owner.requests.deny([3, 4], "twice is enough") == {3: "denied", 4: "denied"}
    for n in (1, 2):
        until(owner, n, "review")


def test_what_nobody_decides_expires(owner, session):
    clock = Clock(owner)
    waiting, running = session.file(cell()), session.file(cell("m = 2"))
    approved(owner, 2)
    clock.go(days=29)
    assert owner._desk.expire() == 0
    late = session.file(cell("m = 3"))
    clock.go(days=2)
    assert owner._desk.expire() == 1
    assert [r.state for r in session.requests] == ["expired", "review", "filed"]
    with pytest.raises(errors.RefusedError, match="nobody decided within 30 days"):
        waiting.results["m"].get(20)
    with pytest.raises(errors.UsageError, match="can't be approved"):
        owner.requests.number(1).approve(digest=waiting.digest)
    owner.requests.expire_after = "1d"
    assert owner._desk.expire() == 1
    assert late.number == 3
    assert running.number == 2
    assert owner.requests.number(2).state == "review"
    assert owner.audit.verify()


def test_twenty_four_hours_of_quotas_windows_and_expiry(owner, session):
    """A day in steps of ten minutes: the daily quota, the opening hours and the rule's end each bite when they should."""
    owner.policy.remove(1)
    clock = Clock(owner)
    clock.now = datetime(2030, 1, 1, tzinfo=UTC)  # beyond what was journaled before
    owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.001, hours="08:00-18:00", expires="1d")
    day = owner.policy.allow("dp", dataset="patients", epsilon_per_query=0.0001, times=3, per="6h")
    rows, got = session["patients"], {}
    for step in range(24 * 6 + 12):
        for epsilon in (0.001, 0.0001):
            try:
                rows[rows.age > step % 90].count().release(epsilon=epsilon * (1 - step / 1e4)).get(20)
                got.setdefault(epsilon, []).append(step)
            except errors.RefusedError as refused:
                assert "no policy" in str(refused)
        clock.go(minutes=10)
    assert got[0.001] == list(range(48, 108))  # 8 to 18 o'clock, and not on the next day
    by_day = [step for step in got[0.0001] if not 48 <= step < 108]  # in between the older rule lets it
    assert by_day == [0, 1, 2, 36, 37, 38, 108, 109, 110, 144, 145, 146]  # three in any six hours
    assert owner.policy._book.history.uses(day.id) == len(by_day)
    assert owner.audit.verify()


def test_a_clock_that_is_set_back_extends_nothing(owner, session):
    clock = Clock(owner)
    start = clock.now
    clock.go(days=40)
    session.file(cell())
    clock.now = start
    session.file(cell("m = 2"))
    times = [e.time for e in owner._journal.entries()]
    assert times == sorted(times)
    assert owner._journal.now() >= start + timedelta(days=40)


class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((body, self.headers["X-Syft-Signature"]))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()
        self.server.came.set()

    def log_message(self, *_):
        pass


@pytest.fixture
def hook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.heard, server.answers, server.came = [], [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_webhook_hears_numbers_and_states_and_nothing_else(owner, session, hook):
    owner.notify(f"http://127.0.0.1:{hook.server_port}/hook?token=t", secret="s3")
    hook.answers = [503]  # tried again
    session.file(cell("m = 'secret code'.__len__()", reason="a secret reason"))
    owner.requests[0].deny("a secret answer")
    for _ in range(100):
        if len(hook.heard) >= 3:
            break
        hook.came.wait(5)
        hook.came.clear()
    states = [json.loads(body)["state"] for body, _ in hook.heard]
    assert states == ["filed", "filed", "denied"]
    for body, signature in hook.heard:
        assert set(json.loads(body)) == {"owner", "request", "analyst", "state"}
        assert b"secret" not in body
        assert signature == "sha256=" + hmac.new(b"s3", body, hashlib.sha256).hexdigest()
    assert (owner._folder / "webhook.json").stat().st_mode & 0o077 == 0
    assert "token" not in json.dumps([e.body for e in owner._journal.entries()])
    owner.notify(None)
    session.file(cell("m = 1"))
    assert not (owner._folder / "webhook.json").exists()
    for bad in ("ftp://x", "localhost:1", "file:///etc/passwd", ""):
        with pytest.raises(errors.UsageError, match="https://"):
            owner.notify(bad)


def test_a_webhook_that_is_gone_holds_nothing_up(owner, session):
    owner.notify("http://127.0.0.1:9/")
    asked = session.file(cell())
    approved(owner, 1).release()
    assert asked.results["m"].get(20) > 0


def test_a_stopped_owner_leaves_no_thread_behind(home):
    before = set(threading.enumerate())
    for _ in range(2):
        owner = lab.Owner.start("brief")
        assert owner.inbox is owner.inbox
        assert owner.gauge is not None
        owner.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread
