"""From bits to numbers, by random bits that are shared both ways (daBits: Rotaru and Wood 2019) and hang on no input.

A daBit, with r = r0 ⊕ r1 ⊕ r2 and r_i = F(k_i) known to the parties i − 1 and i:

1. P0 knows r0 and r1. v = r0 ⊕ r1 becomes v = v0 + v1 with v0 = F(k_0), known to P0 and P2, and v1 = v − v0, which P0 sends
   to P1.
2. v·r2 = v0·r2 + v1·r2: P2 knows the one term, P1 the other. Its share 0 is F(k_0), share 1 is F(k_1), and share 2 the sum of
   v0·r2 − F(k_0) and v1·r2 − F(k_1), which P2 and P1 swap.
3. r = v + r2 − 2·v·r2, with r2 as share 2.

Two rounds; 64 bits from each party. P0 sees nothing; P1 sees v1 and P2's term, masked by draws of k_0, which it lacks; P2
sees P1's term, masked by k_1, which it lacks.

A shared bit b is a number once e = b ⊕ r is opened, which r hides: b = e + (1 − 2e)·r, and b·x = e·x + (1 − 2e)·(r·x): the
product r·x needs no e, and goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from syft_lab.mpc import bits
from syft_lab.mpc.aby3.compare import Half, K, carry, half_of, pairs, shared_bits
from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.aby3.multiply import masked, reshare_later
from syft_lab.mpc.aby3.open import reveal_bits, reveal_parts
from syft_lab.mpc.aby3.shares import Bits, Shared, plus, sub, xor
from syft_lab.mpc.aby3.truncate import Truncation
from syft_lab.mpc.party import Party


class DaBits(NamedTuple):
    """Random bits: ``bit`` as a plane (1, n/8), ``number`` as zeros and ones (n,)."""

    bit: Bits
    number: Shared


def dabits(party: Party, count: int) -> DaBits:
    """``count`` of them; see the module."""
    with party.preparing():
        op, me, shape = party.step(), party.index, (count,)
        own, other = (party.bits(key, op, Draw.DABIT_BIT, (1, bits.width(count))) for key in (party.index, party.next))
        first, second = bits.unpack(own[0], count).long(), bits.unpack(other[0], count).long()
        if me == 0:
            v0 = party.words(0, op, Draw.DABIT_FIRST, shape)
            v1 = (first ^ second) - v0
            party.send(1, v1)
            product = Shared(party.words(0, op, Draw.DABIT_SECOND, shape), party.words(1, op, Draw.DABIT_SECOND, shape))
            return DaBits(Bits(own, other), Shared(v0 - 2 * product.own, v1 - 2 * product.other))
        if me == 1:
            v1, r2, mask = party.receive(0, shape), second, party.words(1, op, Draw.DABIT_SECOND, shape)
            mine = v1 * r2 - mask
            party.send(2, mine)
            product = Shared(mask, mine + party.receive(2, shape))
            return DaBits(Bits(own, other), Shared(v1 - 2 * product.own, r2 - 2 * product.other))
        v0, r2, mask = party.words(0, op, Draw.DABIT_FIRST, shape), first, party.words(0, op, Draw.DABIT_SECOND, shape)
        mine = v0 * r2 - mask
        party.send(1, mine)
        product = Shared(mine + party.receive(1, shape), mask)
        return DaBits(Bits(own, other), Shared(r2 - 2 * product.own, v0 - 2 * product.other))


def numbers(party: Party, x: Bits, count: int) -> Shared:
    """Each plane as zeros and ones: (rows, count). One round."""
    rows, bytes_ = x.own.shape
    random = dabits(party, rows * bytes_ * 8)
    e = reveal_bits(party, xor(x, random.bit.map(lambda t: t.view(rows, bytes_))))
    opened = bits.unpack(e.view(-1), rows * bytes_ * 8)
    return _number(party, opened, random.number).map(lambda t: t.view(rows, -1)[:, :count])


def negative(party: Party, x: Shared, k: int = K) -> Shared:
    """1 where x < 0, else 0, for |x| < 2^(k−1)."""
    random = dabits(party, x.own.numel())
    e = _opened(party, carry(party, *pairs(party, shared_bits(party, half_of(party, x), k))), random)
    return _number(party, e, random.number).map(lambda t: t.view(x.own.shape))


def choose(party: Party, x: Shared, values: Sequence[Shared], k: int = K) -> list[Shared]:
    """Each of ``values`` where x < 0, else 0: bit injection. All have the same shape."""
    random, shape = dabits(party, x.own.numel()), x.own.shape
    flat = Shared(*(torch.stack([v[i].reshape(-1) for v in values]) for i in (0, 1)))
    product = reshare_later(party, masked(party, random.number, flat))
    e = _opened(party, carry(party, *pairs(party, shared_bits(party, half_of(party, x), k))), random)
    chosen = _injected(e, flat, product())
    return [Shared(chosen.own[i].view(shape), chosen.other[i].view(shape)) for i in range(len(values))]


def rectify(party: Party, z: Tensor, f: int, k: int = K) -> Shared:
    """The larger of z / 2^f and 0, of the parts of a product, in eight rounds: as many as the comparison needs, and one.

    Of z / 2^f the low 64 − f bits do not depend on whether the sum of the halves wraps. So, for k ≤ 64 − f:

    1. Truncation, step 1.
    2. Its step 2, and step 1 of the comparison.
    3. Its step 3, and step 2 of the comparison.
    4. The product of the daBits and the truncated numbers is sent; the tree goes on, to round 8, which opens e.
    """
    cut, count = Truncation(party, z, f), z.numel()
    random = dabits(party, count)
    halves = shared_bits(party, Half(cut.shape, cut.low), k)
    taken = cut.finish()
    p, g = pairs(party, halves)
    x = taken()
    flat = x.map(lambda t: t.reshape(-1))
    product = reshare_later(party, masked(party, random.number, flat))
    e = _opened(party, carry(party, p, g), random)
    below = _injected(e, flat, product()).map(lambda t: t.view(z.shape))
    return sub(x, below)


def _opened(party: Party, bit: tuple[Bits, Tensor], random: DaBits) -> Tensor:
    known, last = bit
    e = reveal_parts(party, known.own ^ last ^ random.bit.own)
    return bits.unpack(e[0], random.number.own.numel())


def _injected(e: Tensor, x: Shared, product: Shared) -> Shared:
    """Step e·x + (1 − 2e)·(r·x)."""
    sign = 1 - 2 * e
    return Shared(e * x.own + sign * product.own, e * x.other + sign * product.other)


def _number(party: Party, e: Tensor, r: Shared) -> Shared:
    sign = 1 - 2 * e
    return plus(party, r.map(lambda t: t * sign), e)
