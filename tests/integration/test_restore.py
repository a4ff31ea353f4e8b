"""An old copy of the state folder is a rolled-back budget: it is noticed, nothing is released, and the owner decides."""

import shutil

import pytest

import syft_lab as lab
from syft_lab import errors


@pytest.fixture
def rolled_back(owner, session, home):
    """An owner running on a copy from before alice's last questions; alice has moved on."""
    folder = home / "state" / "owners" / "hospital-a"
    session["patients"].count().release(epsilon=0.1)
    owner.stop()
    shutil.copytree(folder, home / "backup")
    with_more = lab.Owner.start("hospital-a")
    session["patients"].age.sum().release(epsilon=0.5)
    with_more.stop()
    shutil.rmtree(folder)
    shutil.copytree(home / "backup", folder)
    restored = lab.Owner.start("hospital-a")
    yield restored
    restored.stop()


def test_the_analyst_notices_and_nothing_is_released_to_anybody(rolled_back, session):
    rolled_back.invite("bob", budgets={"clinic": 1.0})
    with lab.connect("bob.syft", alias="as-bob") as bob:
        assert bob["patients"].count().release(epsilon=0.1).value is not None  # nobody showed a newer head yet
        session.reconnect()
        assert "older than the one it signed for you" in session.warning
        assert "older than the one it signed for you" in repr(session)
        for someone in (session, bob):
            for question in (someone["patients"].age.mean(), someone["patients"].count()):  # new, and answered before
                with pytest.raises(errors.SuspendedError, match="owner has to confirm"):
                    question.release(epsilon=0.1)
    assert rolled_back.suspended
    assert "nothing is released until" in repr(rolled_back)
    assert "SUSPENDED" in repr(rolled_back.console.card())
    assert rolled_back.audit.verify()


def test_connecting_again_does_not_fill_the_journal(rolled_back, session):
    for _ in range(3):
        session.reconnect()
    assert list(rolled_back.audit.log().kind).count("suspended") == 1


def test_suspension_survives_a_restart(rolled_back, session):
    session.reconnect()
    rolled_back.stop()
    again = lab.Owner.start("hospital-a")
    try:
        assert again.suspended
        with pytest.raises(errors.SuspendedError):
            session["patients"].age.mean().release(epsilon=0.1)
    finally:
        again.stop()


def test_confirming_counts_what_was_lost_and_is_journaled_and_shown(rolled_back, session):
    session.reconnect()
    rolled_back.confirm_restore(lost={"clinic": 0.5})
    assert not rolled_back.suspended
    session.reconnect()
    assert "restored an older copy" in session.warning
    assert session["patients"].age.mean().release(epsilon=0.1).value is not None
    session.reconnect()
    assert session.warning == ""  # told once; from here on the new journal is the one held
    gauge = rolled_back.budgets.gauges[0]
    assert gauge.spent == pytest.approx(0.1 + 0.5 + 0.1)
    assert "restored" in set(rolled_back.audit.log().kind)
    assert rolled_back.audit.verify()


def test_what_the_owner_does_not_name_counts_as_all_spent(rolled_back, session):
    session.reconnect()
    rolled_back.confirm_restore()
    session.reconnect()
    with pytest.raises(errors.BudgetError):
        session["patients"].age.mean().release(epsilon=0.001)


def test_another_analyst_of_the_lost_time_is_covered_by_the_same_confirmation(owner, session, home):
    owner.invite("bob", budgets={"clinic": 1.0})
    folder = home / "state" / "owners" / "hospital-a"
    with lab.connect("bob.syft", alias="as-bob") as bob:
        owner.stop()
        shutil.copytree(folder, home / "backup")
        ahead = lab.Owner.start("hospital-a")
        for someone in (session, bob):
            someone["patients"].count().release(epsilon=0.1)
        ahead.stop()
        shutil.rmtree(folder)
        shutil.copytree(home / "backup", folder)
        restored = lab.Owner.start("hospital-a")
        try:
            session.reconnect()
            restored.confirm_restore(lost={"clinic": 0.2})
            bob.reconnect()
            assert "restored an older copy" in bob.warning
            assert not restored.suspended
        finally:
            restored.stop()


def test_an_owner_that_goes_on_without_a_confirmation_is_caught_by_the_analyst(rolled_back, session, monkeypatch):
    """A dishonest owner, whose service does not suspend: the analyst's side does not take its releases."""
    monkeypatch.setattr(type(rolled_back._service), "_explain", lambda self, analyst, held: [])
    session.reconnect()
    assert "older than the one" in session.warning
    with pytest.raises(errors.VerificationError, match="does not continue"):
        session["patients"].age.mean().release(epsilon=0.1)


def test_a_head_of_another_owner_is_refused(owner, session, home):
    from syft_lab.identity import Keys
    from syft_lab.receipt import Head

    head = Head(99, "00" * 32, "2026-01-01T00:00:00+00:00", "")
    signature = Keys.generate().sign("head", head.signed_part()).hex()
    session._trust = type(session._trust)(**{**session._trust.__dict__, "head": {**head.to_json(), "signature": signature}})
    with pytest.raises(errors.KeyMismatchError, match="not this owner's"):
        session.reconnect()
    assert not owner.suspended
