"""An analyst who asks the parties different things, and works with one owner, learns nothing of the others' values.

All short schedules of what each party is asked, and longer ones at random: no sum or difference of what the two see and can draw
is the same in all entries, as the secret is. Planted faults are found: masks that don't hang on what was asked, no zero-share,
parts of a value that are not masked.
"""

import contextlib
import itertools
import random
from types import SimpleNamespace

import pytest
import torch

from syft_lab import errors, plans
from syft_lab.kernel.executor.joint import Joint
from syft_lab.kernel.executor.plans import COMMANDS, answer
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3 import input as entering
from syft_lab.mpc.aby3 import multiply, vouch
from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.party import Party
from syft_lab.mpc.share import TABLE
from syft_lab.plans import Ref
from tests.attacks.joints import NAMES, N, Room, View, run
from tests.attacks.test_mpc import surprise

SECRETS = (1000.0, -3.5)
ZEROS, FLAGS, OWNED, HALF = 1, 2, 8, 20  # values that all parties have before they are asked different things
SEED = random.randrange(2**32)
READS = {"describe", "stats", "fetch", "aggregate", "tried", "try"}
BEFORE = {"gather", "meet", "join"}


def enter(number, owner, secret):
    """What each party is asked, so that an owner's value becomes shares."""
    value = torch.full((N,), secret)
    return [("enter", number, owner, [N], f"{NAMES[owner]}: t v1", "", value if i == owner else None, False) for i in range(3)]


def actions(owner, secret):
    """What the analyst may ask of a party, each with what it is to each of the three."""
    x, y = Ref(0), Ref(1)
    return {
        "enter": enter(9, owner, secret),
        "product of zeros": [run([FLAGS, ZEROS], 10, ("aten.mul.Tensor", (x, y)))] * 3,
        "comparison": [run([OWNED], 11, ("aten.gt.Scalar", (x, 5.0)))] * 3,
        "open": [("open", OWNED)] * 3,
        "product": [run([FLAGS, OWNED], 12, ("aten.mul.Tensor", (x, y)))] * 3,
        "times one": [run([FLAGS, OWNED], 13, ("aten.mul.Scalar", (x, 0)), ("aten.add.Scalar", (Ref(2), 1)), ("aten.mul.Tensor", (Ref(3), y)))] * 3,
        "ReLU": [run([OWNED], 14, ("aten.mul.Tensor", (x, x)), ("aten.relu.default", (Ref(1),)), ("aten.gt.Scalar", (Ref(2), 1.0)))] * 3,
        "zeros": [("deal", 7, [N], 0, bytes(16 * N))] * 3,
        "constant": [("put", 6, "float32", [N], 0, bytes(4 * N))] * 3,
        "fetch": [("fetch", FLAGS, 0, 8)] * 3,
        "half": [("deal", HALF, [N], 0, bytes(8 * N))] * 3,
        "copy": [run([FLAGS], HALF, ("aten.clone.default", (x,)))] * 3,  # refused while a half is there
        "rest": [("deal", HALF, [N], 8 * N, bytes(8 * N))] * 3,  # refused where there is no half
        "whole": [("deal", HALF, [N], 0, bytes(16 * N))] * 3,
        "half a constant": [("put", 6, "float32", [N], 0, bytes(2 * N))] * 3,
        "product of it": [run([HALF, ZEROS, OWNED], 21, ("aten.mul.Tensor", (x, y)), ("aten.gt.Scalar", (Ref(3), 5.0)))] * 3,
        "twice": [run([ZEROS], OWNED, ("aten.clone.default", (x,)))] * 3,  # refused, always
        "no rule": [run([OWNED], 22, ("aten.sin.default", (x,)))] * 3,  # lost, always
        "drop": [run([ZEROS], 23, ("aten.clone.default", (x,)), free=[FLAGS])] * 3,
    }  # fmt: skip


SHORT = ("enter", "product of zeros", "comparison", "open")


def begun(owner, secret):
    """A room in which zeros of the analyst's and a value of an owner's are shared, and some flags computed."""
    room = Room()
    room.ask([[("deal", ZEROS, [N], 0, bytes(16 * N)), run([ZEROS], FLAGS, ("aten.gt.Scalar", (Ref(0), 5.0))), call]
              for call in enter(OWNED, owner, secret)])  # fmt: skip
    assert room.errors == [[], [], []]
    return room


def asked(owner, secret, *schedules):
    """A room in which each party was asked its own list of things, by their names."""
    room, known = begun(owner, secret), actions(owner, secret)
    room.ask([[known[name][i] for name in names] for i, names in enumerate(schedules)])
    return room


def views(room, owner):
    """What the analyst sees with each party but the owner of the secret: with no part of another's, or with that of one."""
    for who in (i for i in range(3) if i != owner):
        thirds = [third for third in range(3) if third != who and room.parts[third]]
        yield from [View(room, who, third) for third in [None, *thirds]]


def learnt(room, owner):
    """Numbers that some view makes of what it has; and in bits, how many planes are no masks."""
    found, bits = set(), 0
    for view in views(room, owner):
        found |= view.constants()
        bits += view.same_bits() + (view.tilt() > 8)
    return found, bits


def guess(found):
    """Which secret it is, of the two; None where nothing tells."""
    for secret in SECRETS:
        word = int(sharing.encode(torch.tensor(secret)))
        if {word, -word} & found:
            return secret
    return None


def test_no_short_schedule_tells_anything():
    """And over all of them: each byte of what came is uniform (chi-square)."""
    came = []
    for n, schedule in enumerate(itertools.product(SHORT, repeat=3)):
        owner, secret = n % 3, SECRETS[n % 2]
        room = asked(owner, secret, *[[name] for name in schedule])
        assert learnt(room, owner) == (set(), 0), (schedule, owner, secret)
        came += [b for (_, to), sent in room.sent.items() if to != owner for b in sent[1:] if len(b) == 8 * N]
        if len(set(schedule)) > 1 and "open" in schedule:  # one honest party at least was asked something else
            assert all(OWNED not in parts for parts in room.parts), schedule
    assert max(surprise(b"".join(came)[place::8]) for place in range(8)) < 8


def test_no_longer_schedule_tells_anything():
    dice = random.Random(SEED)
    for n in range(20):
        owner, secret = n % 3, SECRETS[n % 2]
        start = dice.choices(list(actions(0, 0.0)), k=dice.randrange(2))
        schedules = [[*start, *dice.choices(list(actions(0, 0.0)), k=dice.randrange(1, 4))] for _ in range(3)]
        assert learnt(asked(owner, secret, *schedules), owner) == (set(), 0), (SEED, schedules, owner, secret)


def test_parties_who_are_asked_alike_end_nothing():
    room = asked(0, SECRETS[0], *[list(actions(0, 0.0))] * 3)
    said = [[str(e) for e in errors_of] for errors_of in room.errors]
    made_once = "a value is made once"  # a copy where a half is, the whole after the rest, the product of it, and twice
    assert said[0] == said[1] == said[2]
    assert set(said[0]) == {made_once}, said[0]
    assert not room._left
    assert torch.equal(vouch.joined([p[OWNED] for p in room.parts], [N], NAMES), sharing.encode(torch.full((N,), SECRETS[0])))


def states(room):
    """Which of the parties' turns have one name."""
    return [joint.fixed.party.run for joint in room.joints]


SPLIT = {  # what the odd one is asked, and the others: afterwards each has a value of that number, and was refused something once
    "a run between two halves": (["half", "copy", "rest"], ["copy", "whole"]),
    "a run before them": (["copy", "half"], ["half", "copy"]),
    "halves": (["half"], ["whole"]),
    "a half and its refusal": (["half", "half"], ["half", "rest"]),
    "half a constant": (["half a constant", "constant"], ["constant", "constant"]),
    "a value that is dropped": (["drop", "zeros"], ["zeros", "drop"]),
    "what is refused, always": (["twice"], []),
    "what has no rule": (["no rule"], []),
}


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("odd", range(3))
def test_parties_whose_values_may_differ_have_turns_of_other_names(name, odd):
    """What is refused or failed, and what has not all come yet, is a part of what happened."""
    room, (one, others), owner = begun((odd + 1) % 3, SECRETS[0]), SPLIT[name], (odd + 1) % 3
    known = actions(owner, SECRETS[0])
    room.ask([[known[n][i] for n in (one if i == odd else others)] for i in range(3)])
    names = states(room)
    assert names[odd] not in [n for i, n in enumerate(names) if i != odd]
    room.ask([[known["product of it"][i], known["comparison"][i]] for i in range(3)])
    ends(room, "")
    assert learnt(room, owner) == (set(), 0)


@pytest.mark.parametrize("planted", [False, True])
def test_a_refusal_of_one_party_alone_parts_it_from_the_others(planted, monkeypatch):
    """By its quota, say; and the planted fault, refusals that are not hashed, is found."""
    room = begun(0, SECRETS[0])
    if planted:
        real = Joint._say
        monkeypatch.setattr(Joint, "_say", lambda joint, *what: None if what[0] in ("refused", "lost") else real(joint, *what))
    room.joints[2].quota.memory = 0
    room.ask([[("put", 6, "float32", [N], 0, bytes(2 * N))]] * 3)
    assert [[e.code for e in errors_of] for errors_of in room.errors] == [[], [], ["failed"]]
    names = states(room)
    assert names[0] == names[1]
    assert (names[0] == names[2]) is planted


def test_a_plan_that_is_lost_at_one_party_alone_parts_it_from_the_others():
    room = begun(0, SECRETS[0])
    room.joints[2].quota.memory = 0
    room.ask([[run([ZEROS], 24, ("aten.clone.default", (Ref(0),)))]] * 3)
    assert [joint.space.held[24].tensor is None for joint in room.joints] == [False, False, True]
    names = states(room)
    assert names[0] == names[1] != names[2]


def test_what_is_dropped_is_in_the_name_of_the_turn_that_drops_it():
    room = begun(0, SECRETS[0])
    room.ask([[run([ZEROS], 24, ("aten.clone.default", (Ref(0),)), free=[FLAGS] if i == 2 else [])] for i in range(3)])
    names = states(room)
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - READS - BEFORE))
def test_whatever_a_party_is_asked_is_in_its_name_or_changes_nothing(command):
    room = begun(0, SECRETS[0])
    joint, asked_for = (
        room.joints[0],
        {"start": 8, "value": OWNED, "size": 1, "shape": [N], "dtype": "float32", "owner": 0, "to": 1},
    )
    facts = {**asked_for, "source": "", "story": "", "what": [], "label": {}, "name": "", "runs": [{
        "plan": "#0", "inputs": [1, 1], "outputs": [OWNED], "free": [], "seeds": []}]}  # fmt: skip
    before, held = joint.fixed.party.run, dict(joint.space.held)
    given = [plans.Plan(2, (), (0,)).canonical] if command == "run" else [bytes(4 * N)]
    with contextlib.suppress(errors.LabError):
        answer(joint, command, facts, given, None)
    assert joint.fixed.party.run != before or command in ("load", "adopt")
    assert joint.space.held == held
    assert not joint.space.partial


def test_a_party_holds_nothing_before_it_has_joined():
    """What it held would be in no turn."""
    joint = Joint()
    joint._names = NAMES
    assert joint.place(1, "float32", [N], 0, 8) is None
    for command, *args in (("deal", 1, [N], 0, bytes(8)), ("put", 1, "float32", [N], 0, bytes(8)), run([], 1)):
        with pytest.raises(errors.StateError, match="has not joined a run yet"):
            getattr(joint, command)(*args)
    assert not joint.space.held
    assert not joint.space.partial


def test_what_nobody_foresaw_ends_the_run(monkeypatch):
    room = begun(0, SECRETS[0])
    monkeypatch.setattr(room.joints[1], "_dealt", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        room.joints[1].deal(HALF, [N], 0, bytes(16 * N))
    with pytest.raises(errors.PartnerError, match="the run ended"):
        room.joints[1].deal(HALF, [N], 0, bytes(16 * N))


# Planted faults


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_planted_fault_masks_that_hang_on_nothing_that_was_asked_are_found(secret, shared, monkeypatch):
    """Where two protocols have one slot too; with slots of their own, the second wall, these two draw nothing alike."""
    real = Party._drawing

    def once(party):
        if not getattr(party, "_kept", None):
            party._kept = real(party)
        return party._kept

    monkeypatch.setattr(Party, "_drawing", once)
    if shared:
        monkeypatch.setattr(entering, "Draw", SimpleNamespace(ENTER=Draw.ZERO_WORDS))
    assert guess(learnt(asked(0, secret, ["enter"], ["enter"], ["product of zeros"]), 0)[0]) == (secret if shared else None)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("owner", [0, 1])  # carol receives the sum of the shares that she lacks
def test_a_planted_fault_no_zero_share_is_found(secret, owner, monkeypatch):
    monkeypatch.setattr(multiply, "mask", lambda party, z: z)
    assert guess(learnt(asked(owner, secret, *[["times one"]] * 3), owner)[0]) == secret


def test_a_planted_fault_no_zero_share_of_bits_is_found(monkeypatch):
    monkeypatch.setattr(multiply, "mask_bits", lambda party, z: z)
    assert learnt(asked(0, SECRETS[0], *[["comparison"]] * 3), 0)[1]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_planted_fault_parts_that_are_not_masked_are_found(secret, monkeypatch):
    monkeypatch.setattr(vouch, "_mask", lambda seed, shape: torch.zeros(tuple(shape), dtype=torch.int64))
    assert guess(learnt(asked(0, secret, *[["open"]] * 3), 0)[0]) == secret


# What ends a run


def ends(room, words):
    """Some parties of a room have ended, and say so; none of these goes on, or sends anything."""
    said = [str(e) for errors_of in room.errors for e in errors_of]
    assert any(words in text for text in said), said
    assert room._left
    for index in room._left:
        party, sent = room.joints[index].fixed.party, [len(bodies) for bodies in room.sent.values()]
        for work in (
            lambda party=party: party.turn(b"again"),
            lambda party=party: party.send(party.next, torch.zeros(1)),
            lambda party=party: party.receive(party.next, (1,)),
            lambda index=index: room.joints[index].open(OWNED),
        ):
            with pytest.raises(errors.PartnerError, match="the run ended"):
                work()
        assert [len(bodies) for bodies in room.sent.values()] == sent


def test_what_was_put_off_has_a_turn_of_its_own_when_it_is_fetched():
    """Else two parties, asked for two values, would truncate them under the same masks."""
    room, x = begun(0, SECRETS[0]), Ref(0)
    products = [run([ZEROS], number, ("aten.mul.Tensor", (x, x))) for number in (20, 21)]
    room.ask([products] * 3)
    before = {j.fixed.party.run for j in room.joints}
    assert len(before) == 1
    room.ask([[("fetch", 20 if i else 21, 0, 8)] for i in range(3)])
    assert len({j.fixed.party.run for j in room.joints} - before) == 2
    ends(room, "was asked something else than this party")


def test_what_one_owner_hands_to_another_is_called_the_same_by_all():
    room, data = begun(0, SECRETS[0]), memoryview(bytes(9))
    room.ask(
        [[("hand", 0, 1, 9, [kind, [2]], data if i == 0 else None)] for i, kind in enumerate(("float32", "int32", "float32"))]
    )
    ends(room, "was asked something else than this party")


def test_a_run_that_broke_is_not_gone_on_with():
    room = asked(0, SECRETS[0], ["comparison"], ["comparison"], ["open"])
    ends(room, "the run ended, and nothing was opened")


def test_a_party_that_fails_in_the_middle_of_a_protocol_leaves_the_run(monkeypatch):
    """A lack of memory, say, where the others have enough: its own count of operations is no longer theirs."""
    room, relu = begun(0, SECRETS[0]), TABLE[torch.ops.aten.relu.default]

    def failing(x):
        if x.fixed.party.index == 1:
            x.fixed.party.step()
            raise RuntimeError("no memory for what was here")
        return relu(x)

    monkeypatch.setitem(TABLE, torch.ops.aten.relu.default, failing)
    room.ask([[run([OWNED], 30, ("aten.relu.default", (Ref(0),)), ("aten.gt.Scalar", (Ref(1), 1.0)))]] * 3)
    assert "failed in the middle of a protocol, RuntimeError" in str(room.errors[1][0])
    assert "no memory" not in str(room.errors[1][0])
    assert all("bob is gone" in str(room.errors[i][0]) for i in (0, 2))
    ends(room, "the run ended")


def test_parties_of_which_one_got_less_far_have_other_masks():
    """One that failed in the middle, where the others did not, counts fewer operations: from the next turn on it draws alone."""
    room = begun(0, SECRETS[0])
    room.joints[1].fixed.party._step -= 1
    for joint in room.joints:
        joint.fixed.party.turn(b"the same")
    first, second, third = (joint.fixed.party.run for joint in room.joints)
    assert first == third != second


def test_the_same_that_is_asked_again_is_another_turn():
    room = begun(0, SECRETS[0])
    names, draws = set(), set()
    for _ in range(3):
        for joint in room.joints:
            joint.fixed.party.turn(b"the same")
        names.add(room.joints[0].fixed.party.run)
        draws.add(bytes(room.joints[0].fixed.party.streams[0].bytes(1 << 20 | len(names), 0, 16).numpy()))
    assert (len(names), len(draws)) == (3, 3)


@pytest.mark.parametrize("planted", [False, True])
def test_copies_of_a_share_that_differ_are_found_before_they_are_used(planted, monkeypatch):
    if planted:
        monkeypatch.setattr("syft_lab.kernel.executor.joint.agree", lambda party, x: lambda: None)
    room, bent = begun(0, SECRETS[0]), bytearray(16 * N)
    bent[4] = 1
    room.ask([[("deal", 7, [N], 0, bytes(bent if i == 2 else 16 * N)), *[run([7], 22, ("aten.gt.Scalar", (Ref(0), 5.0)))] * (not planted)]
              for i in range(3)])  # fmt: skip
    if planted:
        assert room.errors == [[], [], []]
    else:
        ends(room, "hold different copies of one share: they were not given the same")
