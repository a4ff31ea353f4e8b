"""Opening to somebody who is no party: each party gives a part, and each part is one that two parties vouch for.

The value is x = x0 + x1 + x2, and share i is known to the parties i − 1 and i. Drawn anew in the turn are: a zero-share r0 +
r1 + r2 = 0, known to all three parties; and of key i, which the same two parties have, a seed s_i and a blind b_i.

1. e_i = x_i + r_i + F(s_i): both holders of share i can compute it.
2. Party i gives e_i and b_i, the seed s_{i+1}, and two vouchers: H(b_{i+1}, e_{i+1}) and H(s_i).
3. Who has all three parts compares each e_i, and each s_i, with the voucher of its other holder: x = Σ e_i − Σ F(s_i).

So share i leaves in two halves, e_i with the one holder's part and s_i with the other's: while one party keeps its part back,
no one party's knowledge and the third's part are enough (docs/mpc.md has the proof, case by case). The zero-share hides the
shares themselves from who has all parts: those of a + c and b + c, with a, b and c of three owners, add up to c otherwise.

A party that changes its part is found out by the other holder's voucher. Who of the two lied can't be told.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from syft_lab.errors import VerificationError
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.party import PARTIES, Party
from syft_lab.mpc.randomness import CIPHER_BYTES, KEY_BYTES, Stream, turn_key


class Part(NamedTuple):
    """What party i gives: e_i (int64), b_i, s_{i+1}, H(b_{i+1}, e_{i+1}) and H(s_i)."""

    masked: Tensor
    blind: bytes
    seed: bytes
    next_masked: bytes
    own_seed: bytes

    def to_bytes(self) -> bytes:
        """As it travels: four times 32 bytes, and the numbers."""
        return b"".join([self.blind, self.seed, self.next_masked, self.own_seed, _bytes(self.masked)])


def give(party: Party, x: Shared) -> Part:
    """Steps 1 and 2, in a turn of their own."""
    zero = _zero_share(party, x.own.shape)
    seeds, blinds = ({key: party.secret(key, use) for key in (party.index, party.next)} for use in ("seed", "blind"))
    own, other = (
        share.cpu() + zero[key] + _mask(seeds[key], share.shape)
        for key, share in ((party.index, x.own), (party.next, x.other))
    )  # fmt: skip
    return Part(own, blinds[party.index], seeds[party.next],
                _voucher("masked", party.next, blinds[party.next], _bytes(other)),
                _voucher("seed", party.index, seeds[party.index]))  # fmt: skip


def joined(parts: Sequence[bytes], shape: Sequence[int], names: Sequence[str]) -> Tensor:
    """Step 3: the value as int64, of the parts of all parties in their order, as bytes.

    Raises VerificationError with the names of two owners who don't vouch for the same, or of one whose part has another form.
    """
    given = [_parsed(part, shape, name) for part, name in zip(parts, names, strict=True)]
    doubts = [f"{names[i - 1]} and {names[i]}" for i in range(PARTIES) if not _vouched(i, given[i], given[i - 1])]
    if doubts:
        raise VerificationError(f"{', '.join(doubts)} say different things of a part of this value that both hold: one of the "
                                "two changed it, which one can't be told from here, and no value is made of it")  # fmt: skip
    total = torch.zeros(tuple(shape), dtype=torch.int64)
    for part in given:
        total += part.masked - _mask(part.seed, shape)
    return total


def _vouched(i: int, own: Part, before: Part) -> bool:
    """Whether party i and the one before it say the same of e_i, and of s_i."""
    masked = _voucher("masked", i, own.blind, _bytes(own.masked))
    seed = _voucher("seed", i, before.seed)
    return hmac.compare_digest(masked, before.next_masked) and hmac.compare_digest(seed, own.own_seed)


def _zero_share(party: Party, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    stream = Stream(turn_key(party.common, party.run, "zero-share")[:CIPHER_BYTES])
    first, second = (stream.words(0, slot, shape) for slot in (0, 1))
    return first, second, -first - second


def _mask(seed: bytes, shape: Sequence[int]) -> Tensor:
    return Stream(turn_key(seed, b"", "mask")[:CIPHER_BYTES]).words(0, 0, shape)


def _voucher(of: str, index: int, *what: bytes) -> bytes:
    return hashlib.sha256(b"".join([f"syft-lab voucher {of} {index}\0".encode(), *what])).digest()


def _bytes(words: Tensor) -> bytes:
    whole: bytes = words.contiguous().numpy().tobytes()
    return whole


def _parsed(data: bytes, shape: Sequence[int], name: str) -> Part:
    count, at = math.prod(shape), 4 * KEY_BYTES
    if len(data) != at + 8 * count:
        raise VerificationError(f"{name}'s part of this value has another form than it should: bring all owners, and yourself, "
                                "to the same release of Syft Lab, and ask for the value again")  # fmt: skip
    blind, seed, next_masked, own_seed = (data[i : i + KEY_BYTES] for i in range(0, at, KEY_BYTES))
    words = torch.frombuffer(bytearray(data[at:]), dtype=torch.int64) if count else torch.empty(0, dtype=torch.int64)
    return Part(words.reshape(tuple(shape)), blind, seed, next_masked, own_seed)
