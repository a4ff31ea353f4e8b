"""The bits of a shared number: all sums of a carry-save pair, by a prefix tree (Ladner and Fischer 1980; ABY3 section 3.4).

1. As in `compare`: shares of the bits of a = x0 + x1 and b = x2, p = a ⊕ b and g = a ∧ b; here of all k bits.
2. In level i, each position whose bit i is set takes in the last position of the block of 2^i below it: (g, p) becomes (g ⊕
   p ∧ g', p ∧ p'). After ⌈log2 k⌉ levels g_j is the carry out of position j.
3. Bit j of x is p_j ⊕ g_{j−1}.

And the highest set bit, by a prefix tree of ∨ from above, for normalising.
"""

from __future__ import annotations

import torch

from syft_lab.mpc.aby3.compare import half_of, shared_bits
from syft_lab.mpc.aby3.multiply import both
from syft_lab.mpc.aby3.shares import Bits, Shared, joined, xor
from syft_lab.mpc.party import Party


def decompose(party: Party, x: Shared, k: int) -> Bits:
    """The low ``k`` bits of x, a plane each, the lowest first; 1 + 1 + log2 k rounds."""
    a, b = shared_bits(party, half_of(party, x), k)
    p = propagate = xor(a, b)
    g = both(party, a, b)
    for upper, lower in _levels(k):
        made = both(party, joined(_at(propagate, upper), _at(propagate, upper)), joined(_at(g, lower), _at(propagate, lower)))
        count = len(upper)
        g = _put(g, upper, xor(_at(g, upper), made.rows(slice(0, count))))
        propagate = _put(propagate, upper, made.rows(slice(count, None)))
    carried = Bits(*(torch.cat([torch.zeros_like(t[:1]), t[: k - 1]]) for t in g))
    return xor(p, carried)


def any_above(party: Party, x: Bits) -> Bits:
    """Plane j: whether bit j, or one above it, is set. log2 k rounds."""
    k = x.own.shape[0]
    found = x.map(lambda t: t.flip(0))
    for upper, lower in _levels(k):
        high, low = _at(found, upper), _at(found, lower)
        found = _put(found, upper, xor(xor(high, low), both(party, high, low)))
    return found.map(lambda t: t.flip(0))


def _levels(k: int) -> list[tuple[list[int], list[int]]]:
    levels, width = [], 1
    while width < k:
        upper = [j for j in range(k) if j & width]
        levels.append((upper, [j // width * width - 1 for j in upper]))
        width *= 2
    return levels


def _at(x: Bits, rows: list[int]) -> Bits:
    return x.map(lambda t: t[rows])


def _put(x: Bits, rows: list[int], new: Bits) -> Bits:
    own, other = x.own.clone(), x.other.clone()
    own[rows], other[rows] = new.own, new.other
    return Bits(own, other)
