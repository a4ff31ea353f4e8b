"""Three owners compute together over CURVE, in children of their kernels: what opens, what stays closed, and how it ends."""

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import syft_lab as lab
from syft_lab import canonical, errors, values
from syft_lab.analyst.shared import SharedTape
from syft_lab.identity import Keys
from syft_lab.kernel import partners
from syft_lab.kernel.executor.joint import Joint
from syft_lab.mpc import ring
from syft_lab.mpc.share import TABLE, Share
from syft_lab.partnership import Member, Partnership
from syft_lab.wire import messages as m
from tests import federations, models, tapes
from tests.federations import AGES, INCOME, NAMES


@pytest.fixture(scope="module")
def trio(tmp_path_factory, shared_servers):
    folder = tmp_path_factory.mktemp("federation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYFT_LAB_HOME", str(folder / "state"))
        patch.setattr("syft_lab.kernel.owner.Executor", shared_servers)
        made = federations.Trio(folder)
        yield made
        made.close()


@pytest.fixture(scope="module")
def group(trio):
    """A federation that was accepted, for tests that leave it as it is."""
    return trio.federation()


@pytest.fixture
def fresh(trio, request):
    """A federation of one test's own."""
    found = lab.federation(*trio.sessions, purpose=request.node.name)
    trio.accept(found)
    yield found.wait(20)
    found.close()


def close(found, expected, atol=1e-4):
    assert torch.allclose(found, expected, atol=atol, rtol=1e-3), (found, expected)


# What it is for


def test_values_of_two_owners_meet_on_shares_and_open_when_all_three_say_so(trio, group):
    ages, income = trio.sessions[0]["ages"].share(group), trio.sessions[1]["income"].share(group)
    assert isinstance(ages, lab.SharedTensor)
    assert "from hospital-a: ages v1" in repr(ages)
    value = (ages * income).sum() / 100
    with pytest.raises(errors.PrivateValueError, match=r"hospital-a: ages v1, hospital-b: income v1: x.request"):
        value.get()
    with pytest.raises(errors.PrivateValueError, match=r"x.request"):
        value.release(epsilon=1)
    result = value.request(reason="income by age, study 12")
    assert all(f"at {n}" in result.progress for n in NAMES)
    trio.release(result)
    close(result.get(20), (AGES * INCOME).sum() / 100)
    receipts = result.request.receipts
    assert set(receipts) == set(NAMES)
    for receipt in receipts.values():
        assert receipt.verify()["federation"] == group.id
        assert "one of the parts of an exact value" in receipt.details["guarantee"]
    assert "aten.mul.Tensor" in trio.owners[2].requests.number(result.request.requests[2].number).code
    own = [owner.requests.number(r.number).code for owner, r in zip(trio.owners, result.request.requests, strict=True)]
    assert ["dataset ages v1" in code for code in own] == [True, False, False]
    assert ["dataset income v1" in code for code in own] == [False, True, False]
    alone = ages.mean().request(reason="a test")  # of which the other owners' data are no part
    assert "income" not in trio.owners[1].requests.number(alone.request.requests[1].number).code
    alone.cancel()


def test_the_analysts_own_tensors_come_back(group):
    t = torch.tensor([[1.5, -2.0], [3.0, 4.0]])
    s = t.fix_prec().share(group)
    assert "your own data" in repr(s)
    close(s.get(), t)
    close((s @ s + 1).get(), t @ t + 1)
    assert torch.equal((s > 0).get(), t > 0)
    close(torch.where(s > 0, s, -s).get(), t.abs())
    close((s * torch.tensor([2.0, 3.0])).get(), t * torch.tensor([2.0, 3.0]))
    assert group.share(torch.zeros(0, 3)).get().shape == (0, 3)
    assert group.share(torch.tensor(7, dtype=torch.int64)).get() == 7.0


def test_large_tensors_travel_in_parts(group):
    t = torch.randn(1_200_000)
    close(t.fix_prec().share(group).get(), t)


@pytest.mark.parametrize("name", ["mlp", "lenet"])  # ResNet-18: tests/unit/mpc/test_tensor.py
def test_a_module_and_an_image_are_shared_and_the_module_stays_as_it_is(group, name):
    model, image = models.ready(name)
    with torch.no_grad():
        plain = model(image)
        found = group.share(model)(group.share(image)).get()
    assert (found - plain).abs().max() <= 2e-3 * plain.abs().max().clamp(min=1)
    assert torch.equal(found.argmax(1), plain.argmax(1))


def test_a_module_of_one_party_on_the_data_of_another(trio, group):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    with torch.no_grad():
        expected = F.softmax(model(AGES), 1).mean(0)
        close(trio.opened(F.softmax(group.share(model)(trio.sessions[0]["ages"].share(group)), 1).mean(0)), expected, 1e-3)


@pytest.fixture
def virtual():
    """Three owners in this process, the first two with a dataset."""
    owners = lab.virtual_owners("alice", "bob", "carol")
    for owner in owners[:2]:
        owner.publish(AGES, "t", bounds=(0, 1), budget=lab.Budget(1.0))
    yield owners
    for owner in owners:
        owner.close()


def approve(owners):
    """Every owner approves what was asked last."""
    for owner in owners:
        asked = owner.host.requests[0]
        asked.approve(digest=asked.digest)


def test_virtual_owners_have_the_same_api(virtual):
    three = lab.federation(*virtual)
    approve(virtual)
    x, y = (owner["t"].share(three.wait(10)) for owner in virtual[:2])
    result = (x @ y.t()).sum().request(reason="a test")
    approve(virtual)
    close(result.get(20), (AGES @ AGES.t()).sum(), 1e-2)


def test_what_is_of_another_kind_than_torchs_is_not_opened(virtual, monkeypatch):
    """Read as whole, a number with fraction bits is 2^18 times as large: a planted fault, which the parties see."""
    three = lab.federation(*virtual)
    approve(virtual)
    x = three.wait(10).share(torch.linspace(-2, 2, 6))
    assert ((x > 0).sum() * 2 + 1).get() == 7
    assert "; at the owners>" in repr(x)
    absolute = TABLE[torch.ops.aten.abs.default]
    wrong = {torch.ops.aten.abs.default: lambda x: Share(absolute(x).shared, x.fixed, torch.int64)}
    monkeypatch.setattr("syft_lab.mpc.share.TABLE", {**TABLE, **wrong})
    with pytest.raises(errors.FailedError, match=r"abs.* gave torch.int64 on shares, where torch gives torch.float32"):
        x.abs().get()


# Agreement


def test_nothing_is_shared_before_every_owner_accepted_and_each_reads_the_terms(trio):
    waiting = lab.federation(*trio.sessions, purpose="a study that waits")
    assert not waiting.accepted
    with pytest.raises(errors.RefusedError, match="hospital-a and hospital-b and hospital-c have not accepted"):
        torch.ones(2).fix_prec().share(waiting)
    for owner, request in list(zip(trio.owners, waiting.requests.values(), strict=True))[:2]:
        asked = owner.requests.number(request.number)
        assert all(n in asked.code for n in NAMES)
        assert "a study that waits" in repr(asked)
        asked.approve(digest=asked.digest)
        assert asked.state == "joined"
    with pytest.raises(errors.NotYetError, match="hospital-c has not accepted the partnership after 0.3 s"):
        waiting.wait(0.3)
    tape = SharedTape(waiting, trio.sessions)  # an analyst who goes on all the same
    with pytest.raises(errors.LabError, match="hospital-c.*has not accepted the partnership yet"):
        tape.begin()
    third = trio.owners[2].requests.number(waiting.requests["hospital-c"].number)
    third.deny("not with these partners")
    with pytest.raises(errors.RefusedError, match="not with these partners"):
        waiting.wait(20)


def test_the_same_terms_are_the_same_federation_and_others_are_another(trio, group):
    again = lab.federation(*trio.sessions, purpose=group.terms.purpose)
    assert again.id == group.id
    assert again.accepted
    assert {n: r.number for n, r in again.requests.items()} == {n: r.number for n, r in group.requests.items()}
    other = lab.federation(*trio.sessions, purpose="something else")
    assert other.id != group.id
    assert not other.accepted
    for request in other.requests.values():
        request.cancel()


def test_an_owner_takes_part_under_its_own_name_and_key_only(trio, group):
    session, another = trio.sessions[0], Keys.generate().public.signing
    for member, words in (
        (["hospital-a", another, session.own_signing], "hospital-a is not in this partnership"),
        (["hospital-x", session.signing, session.own_signing], "hospital-a is not in this partnership"),
        (["hospital-a", session.signing, another], "hospital-a knows you by another key"),
    ):
        terms = {**group.terms.to_json(), "members": [member, *group.terms.to_json()["members"][1:]]}
        with pytest.raises(errors.UsageError, match=words):
            session._ask(m.Propose("ab" * 16, canonical.dumps(terms)), m.Filed)


def test_a_federation_is_one_analysts(trio, fresh, tmp_path):
    """Another analyst neither proposes the terms nor begins a session under their id; nor does the same with other keys."""
    trio.owners[0].invite("bob", path=tmp_path / "bob.syft")
    bob = lab.connect(tmp_path / "bob.syft", alias="bob-at-a")
    with pytest.raises(errors.UsageError, match="knows you by another key"):
        bob.propose(fresh.terms)
    tape = SharedTape(fresh, [bob, *trio.sessions[1:]])
    with pytest.raises(errors.LabError, match="bob-at-a: this owner was never asked into this federation"):
        tape.begin()
    bob.close()


def test_an_analyst_with_new_keys_asks_again(virtual):
    three = lab.federation(*virtual)
    approve(virtual)
    torch.ones(3).fix_prec().share(three.wait(10))
    three.close()
    virtual[1].rotate_keys()
    with pytest.raises(errors.LabError, match="bob.* for another key of yours than this one: lab.federation"):
        torch.ones(3).fix_prec().share(three)
    again = lab.federation(*virtual)
    assert again.id != three.id
    approve(virtual)
    close(torch.ones(3).fix_prec().share(again.wait(10)).get(), torch.ones(3))


def test_a_partnership_of_an_earlier_release_is_refused_and_can_be_left(virtual, monkeypatch):
    """Its terms name no analyst: a request that waits, and one that was accepted."""
    host = virtual[0].host
    (analyst,) = [a for a in host._registry.analysts if a.name == virtual[0].analyst]
    now = Partnership.to_json
    monkeypatch.setattr(Partnership, "to_json", lambda t: {**now(t), "members": [list(p[:2]) for p in t.members]})
    terms = Partnership(tuple(Member(o.owner, o.signing, "00" * 32) for o in virtual), "of last year")
    waiting = host._desk.propose(analyst, "ab" * 16, terms)
    asked = host.requests.number(waiting.number)
    assert "of last year" in repr(asked)
    with pytest.raises(errors.RefusedError, match="another release's, which does not name the analyst's keys"):
        asked.approve(digest=asked.digest)
    until = datetime.now(UTC) + timedelta(days=3)
    host._desk._move(waiting, "joined", {"digest": waiting.digest, "analyst": analyst.name, "by": "owner", "rule": None, "review": True,
                                         "until": until.isoformat(timespec="seconds"), "datasets": []})  # fmt: skip
    monkeypatch.undo()
    with pytest.raises(errors.RefusedError, match="another release's"):
        host._desk.joined(analyst.name, waiting.digest.removeprefix("sha256:"))
    host._desk.expire()
    assert "left" not in asked.state
    asked.cancel()
    assert asked.state == "left"


def test_terms_that_can_not_be_are_said_before_anybody_is_asked(trio):
    a, b, c = trio.sessions
    for owners, terms, words in (
        ((a, b), {}, "3 different owners"),
        ((a, b, b), {}, "3 different owners"),
        ((a, b, c), {"protocol": "spdz"}, "no protocol 'spdz'"),
        ((a, b, "hospital-c"), {}, "owners you are connected to"),
        ((a, b, c), {"fraction": 7}, "even number"),
    ):
        with pytest.raises(errors.UsageError, match=words):
            lab.federation(*owners, **terms)


def test_who_leaves_ends_what_runs_and_nothing_begins_again(trio, fresh):
    s = torch.ones(3).fix_prec().share(fresh)
    trio.owners[1].requests.number(fresh.requests["hospital-b"].number).cancel()
    with pytest.raises(errors.StalePointerError, match="the partnership with hospital-b was ended by owner"):
        (s * s).get()
    with pytest.raises(errors.RefusedError, match="hospital-b.*the partnership was ended by owner"):
        fresh.wait(20)


def test_an_analyst_leaves_at_every_owner(trio, fresh):
    torch.ones(3).fix_prec().share(fresh)
    pids = [h.pid for h in trio.parties(fresh).values()]
    assert len(pids) == 3
    fresh.leave()
    assert set(fresh.state.values()) == {"left"}
    for owner in trio.owners:
        assert owner.requests.number(fresh.requests[owner.name].number).state == "left"
    trio.gone(fresh, pids)


def test_a_partnership_ends_with_its_time_and_can_be_asked_for_again(virtual):
    three = lab.federation(*virtual, days=2)
    approve(virtual)
    torch.ones(3).fix_prec().share(three.wait(10))
    three.close()
    for owner in virtual:
        owner.host._journal.clock = lambda: datetime.now(UTC) + timedelta(days=3)
    with pytest.raises(errors.LabError, match="its time is over: lab.federation"):
        torch.ones(3).fix_prec().share(three)
    again = lab.federation(*virtual, days=2)
    assert again.id == three.id
    assert [owner.host.requests.number(1).state for owner in virtual] == ["expired"] * 3
    approve(virtual)
    close(torch.ones(3).fix_prec().share(again.wait(10)).get(), torch.ones(3))


# Policies


def test_a_rule_keeps_a_dataset_back_and_another_lets_a_later_one_be_shared(trio, group):
    owner, session = trio.owners[0], trio.sessions[0]
    rule = owner.policy.refuse("share", dataset="ages", partners=["hospital-c"], why="ages stay between a and b")
    with pytest.raises(errors.RefusedError, match="ages stay between a and b"):
        session["ages"].share(group)
    with pytest.raises(errors.RefusedError, match="ages stay between a and b"):  # what came of it too
        (session["ages"] * 2).share(group)
    owner.policy.remove(rule)
    assert session["ages"].share(group).shape == (60, 4)
    late = torch.rand(8)
    owner.publish(late, "late", bounds=(0, 1), population="ages", privacy_unit="row", rows_public=True)
    with pytest.raises(errors.RefusedError, match='owner.policy.allow\\("share", dataset="late"\\)'):
        session["late"].share(group)
    owner.policy.allow("share", dataset="late", partners=["hospital-b"])
    with pytest.raises(errors.RefusedError, match="was not open to you"):
        session["late"].share(group)
    owner.policy.allow("share", dataset="late", partners=["hospital-b", "hospital-c"])
    assert session["late"].share(group).shape == (8,)


def test_an_owner_that_denies_keeps_the_value_closed(trio, group):
    result = trio.sessions[0]["ages"].share(group).mean().request(reason="a test")
    for owner, request in list(zip(trio.owners, result.request.requests, strict=True))[1:]:
        asked = owner.requests.number(request.number)
        asked.approve(digest=asked.digest).wait(20)
    assert not result.done()
    trio.owners[0].requests.number(result.request.requests[0].number).deny("too few people")
    with pytest.raises(errors.RefusedError, match="hospital-a.*too few people"):
        result.get(20)


def test_cancelling_a_result_takes_back_what_was_asked_everywhere(trio, group):
    result = trio.sessions[0]["ages"].share(group).mean().request(reason="a test")
    assert result.cancel()
    with pytest.raises(errors.RefusedError, match="was cancelled"):
        result.get(20)
    for owner, request in zip(trio.owners, result.request.requests, strict=True):
        assert owner.requests.number(request.number).state == "cancelled"


# From one owner to another


def test_a_value_moves_where_both_owners_have_a_rule_for_it(trio, group):
    (a, b, c), (one, two, _) = trio.sessions, trio.owners
    ages = a["ages"]
    with pytest.raises(errors.RefusedError, match='"move", dataset="ages", partners=."hospital-b"'):
        ages.move(b)
    leaves = one.policy.allow("move", dataset="ages", partners=["hospital-b"])
    with pytest.raises(errors.RefusedError, match='"receive", partners=."hospital-a"'):
        ages.move(b)
    comes = two.policy.allow("receive", partners=["hospital-a"])
    exact = a.budget().gauges[0][1]
    moved = (ages * 2).move(b)
    assert moved.location is b
    assert "from hospital-a, moved here" in str(moved.label)
    with pytest.raises(errors.PrivateValueError):
        moved.get()
    assert a.budget().gauges[0][1] == exact + 1  # as an exact release
    entry = list(one._journal.of_kinds("moved"))[-1]
    assert (entry.body["to"], entry.body["data"][0]["dataset"]) == ("hospital-b", "ages")
    one.audit.verify()
    result = moved.mean().request(reason="a test")
    asked = two.requests.number(result.request.number)
    asked.approve(digest=asked.digest).wait(20).release()
    close(torch.as_tensor(result.get(20)), AGES.mean() * 2)
    for refused in (lambda: moved.share(group), lambda: moved.move(a)):
        with pytest.raises(errors.RefusedError, match="came from hospital-a, whose owner let it come here and no further"):
            refused()
    with pytest.raises(errors.RefusedError, match="hospital-c"):  # the rule is about hospital-b
        ages.move(c)
    one.policy.remove(leaves)
    two.policy.remove(comes)
    (stranger,) = lab.virtual_owners("dora")
    with pytest.raises(errors.UsageError, match="together in none"):
        ages.move(stranger)
    stranger.close()
    close(torch.ones(2).fix_prec().share(group).get(), torch.ones(2))  # the session goes on


# Bad input


def test_numbers_out_of_range_are_refused_or_where_they_are_private_lost_in_silence(trio, group):
    for wrong in (torch.tensor([float("nan")]), torch.tensor([float("inf")]), torch.tensor([5000.0])):
        with pytest.raises(errors.UsageError, match="can't be shared|hold numbers below 4096"):
            wrong.fix_prec().share(group)
    with pytest.raises(errors.UsageError, match="real numbers"):
        torch.ones(2, dtype=torch.complex64).fix_prec()
    ages = trio.sessions[0]["ages"]
    known = ages * 10_000
    if known.label.bounds is not None:
        with pytest.raises(errors.UsageError, match="below 4096"):
            known.share(group)
    secret = (ages - 0.5).exp() * 10_000  # nothing says how large it is
    result = secret.share(group).sum().request(reason="a test")
    assert not result.done()
    asked = trio.owners[0].requests.number(result.request.requests[0].number)
    assert "it was not shared: shares with 18 fraction bits hold numbers below 4096" in repr(asked)
    others = [o.requests.number(r.number) for o, r in zip(trio.owners[1:], result.request.requests[1:], strict=True)]
    assert all("not shared" not in repr(o) for o in others)
    result.cancel()


def test_what_shares_can_not_do_is_said_where_it_is_written(trio, group):
    s, ages = torch.randn(3, 3).fix_prec().share(group), trio.sessions[0]["ages"]
    with pytest.raises(errors.RefusedOpError, match="aten.sort.default has no rule for shares .max and argmax work"):
        s.sort()
    with pytest.raises(errors.PrivateValueError, match="nonzero"):
        s.nonzero()
    with pytest.raises(RuntimeError, match="reduction dim|must match"):
        s @ torch.randn(4, 2)
    with pytest.raises(errors.OtherOwnerError, match="federation"):
        s @ ages.t()
    with pytest.raises(errors.PrivateValueError):
        s.tolist()
    with pytest.raises(errors.UsageError, match="is shared already"):
        group.share(s)
    with pytest.raises(errors.UsageError, match="share among a federation"):
        torch.ones(3).share(trio.sessions[0])
    with pytest.raises(errors.UsageError, match="public: share it from your side"):
        torch.ones(3).send(trio.sessions[0]).share(group)
    with pytest.raises(errors.UsageError, match="your own data"):
        s.request(reason="a test")
    too_large = ages.share(group) * torch.full((4,), 5000.0)  # a constant that all three know, and refuse alike
    with pytest.raises(errors.FailedError, match="below 4096"):
        too_large.request(reason="a test")
    with pytest.raises(errors.FailedError, match="below 4096"):
        (s * torch.tensor([1.0, 2.0, 5000.0])).get()
    close((s + 1).get(), s.get() + 1)  # and the session goes on


def test_values_of_two_federations_do_not_mix(trio, group, fresh):
    with pytest.raises(errors.OtherOwnerError):
        torch.ones(2).fix_prec().share(group) + torch.ones(2).fix_prec().share(fresh)


def test_an_owner_of_no_part_in_it_can_not_share(trio, group):
    (other,) = lab.virtual_owners("dora")
    other.publish(torch.rand(3), "t", bounds=(0, 1), budget=lab.Budget(1.0))
    with pytest.raises(errors.UsageError, match="dora is not in this federation"):
        other["t"].share(group)
    other.close()


# How it ends


def test_a_party_that_is_killed_is_named_and_the_next_session_has_other_masks(trio, fresh):
    s = torch.ones(200, 200).fix_prec().share(fresh)
    close((s * 2).get(), torch.full((200, 200), 2.0))
    space = fresh.tape.space
    os.kill(trio.parties(fresh)["hospital-b"].pid, signal.SIGKILL)
    began = time.monotonic()
    with pytest.raises((errors.PartnerError, errors.StalePointerError), match="hospital-b.*share the values again"):
        (s @ s).get()
    with pytest.raises((errors.PartnerError, errors.StalePointerError), match="hospital-b"):
        s + 1
    assert time.monotonic() - began < 15
    t = torch.ones(3).fix_prec().share(fresh)
    close(t.get(), torch.ones(3))
    assert fresh.tape.space != space


def test_a_value_of_a_session_that_ended_says_why_beside_one_of_the_next(trio, fresh):
    old, tape = torch.ones(3).fix_prec().share(fresh), fresh.tape
    os.kill(trio.parties(fresh)["hospital-b"].pid, signal.SIGKILL)
    with pytest.raises((errors.PartnerError, errors.StalePointerError), match="hospital-b"):
        (old * old).get()
    new = torch.ones(3).fix_prec().share(fresh)
    assert fresh.tape is not tape
    for work in (lambda: old + new, lambda: new + old):
        with pytest.raises((errors.PartnerError, errors.StalePointerError), match="hospital-b.*share the values again"):
            work()


def test_after_an_owners_restart_values_are_shared_and_sent_at_once(trio, fresh):
    old, sent = torch.ones(3).fix_prec().share(fresh), lab.send(torch.ones(3), trio.sessions[1])
    close(old.get(), torch.ones(3))
    assert torch.equal((sent + 1).get(), torch.full((3,), 2.0))
    trio.owners[1].stop()
    trio.owners[1] = lab.Owner.start("hospital-b")
    close((torch.ones(3).fix_prec().share(fresh) * 2).get(), 2 * torch.ones(3))
    assert torch.equal((lab.send(torch.ones(3), trio.sessions[1]) + 1).get(), torch.full((3,), 2.0))
    with pytest.raises(errors.StalePointerError, match="hospital-b was restarted.*share the values again"):
        (old * old).get()
    with pytest.raises((errors.StalePointerError, errors.ConnectionLost), match="hospital-b was restarted|did not come back"):
        (sent + 1).get()  # the second where the restart took long, on a busy machine
    assert torch.equal(sent.recompute().get(), torch.ones(3))


def test_closing_a_session_ends_the_wait_in_a_federation_for_what_was_not_sent_yet(trio):
    sessions = [lab.connect(trio.folder / f"{o.name}.syft") for o in trio.owners]
    federation = lab.federation(*sessions, purpose="one of them is closed")
    trio.accept(federation)
    federation.wait(20)
    value = torch.ones(3).fix_prec().share(federation)
    value.get()
    lane = federation.tape.lanes[0]
    tapes.fill(lane)
    before = lane.sent

    def ends():
        with pytest.raises(errors.LabError, match="closed"):
            value.get()

    waiting = threading.Thread(target=ends, daemon=True)
    waiting.start()
    end = time.monotonic() + 20
    while lane.sent == before or lane._pump.done() or not lane._queue.empty():
        assert time.monotonic() < end
        time.sleep(0.01)
    for session in sessions:
        session.close()
    waiting.join(10)
    assert not waiting.is_alive()


def test_a_closed_session_leaves_no_party_behind(trio, fresh):
    torch.ones(3).fix_prec().share(fresh)
    pids = [h.pid for h in trio.parties(fresh).values()]
    fresh.close()
    trio.gone(fresh, pids)


@pytest.mark.parametrize("kind", [m.Meet, m.Join, m.Deal, m.Enter, m.Put, m.Run, m.Fetch, m.Ask], ids=lambda k: k.kind)
def test_a_party_that_is_killed_before_any_message_is_named_soon_and_nothing_is_opened(trio, fresh, kind, monkeypatch):
    real, before, killed = SharedTape.all, [len(o.requests) for o in trio.owners], []

    def all(tape, messages, *rest, **more):
        if isinstance(messages[0], kind) and not killed:
            os.kill(trio.parties(fresh)["hospital-b"].pid, signal.SIGKILL)
            killed.append(time.monotonic())
        return real(tape, messages, *rest, **more)

    monkeypatch.setattr(SharedTape, "all", all)
    with pytest.raises((errors.PartnerError, errors.StalePointerError), match="hospital-b"):
        use_everything(trio, fresh)
    assert time.monotonic() - killed[0] < 15  # what came before may have booted fork servers, which takes as long as it does
    assert [len(o.requests) for o in trio.owners][::2] == before[::2]


def use_everything(trio, federation):
    ages = trio.sessions[0]["ages"].share(federation)
    s = torch.ones(60, 4).fix_prec().share(federation)
    (s * torch.full((60, 4), 2.0)).get()
    (ages * s).sum().request(reason="a test")


# An analyst who does not follow


def test_an_analyst_who_asks_one_owner_something_else_opens_nothing(trio, fresh):
    ages = trio.sessions[0]["ages"].share(fresh)
    tape, (mean, other) = fresh.tape, (ages.mean(), ages[0, 0])
    tape.flush()
    before = [len(o.requests) for o in trio.owners]
    asks = [m.Ask("ab" * 16, tape.space, 0, v.current.number, "a test") for v in (other, mean, mean)]
    with pytest.raises(errors.PartnerError, match="was asked something else than this party"):
        tape.ask_all(asks, m.Filed)
    assert [len(o.requests) for o in trio.owners] == before


def test_another_plan_at_one_owner_ends_the_run(trio, fresh):
    ages = trio.sessions[0]["ages"].share(fresh)
    tape = fresh.tape
    value = (ages * 2).sum()
    tape.flush()
    lane, plans = tape.lanes[1], []
    real = lane.queue

    def bent(message, *rest, **more):
        if isinstance(message, m.Run):
            head, plan = (bytes(p) for p in message.payload)
            changed = plan.replace(b"aten.sum.default", b"aten.neg.default")
            plans.append(changed != plan)
            said = json.loads(head)
            message = m.Run(message.space, 0, [canonical.dumps({**said, "plans": [len(changed)]}), changed])
        return real(message, *rest, **more)

    lane.queue = bent
    with pytest.raises((errors.PartnerError, errors.StalePointerError)):
        trio.opened((ages * 3).sum() + value)
    assert plans == [True]


def bend(tape, kind, index, how, monkeypatch):
    """Send one owner another message of this kind than the others."""
    real = tape.all

    def all(messages, *rest, **more):
        if isinstance(messages[0], kind):
            messages = [how(message) if i == index else message for i, message in enumerate(messages)]
        return real(messages, *rest, **more)

    monkeypatch.setattr(tape, "all", all)


def test_two_copies_of_one_share_that_differ_end_the_run_before_they_are_used(trio, fresh, monkeypatch):
    def other(message):
        copy = bytearray(bytes(message.payload[0]))
        copy[4] ^= 1
        return m.Deal(message.space, 0, message.value, message.shape, message.start, [bytes(copy)])

    torch.ones(3).fix_prec().share(fresh).get()
    bend(fresh.tape, m.Deal, 2, lambda message: other(message) if message.start else message, monkeypatch)
    s = torch.ones(3).fix_prec().share(fresh)
    with pytest.raises(errors.PartnerError, match=r"hospital-[ac] and hospital-[ac] hold different copies of one share"):
        (s * s).get()
    with pytest.raises(errors.PartnerError):
        s.get()


def test_a_constant_that_one_owner_was_given_otherwise_ends_the_run(trio, fresh, monkeypatch):
    s = torch.ones(3).fix_prec().share(fresh)
    other = torch.tensor([1.0, 2.0, 4.0])
    bend(
        fresh.tape,
        m.Put,
        1,
        lambda p: m.Put(p.space, 0, p.value, p.dtype, p.shape, p.start, [bytes(other.numpy())]),
        monkeypatch,
    )
    with pytest.raises(errors.PartnerError, match="was asked something else than this party"):
        (s * s * torch.tensor([1.0, 2.0, 3.0])).get()


@pytest.mark.parametrize("kind", [m.Deal, m.Put])
def test_a_part_of_a_tensor_in_two_frames_is_one_clear_error(trio, fresh, kind):
    tape = fresh.tape
    number = tape.new().number
    half = bytes(24 if kind is m.Deal else 12)
    message = m.Deal(tape.space, 0, number, [3], 0, [half, half]) if kind is m.Deal else m.Put(
        tape.space, 0, number, "float32", [6], 0, [half, half])  # fmt: skip
    with pytest.raises(errors.WireError, match="a part of a tensor comes as one frame"):
        tape.ask_all([message] * 3, m.Ran)


def test_a_part_that_an_owner_changed_is_found_by_the_analyst_and_two_owners_are_named(virtual, monkeypatch):
    three = lab.federation(*virtual)
    approve(virtual)
    x = virtual[0]["t"].share(three.wait(10))
    real = Joint.open

    def bent(joint, number):
        part = bytearray(real(joint, number))
        part[-8] ^= joint._index == 1
        return memoryview(part)

    monkeypatch.setattr(Joint, "open", bent)
    result = x.sum().request(reason="a test")
    approve(virtual)
    with pytest.raises(
        errors.VerificationError, match="alice and bob say different things of a part of this value that both hold"
    ):
        result.get(20)


def test_parts_as_an_earlier_release_gives_them_are_one_clear_error(virtual, monkeypatch):
    three = lab.federation(*virtual)
    approve(virtual)
    x = virtual[0]["t"].share(three.wait(10))
    monkeypatch.setattr(partners, "RETURNS", ("value",))
    monkeypatch.setattr(
        partners, "_part", lambda data, shape: values.of_tensors({"value": partners.as_array(data[128:], "int64", shape)})
    )
    with pytest.raises(errors.VerificationError, match="alice's part of this value has another form.* the same release"):
        x.sum(0).request(reason="a test")


def test_an_owner_reads_of_which_shape_the_value_is(virtual):
    three = lab.federation(*virtual)
    approve(virtual)
    virtual[0]["t"].share(three.wait(10)).sum(0).request(reason="a test")
    outputs = virtual[1].host.requests[0].mock["outputs"]
    assert [(o["name"], o["dtype"], o["shape"]) for o in outputs] == [("value", "<i8", [4]), ("vouchers", "<i8", [4, 4])]


def test_offers_that_were_changed_on_the_way_are_refused(trio, fresh):
    tape = SharedTape(fresh, trio.sessions)
    gathered = tape.ask_all([m.Gather(tape.space, 0, fresh.id)] * 3, m.Gathered)
    offers = [json.loads(g.offer) for g in gathered]
    offers[0]["curve"] = Keys.generate().public.curve
    with pytest.raises(errors.VerificationError, match="the offer of hospital-a"):
        tape.ask_all([m.Meet(tape.space, 0, canonical.dumps(offers))] * 3, m.Ran)


def test_a_value_that_was_not_lent_does_not_enter(trio, fresh):
    tape = fresh.tape
    entered = m.Enter(tape.space, 0, tape.new().number, 0, [60, 4], "ab" * 16)
    with pytest.raises(errors.UsageError, match="hospital-a.*share it again"):
        tape.ask_all([entered] * 3, m.Ran)


def test_a_federation_shows_what_it_rests_on(group):
    text, html = repr(group), group._repr_html_()
    for words in ("any two of the three owners together could open everything", "semi-honest", *NAMES):
        assert words in text
        assert words in html
    assert group.terms.members[0].fingerprint in html
    assert "any two of the three" in torch.ones(2).fix_prec().share(group)._repr_html_()


def test_large_products_are_machine_code_in_a_locked_down_party(trio, group):
    if ring.native() or ring.machine_code() is None:
        pytest.skip("torch's product of int64 is as fast here, or llvmlite (the extra fast) is not installed")
    t = torch.randn(300, 260)
    assert t.numel() * 300 >= ring.LARGE
    close((t.fix_prec().share(group) @ t.T.fix_prec().share(group)).get(), t @ t.T, 1e-3)
    for party in trio.parties(group).values():
        with open(f"/proc/{party.pid}/maps") as maps:
            assert "libllvmlite" in maps.read()
