"""Dividing by 2^f, in the same step as the resharing of a product. A composition of this project: docs/mpc.md proves it.

Given z = z0 + z1 + z2, one part at each party, with |z| < 2^62:

1. P2 sends z2 − s to P1, with s = F(k_0) of P0 and P2. P0 now has a = z0 + s and P1 has b = z1 + z2 − s, with a + b = z; let
   a' = a + 2^62, so that a' + b = z + 2^62 =: z' lies in (0, 2^63). With u and v the top bits of a' and b, the sum a' + b
   wraps around 2^64 if and only if w = u ∨ v is 1, and

       (a' ≫ f) + (b ≫ f) − w·2^(64−f) − 2^(62−f) + 1  is  z / 2^f, rounded up with the probability of its fraction, else down.

2. P0 and P1 get additive parts of 1 − w = ¬u ∧ ¬v modulo 2^f: with α = F(k_0) of P0 and P2, β = F(k_2) of P1 and P2, P2
   deals parts of αβ, g0 = F(k_0) and g1 = αβ − g0 (to P1, with step 1); P0 and P1 swap d = ¬u ⊕ α and e = ¬v ⊕ β. P2 must
   not see d and e.
3. Of the result t = t0 + t1, share 0 is r0 = F(k_0), share 2 is r2 = F(k_2), and share 1 is (t0 − r0) + (t1 − r2): P0 and
   P1 swap the terms.

Three rounds. Bits of an element: 64 + f (in whole bytes) from P2, 1 + 64 each from P0 and P1. The rounding is unbiased (a
is uniform, so that the fractions of a and b that are cut off add up to 1 − 2^−f on average, which the 1 makes good), and
none where none is needed, but once in 2^f.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from syft_lab.mpc import bits
from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.party import Party


def truncate(party: Party, z: Tensor | Shared, f: int) -> Shared:
    """Shares of z / 2^f, rounded at random; |z| < 2^62, 1 ≤ f ≤ 60.

    Of a product as its parts, which nobody masked yet, or of shares: then P1 has z2 already, and s is F(k_1), of P0 and P1.
    """
    return Truncation(party, z, f).finish()()


class Truncation:
    """A truncation under way, after step 1; what else waits for no more than that goes on beside it.

    ``low`` is, at P0 and P1, what is t0 and t1 but for a multiple of 2^(64−f) of their sum; None at P2.
    """

    def __init__(self, party: Party, z: Tensor | Shared, f: int) -> None:
        self._party, self._f, self._op = party, f, party.step()
        part = z if isinstance(z, Tensor) else z.own
        self.shape = part.shape
        self.low: Tensor | None = None
        if party.index == 2:
            _deal(party, self._op, z, f)
            return
        if party.index == 0:
            half = (
                party.words(0, self._op, Draw.TRUNCATE_PARTS, self.shape)
                if isinstance(z, Tensor)
                else party.words(1, self._op, Draw.TRUNCATE_SHARES, self.shape)
            )
            half.add_(part).add_(1 << 62)
            self._gift = party.words(0, self._op, Draw.TRUNCATE_GIFT, self.shape)
            constant = 1 - (1 << (62 - f))
        else:
            if isinstance(z, Tensor):
                half = part + party.receive(2, self.shape)
            else:
                half = part + z.other - party.words(1, self._op, Draw.TRUNCATE_SHARES, self.shape)
            self._gift = _whole(party.receive(2, (part.numel(), _size(f)), torch.uint8)).view(self.shape)
            constant = -(1 << (64 - f))
        self._swapped = _swap(party, self._op, half)
        self.low = (half >> f).bitwise_and_((1 << (64 - f)) - 1).add_(constant)

    def finish(self) -> Callable[[], Shared]:
        """Step 3, sent now and taken later."""
        party, op, me = self._party, self._op, self._party.index
        if self.low is None:
            found = Shared(
                party.words(2, op, Draw.TRUNCATE_RESULT, self.shape), party.words(0, op, Draw.TRUNCATE_RESULT, self.shape)
            )
            return lambda: found
        not_wrapped = _not_wrapped(me, *self._swapped(), self._gift)
        mask = party.words(0 if me == 0 else 2, op, Draw.TRUNCATE_RESULT, self.shape)
        mine = (not_wrapped << (64 - self._f)).add_(self.low).sub_(mask)
        party.send(1 - me, mine)
        theirs = party.later(1 - me, self.shape)

        def take() -> Shared:
            middle = mine + theirs()
            return Shared(mask, middle) if me == 0 else Shared(middle, mask)

        return take


def _deal(party: Party, op: int, z: Tensor | Shared, f: int) -> None:
    """Step 1, and the gift of step 2, at P2."""
    if isinstance(z, Tensor):
        party.send(1, z - party.words(0, op, Draw.TRUNCATE_PARTS, z.shape))
    shape = z.shape if isinstance(z, Tensor) else z.own.shape
    count = math.prod(shape)
    alpha, beta = (party.bits(key, op, Draw.TRUNCATE_BIT, (bits.width(count),)) for key in (0, 2))
    gift = bits.unpack(alpha & beta, count).long() - party.words(0, op, Draw.TRUNCATE_GIFT, (count,))
    party.send(1, gift.view(torch.uint8).view(count, 8)[:, : _size(f)])


def _swap(party: Party, op: int, half: Tensor) -> Callable[[], tuple[Tensor, Tensor, Tensor]]:
    """Step 2, sent now and taken later: d, e, and the mask of the one that is this party's."""
    me, count = party.index, half.numel()
    secret = bits.unpack(party.bits(0 if me == 0 else 2, op, Draw.TRUNCATE_BIT, (bits.width(count),)), count)
    mine = (half.reshape(-1) >= 0).view(torch.int8) ^ secret
    packed = bits.pack(mine)
    party.send(1 - me, packed)
    heard = party.later(1 - me, packed.shape, torch.uint8)

    def take() -> tuple[Tensor, Tensor, Tensor]:
        theirs = bits.unpack(heard(), count)
        return (mine, theirs, secret) if me == 0 else (theirs, mine, secret)

    return take


def _not_wrapped(me: int, d: Tensor, e: Tensor, secret: Tensor, gift: Tensor) -> Tensor:
    """An additive part of ¬u ∧ ¬v, modulo 2^f.

    It is (d + (1 − 2d)α)(e + (1 − 2e)β), of which P0 adds the terms with α alone, P1 those with β alone and with neither.
    """
    alone = e * (1 - 2 * d) * secret if me == 0 else d * e + d * (1 - 2 * e) * secret
    return (gift * (1 - 2 * (d ^ e)).view(gift.shape)).add_(alone.view(gift.shape))


def _size(f: int) -> int:
    return -(-f // 8)


def _whole(low: Tensor) -> Tensor:
    """Numbers of which only the low bytes came."""
    padded = torch.zeros(low.shape[0], 8, dtype=torch.uint8, device=low.device)
    padded[:, : low.shape[1]] = low
    return padded.view(torch.int64).view(-1)
