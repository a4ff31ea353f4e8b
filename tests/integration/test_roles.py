"""Roles: each right does what it says, and without it the same is refused. Approvals by two; nobody approves their own."""

import threading

import pytest

import syft_lab as lab
from syft_lab import canonical, errors
from syft_lab.expr import Query
from syft_lab.kernel.executor import levels
from syft_lab.kernel.roles import RIGHTS, ROLES
from syft_lab.wire import messages as m

from .deciding import approved, cell, person, until

pytestmark = [
    pytest.mark.skipif(levels.probe().name == "L0", reason=f"no walls on this machine: {levels.probe()}"),
    pytest.mark.usefixtures("warm"),
]

COUNT = Query("count").canonical()


def manage(session, **action):
    reply = session._ask(m.Manage(canonical.dumps(action)), m.Managed)
    return canonical.loads(bytes(reply.payload[0]), limit=1 << 26)


# What each right lets somebody do, straight on the wire: past our own client, which would not ask.
USES = {
    "mock": lambda s, r: s._ask(m.Mock("patients", 1), m.Table),
    "ask": lambda s, r: s._ask(m.Price("patients", 1, COUNT, 1000, 0), m.Priced),
    "file": lambda s, r: s.file(cell("m = 2")),
    "read": lambda s, r: manage(s, do="list"),
    "approve": lambda s, r: manage(s, do="approve", request=str(r.number), digest=r.digest),
    "log": lambda s, r: s._ask(m.Log(0), m.Logged),
}


@pytest.mark.parametrize("right", list(RIGHTS))
def test_a_right_lets_and_its_absence_refuses(owner, session, right):
    """One role with everything but this right, one with this right (and what it needs): the same message both times."""
    request = session.file(cell())
    owner.define_role("all-but", [r for r in RIGHTS if r != right and not (right == "read" and r == "approve")])
    owner.define_role("only", [right] + (["read"] if right == "approve" else []))
    with person(owner, "max", "all-but") as without, pytest.raises(errors.RefusedError, match="ask the owner"):
        USES[right](without, request)
    assert owner.requests.number(request.number).state in ("filed", "seen")
    with person(owner, "ona", "only") as having:
        USES[right](having, request)
    assert owner.audit.verify()


def test_roles_have_the_rights_that_the_page_says():
    assert set(RIGHTS) == set(USES)
    assert ROLES == {
        "analyst": ("mock", "ask", "file"), "guest": ("mock",), "steward": ("mock", "read", "approve"), "auditor": ("read", "log"),
    }  # fmt: skip


def test_a_steward_approves_and_never_sees_or_releases_a_result(owner, session):
    asked = session.file(cell("m = patients.age.max() + 0.125"))
    until(owner, 1, "checked")
    with person(owner, "sam", "steward") as steward:
        request = steward.inbox[0]
        assert request.state == "seen"
        assert "patients.age.max" in request.code
        assert "on the mock" in repr(request)
        assert "a maximum is one person's value" in repr(request)
        assert "sam" not in request._repr_html_() or request._repr_html_()
        with pytest.raises(errors.UsageError, match="another digest"):
            request.approve(digest="sha256:" + "0" * 64)
        request.comment("which study is it?")
        request.approve(digest=request.digest)
        until(owner, 1, "review")
        value = str(owner.requests.number(1).result["m"])
        shown = manage(steward, do="show", request="1")
        assert "preview" not in shown
        assert "private" not in shown
        assert value not in str(shown)
        for do in ("release", "withhold", "preview", "cancel", "drop", "release_error"):
            with pytest.raises(errors.RefusedError, match="only the owner does"):
                manage(steward, do=do, request="1")
        with pytest.raises(errors.RefusedError, match="may not file code"):
            steward.file(cell())
        with pytest.raises(errors.RefusedError, match="may not read the journal"):
            steward.audit.verify()
    owner.requests.number(1).release()
    assert asked.results["m"].receipt.details["approved"] == ["sam"]
    assert [c["by"] for c in asked.comments] == ["sam"]


def test_an_auditor_reads_everything_but_data_and_changes_nothing(owner, session):
    asked = session.file(cell("m = patients.age.max() + 0.125"))
    approved(owner, 1).release()
    value = asked.results["m"].get(20)
    with person(owner, "ada", "auditor", datasets=[]) as auditor:
        assert auditor.audit.verify().size == len(owner._journal)
        assert {"filed", "approved", "exact"} <= set(auditor.audit.log()["kind"])
        assert "Request 1 from alice" in auditor.audit.report()
        assert auditor.inbox[0].state == "released"
        everything = auditor.audit.export("study.jsonl").read_text()
        assert str(value) not in everything
        assert auditor.datasets == []
        for refused in (
            lambda: auditor.inbox[0].approve(digest=asked.digest),
            lambda: auditor.inbox[0].deny("no"),
            lambda: auditor._ask(m.Mock("patients", 1), m.Table),
            lambda: auditor._ask(m.Collect(asked.id, 0), m.Collected),
        ):
            with pytest.raises((errors.RefusedError, errors.UsageError)):
                refused()


def test_two_different_people_must_approve(owner, session):
    owner.approvals = 2
    asked = session.file(cell())
    mine = owner.requests[0]
    mine.approve(digest=mine.digest)
    assert (mine.state, mine.approvers, mine.needed) == ("partly", ["owner"], 2)
    with pytest.raises(errors.UsageError, match="2 different people"):
        mine.approve(digest=mine.digest)
    session.requests  # noqa: B018 - asks anew
    assert "1 of 2 approvals" in asked.progress
    with person(owner, "sam", "steward") as steward:
        steward.inbox[0].approve(digest=asked.digest)
    until(owner, 1, "review").release()
    said = asked.results["m"].receipt.details
    assert said["approved"] == ["owner", "sam"]
    owner.approvals = 1
    assert session.file(cell("m = 1")).facts["approvals"] == [0, 1]
    with pytest.raises(errors.UsageError, match="1 to 10"):
        owner.approvals = 0


def test_a_dataset_can_ask_for_more_approvals_and_a_rule_counts_as_one(home, patients, terms):
    owner = lab.Owner.start("strict")
    try:
        owner.publish(patients, name="patients", budget=lab.Budget(3.0), approvals=2, **terms)
        owner.invite("alice", budgets={"clinic": 1.0})
        with lab.connect("alice.syft") as session:
            first = session.file(cell())
            owner.requests[0].deny("first a rule")
            owner.policy.allow("code", analyst="alice", digest=first.digest, times=3, review=False)
            again = session.file(cell())
            request = owner.requests.number(again.number)
            assert (request.state, request.approvers) == ("partly", ["rule 1"])
            with person(owner, "sam", "steward") as steward:
                steward.inbox.number(again.number).approve(digest=again.digest)
            assert until(owner, again.number, "review").state == "review"  # a person was asked, so a person looks
    finally:
        owner.stop()


def test_stewards_at_the_same_moment_both_count(owner, session):
    owner.approvals = 3
    session.file(cell())
    owner.requests[0].approve(digest=owner.requests[0].digest)
    with person(owner, "sam", "steward") as one, person(owner, "sue", "steward") as two:
        digest = owner.requests[0].digest
        threads = [
            threading.Thread(target=manage, args=(s,), kwargs={"do": "approve", "request": "1", "digest": digest})
            for s in (one, two)
        ]
        for t in threads:
            t.start()
        for t in threads:
            t.join(30)
    assert until(owner, 1, "review", "running", "approved").approvers[0] == "owner"
    assert sorted(owner.requests[0].approvers) == ["owner", "sam", "sue"]


def test_nobody_approves_or_denies_their_own_request(owner):
    owner.define_role("senior", ["mock", "file", "read", "approve"])
    with person(owner, "eve", "senior") as eve:
        asked = eve.file(cell())
        with pytest.raises(errors.RefusedError, match="your own: somebody else"):
            eve.inbox[0].approve(digest=asked.digest)
        with pytest.raises(errors.RefusedError, match="your own: cancel it"):
            eve.inbox[0].deny("hm")
        assert owner.requests[0].approvers == []
    with pytest.raises(errors.UsageError, match="the name owner is yours"):
        owner.invite("owner", role="senior")


def test_revocation_ends_what_is_live_at_once(owner, session):
    with person(owner, "sam", "steward") as steward:
        asked = session.file(cell())
        assert steward.inbox[0].number == 1
        owner.revoke("sam")
        with pytest.raises(errors.RefusedError, match="revoked"):
            steward.inbox[0].approve(digest=asked.digest)
    result = asked.results["m"]
    owner.revoke("alice")
    with pytest.raises(errors.RefusedError, match="revoked"):
        result.get(5)  # the long poll is woken: it does not wait for its end


def test_a_role_that_changes_bites_at_once(owner):
    owner.define_role("reader", ["read", "log"])
    with person(owner, "rae", "reader") as rae:
        assert rae.audit.verify()
        owner.define_role("reader", ["read"])
        with pytest.raises(errors.RefusedError, match="may not read the journal"):
            rae.audit.verify()
    assert "reader" in repr(owner.roles)


@pytest.mark.parametrize(
    ("name", "rights", "word"),
    [
        ("analyst", ["mock"], "built in"),
        ("owner", ["mock"], "built in"),
        ("Big Boss", ["mock"], "lower-case"),
        ("boss", ["everything"], "a list of these rights"),
        ("boss", [], "a list of these rights"),
        ("boss", "mock", "a list of these rights"),
        ("boss", ["approve"], "add 'read'"),
    ],
)
def test_what_is_no_role_is_refused(owner, name, rights, word):
    with pytest.raises(errors.UsageError, match=word):
        owner.define_role(name, rights)
