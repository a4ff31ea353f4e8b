"""Products of shares: ABY3 section 3.2.1, after Araki, Furukawa, Lindell, Nof and Ohara (2016).

x·y is the sum of the nine products x_a·y_b. Party i can make three of them, with x_i, x_{i+1}, y_i and y_{i+1}:

1. z_i = x_i·(y_i + y_{i+1}) + x_{i+1}·y_i + α_i, where α_i = F(k_i) − F(k_{i+1}): the three α add up to 0.
2. Party i sends z_i to party i − 1, which holds it as its second share.

One round; 64 bits of each element of the *result* from each party, however many products are summed in it. Any bilinear map
will do in place of the product: matrices, convolutions. For bits, + and − are ⊕ and · is ∧.

Where *twice* the product will do (a truncation follows, which drops one bit more), a party needs one product, not two. What it
has is a point of Shamir's sharing (Cramer, Damgård and Ishai 2005): of the line p(t) = x0 + x1·(1 − t) + x2·(1 − 2t), P0 knows
p(1/2), P1 the slope, P2 p(1). The product of two lines is a parabola, r(t) = c0 + c1·t + c2·t², of which c0 = x·y is wanted,
and 2·c0 = 4·r(1/2) + c2 − 2·r(1), a term for each party (docs/mpc.md):

    2·x·y = (2·x0 + x1)(2·y0 + y1) + (x1 + 2·x2)(y1 + 2·y2) − 2·(x0 − x2)(y0 − y2)   modulo 2^64.

What a party sees: party i − 1 sees z_i, in which F(k_{i+1}), with a key that it lacks, masks everything: it is uniform,
whatever x and y are, and independent of what it saw before. α is added to each element before it is sent, always: without it
z_i tells of x_{i+1} y_i. Where a truncation follows, that masks what it sends.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.aby3.shares import Bits, Shared
from syft_lab.mpc.party import Party

Bilinear = Callable[[Tensor, Tensor], Tensor]


def multiply(party: Party, x: Shared, y: Shared, product: Bilinear = torch.mul) -> Shared:
    """x·y in the ring, or another bilinear map of both; see the module."""
    return reshare(party, masked(party, x, y, product))


def masked(party: Party, x: Shared, y: Shared, product: Bilinear = torch.mul) -> Tensor:
    """Step 1: z_i, which the three parties' make the product of."""
    return mask(party, part(x, y, product))


def part(x: Shared, y: Shared, product: Bilinear = torch.mul) -> Tensor:
    """Step 1 before it is masked: it tells of both, and is for `truncate`, which masks it."""
    z = product(x.own, y.own + y.other)
    z += product(x.other, y.own)
    return z


def double_part(party: Party, x: Shared, y: Shared, product: Bilinear = torch.mul) -> Tensor:
    """As `part`, but of 2·x·y, by one product at each party."""
    z = product(_point(party.index, x), _point(party.index, y))
    return z.mul_(-2) if party.index == 2 else z


def _point(index: int, x: Shared) -> Tensor:
    """What party ``index`` knows of the line, without its denominator."""
    if index == 0:
        return torch.add(x.other, x.own, alpha=2)
    return torch.add(x.own, x.other, alpha=2) if index == 1 else x.other - x.own


def mask(party: Party, z: Tensor) -> Tensor:
    """z_i + α_i: whatever the three z add up to, each alone tells nothing."""
    op = party.step()
    return z + party.words(party.index, op, Draw.ZERO_WORDS, z.shape) - party.words(party.next, op, Draw.ZERO_WORDS, z.shape)


def reshare(party: Party, z: Tensor) -> Shared:
    """Step 2."""
    return reshare_later(party, z)()


def reshare_later(party: Party, z: Tensor) -> Callable[[], Shared]:
    """Step 2, sent now and taken later: other operations need not wait for it."""
    party.send(party.previous, z)
    taken = party.later(party.next, z.shape)
    return lambda: Shared(z, taken())


def both(party: Party, x: Bits, y: Bits) -> Bits:
    """x ∧ y, plane by plane."""
    z = masked_and(party, x, y)
    party.send(party.previous, z)
    return Bits(z, party.receive(party.next, z.shape, torch.uint8))


def masked_and(party: Party, x: Bits, y: Bits) -> Tensor:
    """Step 1 for bits."""
    z = (y.own ^ y.other).bitwise_and_(x.own)
    z ^= x.other & y.own
    return mask_bits(party, z)


def mask_bits(party: Party, z: Tensor) -> Tensor:
    """`mask` for bits."""
    op = party.step()
    return z ^ party.bits(party.index, op, Draw.ZERO_BITS, z.shape) ^ party.bits(party.next, op, Draw.ZERO_BITS, z.shape)
