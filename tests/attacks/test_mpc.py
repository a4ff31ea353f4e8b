"""What one of three parties sees tells it nothing, and what a stranger does to messages ends the run."""

import math
import queue
import struct

import pytest
import torch

from syft_lab import errors
from syft_lab.mpc import links, party
from syft_lab.mpc.aby3 import aggregate, convert, decompose, multiply
from syft_lab.mpc.aby3.compare import sign
from syft_lab.mpc.aby3.input import enter
from syft_lab.mpc.aby3.truncate import truncate
from syft_lab.mpc.functions import Fixed
from tests.parties import FRACTION, NAMES, K, opened, run

N = 20_000
SECRETS = (0, -1)
PROTOCOLS = {
    "multiply": lambda p, x: multiply.multiply(p, x, x),
    "truncate": lambda p, x: truncate(p, multiply.part(x, x), 18),
    "truncate shares": lambda p, x: truncate(p, x, 16),
    "sign": sign,
    "choose": lambda p, x: convert.choose(p, x, [x])[0],
    "truncate shares of an even number": lambda p, x: truncate(p, x.map(lambda t: t * 16), 20),
    "rectify": lambda p, x: convert.rectify(p, multiply.double_part(p, x, x), 19),
    "sums put off": lambda p, x: truncate(p, sum(multiply.double_part(p, x, x) for _ in range(2)) + (x.own << 19), 19),
    "decompose": lambda p, x: convert.numbers(p, decompose.any_above(p, decompose.decompose(p, x, 8)), x.own.numel()),
    "enter": lambda p, x: enter(p, 1, x.own if p.index == 1 else None, x.own.shape),
    "exp": lambda p, x: Fixed(p, FRACTION, K).exp(x),
    "inverse": lambda p, x: Fixed(p, FRACTION, K).reciprocal(x.map(lambda t: t[:2000])),
}  # fmt: skip


class Recording(links.MemoryLink):
    """Keeps what came in, body by body."""

    seen: list

    def receive(self, into, timeout):
        head = super().receive(into, timeout)
        self.seen.append(bytes(into))
        return head


def wires(kind=Recording):
    queues = {(a, b): queue.SimpleQueue() for a in range(3) for b in range(3) if a != b}
    wired = [{b: kind(queues[a, b], queues[b, a]) for b in range(3) if b != a} for a in range(3)]
    for row in wired:
        for link in row.values():
            link.seen = []
    return wired


def surprise(data: bytes) -> float:
    """How many standard deviations the chi-square of the bytes is above that of uniform ones (255 degrees of freedom)."""
    counts = torch.bincount(torch.frombuffer(bytearray(data), dtype=torch.uint8).int(), minlength=256).double()
    expected = counts.sum() / 256
    chi = ((counts - expected) ** 2 / expected).sum().item()
    return (chi - 255) / math.sqrt(2 * 255)


def worst(work, secret) -> float:
    """Over all that any party receives: each byte of words apart, and each received word less each share that the party has."""
    x = torch.full((N,), secret)
    shares, wired = [], wires()

    def keeping(party, s):
        shares.append((party.index, s))
        return work(party, s)

    run(keeping, x, wired=wired)
    found = []
    for index, held in shares:
        for link in wired[index].values():
            for body in link.seen[1:]:  # the first is the greeting
                if len(body) < 2000:
                    continue
                places = 8 if len(body) % (8 * 1000) == 0 else 1
                found += [surprise(body[place::places]) for place in range(places)]
                if len(body) == 8 * N:
                    word = torch.frombuffer(bytearray(body), dtype=torch.int64)
                    for mixed in (word - held.own, word + held.other, word - held.own * held.other, word ^ held.other):
                        found.append(surprise(mixed.numpy().tobytes()[::8]))
    assert len(found) > 5
    return max(found)


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_all_that_a_party_receives_is_uniform_for_either_secret(name, secret):
    """The bound of eight deviations is passed by chance less than once in 10^9 (the tail of chi-square with 255 degrees of freedom)."""
    assert worst(PROTOCOLS[name], secret) < 8


def heard_in_a_sum(secret) -> float:
    """Of the sum of a secret and its negative, of two owners: each byte of words that a party receives, also less what it knows."""
    wired, known = wires(), [torch.full((N,), float(secret)), torch.full((N,), -float(secret))]

    def work(party):
        return aggregate.aggregate(
            party, [1, 2], [known[0] if party.index == 1 else None, known[1] if party.index == 2 else None], (N,), 18
        )

    answers, _ = run(work, wired=wired)
    assert not any(a.any() for a in answers)
    bodies = [
        torch.frombuffer(bytearray(body), dtype=torch.int32) for row in wired for link in row.values() for body in link.seen[1:]
    ]
    assert len(bodies) == 5  # two inputs, three shares of the sum
    mixed = [b + c for i, b in enumerate(bodies) for c in [torch.zeros_like(b), *[s * (1 << 18) for s in (-1, 1)]]]
    return max(surprise(m.int().numpy().tobytes()[place::4]) for m in mixed for place in range(4))


@pytest.mark.parametrize("secret", SECRETS)
def test_what_a_party_hears_in_a_sum_is_uniform_for_either_secret(secret):
    assert heard_in_a_sum(secret) < 8


def test_a_planted_fault_a_sum_without_masks_is_caught(monkeypatch):
    monkeypatch.setattr(aggregate._Sum, "_mask", lambda self, key, op, piece, size: torch.zeros(size, dtype=torch.int32))
    assert heard_in_a_sum(-1) > 50


def test_a_planted_fault_no_zero_share_is_caught(monkeypatch):
    monkeypatch.setattr(multiply, "mask", lambda party, z: z)
    assert max(worst(PROTOCOLS["multiply"], s) for s in SECRETS) > 50


@pytest.mark.parametrize("name", ["truncate", "rectify", "sums put off"])
def test_a_planted_fault_a_part_that_goes_out_as_it_is_is_caught(name, monkeypatch):
    from syft_lab.mpc.aby3.draws import Draw
    from syft_lab.mpc.party import Party

    real = Party.words
    spread = (Draw.TRUNCATE_PARTS, Draw.TRUNCATE_SHARES)
    monkeypatch.setattr(Party, "words", lambda p, key, op, slot, shape: real(p, key, op, slot, shape) * (slot not in spread))
    assert max(worst(PROTOCOLS[name], s) for s in SECRETS) > 50


def test_a_planted_fault_no_zero_share_of_bits_is_caught(monkeypatch):
    monkeypatch.setattr(multiply, "mask_bits", lambda party, z: z)
    assert max(worst(PROTOCOLS["sign"], s) for s in SECRETS) > 50


def test_a_planted_fault_a_mask_that_is_used_again_is_caught(monkeypatch):
    from syft_lab.mpc.party import Party

    monkeypatch.setattr(Party, "step", lambda self: 1)
    with pytest.raises(errors.LabError, match="drawn twice"):
        run(lambda p, x: multiply.multiply(p, multiply.multiply(p, x, x), x), torch.arange(3))


def guess(x, y, received, held) -> float:
    """Does what came fit these secrets? A party knows its shares, and so the third ones if it knows the secrets."""
    (x1, x2), (y1, y2) = held
    third_x, third_y = x - x1 - x2, y - y1 - y2
    return surprise((received - (x2 * (y2 + third_y) + third_x * y2)).numpy().tobytes()[::8])


@pytest.mark.parametrize("planted", [False, True])
def test_who_guesses_the_secrets_can_not_tell_whether_they_are_right(planted, monkeypatch):
    """The distinguisher with all that a party knows: it fails, and succeeds without the zero-share."""
    if planted:
        monkeypatch.setattr(multiply, "mask", lambda party, z: z)
    x, y = torch.full((N,), -1), torch.full((N,), 5)
    wired, held = wires(), {}

    def work(party, a, b):
        held[party.index] = a, b
        return multiply.multiply(party, a, b)

    run(work, x, y, wired=wired)
    for index in range(3):
        received = torch.frombuffer(bytearray(wired[index][(index + 1) % 3].seen[1]), dtype=torch.int64)
        right, wrong = (guess(torch.full((N,), s), y, received, held[index]) for s in (-1, 0))
        assert (right > 1000 and wrong < right / 2) if planted else max(right, wrong) < 8


def test_shares_of_either_secret_are_uniform():
    for secret in SECRETS:
        answers, _ = run(lambda p, x: x, torch.full((N,), secret))
        assert max(surprise(a.own.numpy().tobytes()[place::8]) for a in answers for place in range(8)) < 8


# Messages that strangers, or faults, change


class Tampering(links.MemoryLink):
    """Does something to the n-th message that it sends."""

    seen: list
    n, how, sent = 3, None, 0
    kept = b""

    def send(self, head, body):
        self.sent += 1
        whole = head + bytes(body)
        changed = self.how(self, whole) if self.how and self.sent == self.n else [whole]
        self.kept = whole
        for message in changed:
            self._out.put(message)


WAYS = {
    "dropped": lambda link, m: [],
    "repeated": lambda link, m: [m, m],
    "of before": lambda link, m: [link.kept],
    "cut": lambda link, m: [m[:-1]],
    "longer": lambda link, m: [m + b"0"],
    "without a body": lambda link, m: [m[:48]],
    "nothing": lambda link, m: [b""],
    "another run": lambda link, m: [bytes([m[0] ^ 1]) + m[1:]],
    "another number": lambda link, m: [m[:32] + struct.pack("<I", 77) + m[36:]],
    "another length": lambda link, m: [m[:40] + struct.pack("<Q", 1) + m[48:]],
}


@pytest.mark.parametrize("n", [1, 2, 4, 7])
@pytest.mark.parametrize("way", WAYS)
def test_a_changed_message_ends_the_run_with_the_partners_name(way, n):
    wired = wires(Tampering)
    wired[0][1].how, wired[0][1].n = WAYS[way], n
    reached = []

    def work(party, x):
        for _ in range(8):
            x = convert.choose(party, x, [x])[0]
        reached.append(party.index)
        return x

    with pytest.raises(errors.PartnerError, match="alice|bob|carol") as raised:
        run(work, torch.arange(64), wired=wired, timeout=1)
    assert reached == []
    assert any(name in str(raised.value) for name in NAMES)


def test_an_untouched_run_of_the_same_passes():
    answers, _ = run(lambda p, x: convert.choose(p, x, [x])[0], torch.arange(-32, 32), wired=wires(Tampering))
    assert torch.equal(opened(answers), torch.arange(-32, 32).clamp(max=0))


@pytest.mark.parametrize(("theirs", "words"), [(b"syft-lab mpc 2\0\0", "carol has another version"),
                                               (party.VERSION + b"torch 1.0".ljust(16, b"\0"), "carol has 'torch 1.0', and alice")])  # fmt: skip
def test_partners_with_another_version_are_told(theirs, words):
    wired = wires()
    plain = wired[2][0].send
    wired[2][0].send = lambda head, body: plain(head, memoryview(theirs + bytes(body)[len(theirs) :]))
    with pytest.raises(errors.PartnerError, match=words):
        run(lambda p, x: x, torch.arange(3), wired=wired, timeout=1)
