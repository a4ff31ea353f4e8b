"""Is x < 0? A composition of this project, for numbers whose low k bits tell: |x| < 2^(k−1). docs/mpc.md proves it.

Given x = a + b modulo 2^64, with a at P0 and b at P1, of which the low k bits are wanted:

1. P0 and P1 swap shares of the bits: a's are (F(k_0), a ⊕ F(k_0), 0), b's are (0, b ⊕ F(k_2), F(k_2)).
2. p = a ⊕ b and g = a ∧ b, bit by bit: one round.
3. The carry into bit k − 1 is what a tree makes of the k − 1 lower pairs, (g, p) above (g', p') being (g ⊕ p ∧ g', p ∧ p'):
   ⌈log2(k − 1)⌉ rounds, in each of which all products are one message. The lowest p is never needed.
4. The sign is p_{k−1} ⊕ carry.

For k = 32: 86 AND gates, 1 + 1 + 5 rounds; 86 bits of an element from each party, and 32 more from P0 and from P1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from syft_lab.mpc import bits
from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.aby3.multiply import both, masked_and
from syft_lab.mpc.aby3.shares import Bits, Shared, joined, xor
from syft_lab.mpc.party import Party

K = 32


def sign(party: Party, x: Shared, k: int = K) -> Bits:
    """One plane: 1 where x < 0, for |x| < 2^(k−1); k is a multiple of 8."""
    known, last = carry(party, *pairs(party, shared_bits(party, half_of(party, x), k)))
    party.send(party.previous, last)
    return xor(known, Bits(last, party.receive(party.next, last.shape, torch.uint8)))


def half_of(party: Party, x: Shared) -> Half:
    """What P0, and P1, adds up to x with the other: x0 + x1, and x2."""
    return Half(x.own.shape, (x.own + x.other, x.other, None)[party.index])


class Half(NamedTuple):
    """A number of this shape as a + b, of which P0 and P1 have one each; only the low bits count."""

    shape: Sequence[int]
    mine: Tensor | None


def shared_bits(party: Party, x: Half, k: int) -> tuple[Bits, Bits]:
    """Step 1: shares of the low k bits of a and b."""
    op, me = party.step(), party.index
    shape = (k, bits.width(math.prod(x.shape)))
    none = torch.zeros(shape, dtype=torch.uint8, device=party.device)
    r0 = party.bits(0, op, Draw.COMPARE_BITS, shape) if me != 1 else none
    r2 = party.bits(2, op, Draw.COMPARE_BITS, shape) if me != 0 else none
    if x.mine is None:
        return Bits(none, r0), Bits(r2, none)
    mine = bits.planes(x.mine.reshape(-1), k) ^ (r0 if me == 0 else r2)
    party.send(1 - me, mine)
    theirs = party.receive(1 - me, shape, torch.uint8)
    a, b = (mine, theirs) if me == 0 else (theirs, mine)
    return (Bits(r0, a), Bits(none, b)) if me == 0 else (Bits(a, none), Bits(b, r2))


def pairs(party: Party, halves: tuple[Bits, Bits]) -> tuple[Bits, Bits]:
    """Step 2: p of all k bits, g of all but the highest."""
    a, b = halves
    rest = slice(0, a.own.shape[0] - 1)
    return xor(a, b), both(party, a.rows(rest), b.rows(rest))


def carry(party: Party, p: Bits, g: Bits) -> tuple[Bits, Tensor]:
    """Steps 3 and 4 before the last message: shares, and masked parts, of what is the sign together."""
    top = p.rows(slice(-1, None))
    high = p.rows(slice(1, -1))  # from here on high[i] belongs to g[i + 1]: the lowest p is not kept
    while g.own.shape[0] > 2:
        g, high = _level(party, g, high)
    last = masked_and(party, high, g.rows(slice(0, 1)))
    return xor(top, g.rows(slice(1, 2))), last


def _level(party: Party, g: Bits, p: Bits) -> tuple[Bits, Bits]:
    """One level of the tree: neighbours are joined; one that has none stays."""
    count = g.own.shape[0]
    pairs = count // 2
    p_above = p.rows(slice(0, 2 * pairs - 1, 2))
    left = joined(p_above, p_above.rows(slice(1, None)))
    right = joined(g.rows(slice(0, 2 * pairs, 2)), p.rows(slice(1, 2 * pairs - 2, 2)))
    made = both(party, left, right)
    merged, kept = xor(g.rows(slice(1, 2 * pairs, 2)), made.rows(slice(0, pairs))), made.rows(slice(pairs, None))
    if count % 2:
        merged, kept = joined(merged, g.rows(slice(-1, None))), joined(kept, p.rows(slice(-1, None)))
    return merged, kept
