"""What an owner keeps back stays closed, whoever works with the analyst; and a party's walls, which have a door."""

import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from syft_lab import errors
from syft_lab.kernel.executor import levels
from syft_lab.kernel.executor.joint import Joint
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3 import vouch
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.party import Party
from syft_lab.mpc.randomness import turn_key
from syft_lab.plans import Ref
from tests.attacks.joints import run

NAMES = ("alice", "bob", "carol")
SECRET = torch.tensor([[1.5, -2.0, 1000.0]])
SHAPE = [1, 3]


@pytest.fixture
def parties():
    """Three parties who have joined a run, in threads: all three at once for each command."""
    made = [Joint() for _ in NAMES]
    with ThreadPoolExecutor(3) as pool:

        def all(command, *args, each=None):
            futures = [pool.submit(getattr(p, command), *args, **({} if each is None else each(i))) for i, p in enumerate(made)]
            return [f.result(30) for f in futures]

        gathered = [p.gather(i, NAMES, "127.0.0.1") for i, p in enumerate(made)]
        keys = [(g["curve"], "00" * 32) for g in gathered]
        for i, p in enumerate(made):
            p.meet(keys, {str(o): f"127.0.0.1:{dict(gathered[o]['ports'])[i]}" for o in range(i)})
        all("join", 18)
        all("enter", 1, 0, SHAPE, "alice: ages v1", "", each=lambda i: {"value": SECRET if i == 0 else None, "lost": False})
        yield made, all
        for p in made:
            p.close()


def held(party, number=1) -> Shared:
    return party.space.held[number].tensor.shared


def value(total):
    return sharing.decode(total, 18)


def opened(all, number=1):
    """What each owner gives of a value."""
    return [bytes(part) for part in all("open", number)]


def test_all_three_parts_are_the_value(parties):
    _, all = parties
    for _ in range(2):  # and again, with other parts
        assert torch.allclose(value(vouch.joined(opened(all), SHAPE, NAMES)), SECRET.double(), atol=1e-4)


def closed_without(parties, all) -> bool:
    """Whether alice's value stays closed where one owner keeps its part, and bob or carol works with the analyst.

    Tried are all ways to add up what these two have: the shares, all draws of this turn under keys that the two know, and the
    part of the third.
    """
    made, parts = parties, [vouch._parsed(part, SHAPE, "") for part in opened(all)]
    for keeps, works in ((k, w) for k, w in itertools.permutations(range(3), 2) if w != 0):
        (third,) = {0, 1, 2} - {keeps, works}
        party, own, gift = made[works].fixed.party, held(made[works]), parts[third]
        masks = [vouch._mask(seed, SHAPE) for seed in (gift.seed, *(party.secret(key, "seed") for key in party.keys))]
        things = [own.own, own.other, gift.masked, *vouch._zero_share(party, SHAPE)[:2], *masks]
        words, target = [int(t[0, 1]) for t in things], int(sharing.encode(SECRET)[0, 1])
        for signs in itertools.product((-1, 0, 1), repeat=len(words)):
            if (sum(s * w for s, w in zip(signs, words, strict=True)) - target) % 2**64 == 0:
                return False
    return True


def test_an_owner_who_keeps_its_part_keeps_the_value_closed_though_another_works_with_the_analyst(parties):
    assert closed_without(*parties)


def test_a_planted_fault_parts_that_are_not_masked_are_caught(parties, monkeypatch):
    monkeypatch.setattr(vouch, "_mask", lambda seed, shape: torch.zeros(tuple(shape), dtype=torch.int64))
    assert not closed_without(*parties)


def test_a_planted_fault_seeds_that_a_third_owner_knows_are_caught(parties, monkeypatch):
    monkeypatch.setattr(Party, "secret", lambda party, key, use: turn_key(party.common, party.run, use))
    assert not closed_without(*parties)


@pytest.mark.parametrize("planted", [False, True])
def test_a_voucher_tells_nothing_to_who_guesses_the_value(parties, planted, monkeypatch):
    """Who keeps its part is vouched for by another: with the value guessed right, a voucher without a blind would say so."""
    if planted:
        real = Party.secret
        monkeypatch.setattr(Party, "secret", lambda p, key, use: bytes(32) if use == "blind" else real(p, key, use))
    made, all = parties
    parts = [vouch._parsed(part, SHAPE, "") for part in opened(all)]
    for keeps in (0, 1):  # its neighbour after it, bob or carol, works with the analyst
        works, gift = keeps + 1, parts[(keeps + 2) % 3]
        party, own = made[works].fixed.party, held(made[works])
        share = sharing.encode(SECRET) - own.own - own.other
        masked = share + vouch._zero_share(party, SHAPE)[keeps] + vouch._mask(gift.seed, SHAPE)
        assert torch.equal(masked, parts[keeps].masked)  # so the guess is right: what is missing is whether it is
        blinds = [bytes(32), gift.blind, *(party.secret(key, "blind") for key in party.keys)]
        fits = [vouch._voucher("masked", keeps, blind, vouch._bytes(masked)) == gift.next_masked for blind in blinds]
        assert any(fits) == planted


@pytest.mark.parametrize("planted", [False, True])
def test_an_analyst_with_all_parts_learns_the_value_and_no_share_of_it(parties, planted, monkeypatch):
    """Shares of a + c and b + c, of three owners' a, b and c, add up to c. They are hidden; planted, they are not."""
    if planted:
        monkeypatch.setattr(vouch, "_zero_share", lambda party, shape: (torch.zeros(tuple(shape), dtype=torch.int64),) * 3)
    _, all = parties
    secrets = {2: torch.tensor([[1.0, 2.0, 3.0]]), 3: torch.tensor([[10.0, 20.0, 30.0]])}
    for owner, (number, secret) in enumerate(secrets.items(), 1):
        lent = [{"value": secret if i == owner else None, "lost": False} for i in range(3)]
        all("enter", number, owner, SHAPE, f"{NAMES[owner]}: t v1", "", each=lent.__getitem__)
    for given, made in (([1, 3], 4), ([2, 3], 5)):
        all(*run(given, made, ("aten.add.Tensor", (Ref(0), Ref(1)))))
    shares = []
    for number in (4, 5):
        parts = [vouch._parsed(part, SHAPE, "") for part in opened(all, number)]
        shares.append([p.masked - vouch._mask(parts[i - 1].seed, SHAPE) for i, p in enumerate(parts)])
    sums_of = {value(shares[0][i] + shares[1][j]).tolist().__repr__() for i, j in itertools.product(range(3), repeat=2)}
    assert (secrets[3].double().tolist().__repr__() in sums_of) == planted


def test_parts_tell_nothing_of_the_value(parties):
    """Chi-square per byte of each owner's part, for a value of which every entry is the same."""
    _, all = parties
    many = [20_000]
    zero = torch.zeros(many)
    all("enter", 2, 1, many, "bob: zeros v1", "", each=lambda i: {"value": zero if i == 1 else None, "lost": False})
    for found in opened(all, 2):
        counts = torch.bincount(torch.frombuffer(bytearray(found), dtype=torch.uint8).int(), minlength=256).double()
        expected = counts.sum() / 256
        chi = ((counts - expected) ** 2 / expected).sum().item()
        assert abs(chi - 255) < 6 * (2 * 255) ** 0.5


# An owner who lies when a value is opened


@pytest.mark.parametrize("liar", range(3))
@pytest.mark.parametrize("what", vouch.Part._fields)
def test_a_part_that_its_owner_changed_is_found_and_two_owners_are_named(parties, liar, what):
    _, all = parties
    parts = opened(all)
    lie = vouch._parsed(parts[liar], SHAPE, "")
    said = getattr(lie, what)
    bent = said + (10 << 18) if what == "masked" else bytes([said[0] ^ 1]) + said[1:]
    parts[liar] = lie._replace(**{what: bent}).to_bytes()
    with pytest.raises(errors.VerificationError, match=r"say different things .* no value is made of it") as raised:
        vouch.joined(parts, SHAPE, NAMES)
    assert NAMES[liar] in str(raised.value)
    assert sum(name in str(raised.value) for name in NAMES) == 2


def test_a_part_of_another_opening_of_the_same_value_is_found(parties):
    _, all = parties
    first, second = opened(all), opened(all)
    with pytest.raises(errors.VerificationError, match="say different things"):
        vouch.joined([first[0], *second[1:]], SHAPE, NAMES)


@pytest.mark.parametrize("bend", [lambda p: b"", lambda p: p[:-8], lambda p: p + bytes(8), lambda p: p[128:]])  # fmt: skip
def test_a_part_of_another_form_is_one_clear_error(parties, bend):
    _, all = parties
    parts = opened(all)
    with pytest.raises(errors.VerificationError, match="bob's part of this value has another form"):
        vouch.joined([parts[0], bend(parts[1]), parts[2]], SHAPE, NAMES)


PROBE = """
import json, os, socket, sys
import pyseccomp
import torch
from syft_lab.kernel.executor import guard
from syft_lab.mpc import ring
os.chdir("/")
readable = guard.readable_paths()
pid = os.fork()
if pid == 0:
    guard.enter_for_plans(sys.argv[1], 1 << 30, readable, False, True)
    def attempt(work):
        try:
            work()
        except OSError as error:
            return error.errno
        return 0
    found = {
        "passwd": attempt(lambda: open("/etc/passwd").read()),
        "write": attempt(lambda: open("/tmp/syft-lab-probe", "w")),
        "environ": attempt(lambda: open(f"/proc/{os.getppid()}/environ").read(1)),
        "exec": attempt(lambda: os.execv("/bin/true", ["true"])),
        "fork": attempt(os.fork),
        "kill": attempt(lambda: os.kill(os.getppid(), 0)),
        "listen": attempt(lambda: socket.create_server(("127.0.0.1", 0)).close()),
    }
    x = torch.arange(300 * 300).view(300, 300) * 0x9E3779B97F4A7  # machine code, where llvmlite can be read, else not
    found["product"] = int(torch.equal(ring.matmul(x, x)[:9], x[:9] @ x))
    print(json.dumps(found), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
"""


@pytest.mark.parametrize("level", ["L2", "L1"])
def test_a_party_talks_to_its_partners_and_does_nothing_else(level):
    if levels.probe(level).name != level:
        pytest.skip(f"{level} does not hold on this machine")
    done = subprocess.run([sys.executable, "-c", PROBE, level], capture_output=True, text=True, timeout=60, check=True,
                          env={**os.environ, "PYTHONPATH": ""})  # fmt: skip
    found = json.loads(done.stdout)
    assert found.pop("listen") == 0
    assert all(found.values()), found
