"""Functions of shared fixed-point numbers, made of the protocols: what each party does, alike.

``x`` and ``y`` are `Shared` with ``f`` fraction bits. Sources and error bounds: docs/mpc.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch

from syft_lab.errors import UsageError
from syft_lab.mpc.aby3 import convert, decompose
from syft_lab.mpc.aby3.multiply import Bilinear, double_part, multiply, part
from syft_lab.mpc.aby3.shares import Shared, add, joined, plus, sub
from syft_lab.mpc.aby3.truncate import truncate
from syft_lab.mpc.party import Party

NORMAL = 32  # bits of a positive number that is normalised
FINE = 29  # fraction bits of numbers up to 4, whose products stay below 2^61
MOST = 18  # fraction bits of shares
EXP_LOWEST = -20.0
SMALL = 13  # a factor below 2^−SMALL is, and what it meets may be large: a sum of many


class Series(NamedTuple):
    """How e^x is made of e^(x/2^halvings): with which fraction bits its powers, and a 24th. Products stay below 2^60.3."""

    halvings: int
    bits: int
    weight: int


EVEN, STEEP = Series(4, 25, 12), Series(6, 27, 14)  # off by 2.5e-6; by 1e-5 of the value where e^(x + 7.6) is above 1


@dataclass(frozen=True)
class Fixed:
    """The functions at one party: ``f`` fraction bits, and ``k`` bits in which differences of numbers lie."""

    party: Party
    f: int
    k: int

    def __post_init__(self) -> None:
        if self.f % 2 or not 2 <= self.f <= MOST or self.k % 8 or not 8 <= self.k <= 63 - self.f:
            raise UsageError(f"shares have an even number of fraction bits, 2 to {MOST}, and compare a "
                             "multiple of 8 bits, 8 to 63 less those")  # fmt: skip

    # Products

    def product(self, x: Shared, y: Shared, bilinear: Bilinear = torch.mul) -> Shared:
        """x·y, or another bilinear map of both; error of at most 2^−f."""
        return truncate(self.party, double_part(self.party, x, y, bilinear), self.f + 1)

    def scaled(self, x: Shared, factor: float) -> Shared:
        """x times a number that everybody knows; error of 2^−f, and of 2^−f of the value.

        A small factor, such as a hundredth, has f bits from its highest on: with f after the point it would be off by 2e-4.
        Where it is very small, as for the mean of a million, a power of two goes first: the product would hold sums below
        2^26 only.
        """
        if factor == int(factor):
            return x.map(lambda t: t * int(factor))
        drop = min(60, -math.frexp(factor)[1])
        if drop >= SMALL:
            return self.scaled(truncate(self.party, x, drop), factor * 2.0**drop)
        bits = min(60, self.f + max(0, -math.frexp(factor)[1]))
        return truncate(self.party, x.map(lambda t: t * round(factor * 2.0**bits)), bits)

    def constant(self, x: Shared, number: float) -> Shared:
        """x plus a number that everybody knows."""
        return plus(self.party, x, round(number * 2.0**self.f))

    # Comparisons: zeros and ones, without fraction bits

    def negative(self, x: Shared) -> Shared:
        """x < 0."""
        return convert.negative(self.party, x, self.k)

    def absolute(self, x: Shared) -> Shared:
        """|x|."""
        return sub(x, convert.choose(self.party, x, [x], self.k)[0].map(lambda t: 2 * t))

    def relu(self, x: Shared) -> Shared:
        """x where it is positive, else 0."""
        return sub(x, convert.choose(self.party, x, [x], self.k)[0])

    def larger(self, x: Shared, y: Shared) -> Shared:
        """The larger of each two."""
        difference = sub(x, y)
        return sub(x, convert.choose(self.party, difference, [difference], self.k)[0])

    def largest(self, x: Shared, dim: int) -> Shared:
        """The largest along a dimension, which vanishes; ⌈log2 n⌉ comparisons one after the other."""
        return self._tournament([x.map(lambda t: t.movedim(dim, 0))])[0]

    def which_largest(self, x: Shared, dim: int) -> tuple[Shared, Shared]:
        """The largest, and its place (of equal ones the first), as a whole number."""
        front = x.map(lambda t: t.movedim(dim, 0))
        places = torch.arange(front.own.shape[0], device=front.own.device).view(-1, *[1] * (front.own.dim() - 1))
        where = plus(self.party, front.map(torch.zeros_like), places.expand(front.own.shape))
        best, place = self._tournament([front, where])
        return best, place

    def _tournament(self, rivals: list[Shared]) -> list[Shared]:
        """Neighbours along the first dimension are compared by the first of ``rivals``; the others go with it."""
        while (count := rivals[0].own.shape[0]) > 1:
            even = count // 2 * 2
            first, second, rest = ([_rows(x, rows) for x in rivals]
                                   for rows in (slice(0, even, 2), slice(1, even, 2), slice(even, None)))  # fmt: skip
            differences = [sub(a, b) for a, b in zip(first, second, strict=True)]
            taken = convert.choose(self.party, differences[0], differences, self.k)
            won = [sub(a, t) for a, t in zip(first, taken, strict=True)]
            rivals = [joined(a, r) for a, r in zip(won, rest, strict=True)]
        return [x.map(lambda t: t[0]) for x in rivals]

    def where(self, condition: Shared, x: Shared, y: Shared) -> Shared:
        """x where the condition (zeros and ones) is 1, else y."""
        return add(y, multiply(self.party, condition, sub(x, y)))

    # By series, and by Newton's and Goldschmidt's methods, with more fraction bits inside

    def exp(self, x: Shared) -> Shared:
        """e^x for x ≤ (29 − f) ln 2, which is 7.6: e^(x − that), whose last bit weighs 2^(29 − f) times as much."""
        return self._falling(self.constant(x, -(FINE - self.f) * math.log(2)), STEEP, FINE)

    def _falling(self, x: Shared, by: Series, bits: int) -> Shared:
        """e^x for x ≤ 0 with ``bits`` fraction bits; below −20 it is that of −20.

        It is (1 + y + y²/2 + y²(4y + y²)/24)^(2^n) with y = x/2^n.
        """
        lowest = self.constant(x, -EXP_LOWEST)
        clipped = sub(x, convert.choose(self.party, lowest, [lowest], self.k)[0])
        y = clipped.map(lambda t: t << (by.bits - self.f - by.halvings))
        square = self._fine(y, y, by.bits)
        rest = add(y.map(lambda t: 4 * t), square).map(lambda t: t * round(2**by.weight / 24))
        low = add(y.map(lambda t: 2 * t), square).map(lambda t: t << (FINE - by.bits - 1))
        power = plus(self.party, add(low, self._fine(square, rest, 2 * by.bits + by.weight - FINE)), 1 << FINE)
        for _ in range(by.halvings - 1):
            power = self._fine(power, power)
        return self._fine(power, power, 2 * FINE - bits)

    def _fine(self, x: Shared, y: Shared, drop: int = FINE) -> Shared:
        """x·y, mostly with ``FINE`` fraction bits each, less ``drop`` of those of the product."""
        return truncate(self.party, part(x, y), drop)

    def sigmoid(self, x: Shared) -> Shared:
        """1 / (1 + e^−x): of −|x|, and 1 less that where x is positive."""
        negative, minus = self._signed(x)
        falling = self._falling(minus, EVEN, FINE - 1)
        u = plus(self.party, falling, 1 << (FINE - 1))  # half of 1 + e^−|x|
        positive = truncate(self.party, self._inverse(u), FINE - self.f + 1)
        # where x < 0: 1 − positive
        turned = self.constant(positive.map(lambda t: -2 * t), 1.0)
        return add(positive, multiply(self.party, negative, turned))

    def softmax(self, x: Shared, dim: int) -> Shared:
        """e^x over its sum along a dimension, the largest x taken off first."""
        top = self.largest(x, dim).map(lambda t: t.unsqueeze(dim))
        powers = self._falling(sub(x, top), EVEN, self.f)
        return self.divide(powers, powers.map(lambda t: t.sum(dim, keepdim=True)), positive=True)

    def divide(self, y: Shared, x: Shared, positive: bool = False) -> Shared:
        """y / x, for 2^−f ≤ |x| < 2^(31−f) and a quotient in range; ``positive``: x is known to be."""
        if not positive:
            negative, minus = self._signed(x)
            x = minus.map(torch.neg)
            y = sub(y, multiply(self.party, negative, y).map(lambda t: 2 * t))
        u, power = self._normal(x)
        scaled = truncate(self.party, part(y, self._inverse(u)), FINE)
        return truncate(self.party, part(scaled, power(lambda s: 2**s)), NORMAL - self.f)

    def reciprocal(self, x: Shared) -> Shared:
        """1/x; see `divide`."""
        one = plus(self.party, x.map(torch.zeros_like), torch.full_like(x.own, 1 << self.f))
        return self.divide(one, x)

    def inverse_root(self, x: Shared) -> Shared:
        """1/√x, for 2^−f ≤ x < 2^(31−f)."""
        u, power = self._normal(x, even=True)
        w = self._inverse_root(u)
        return truncate(self.party, part(w, power(lambda s: 2 ** (s // 2))), FINE + NORMAL // 2 - self.f - self.f // 2)

    def root(self, x: Shared) -> Shared:
        """√x, for 0 ≤ x < 2^(31−f): u/√u, and half of its power of two back."""
        u, power = self._normal(x, even=True)
        w = self._fine(u, self._inverse_root(u))
        return truncate(self.party, part(w, power(lambda s: 2 ** (NORMAL // 2 - s // 2))), FINE - self.f // 2)

    def _inverse_root(self, u: Shared) -> Shared:
        """1/√u for 1/4 ≤ u ≤ 1, both with ``FINE`` fraction bits, by three steps of Newton's; of 0 it is below 8."""
        w = plus(self.party, self._times(u, -1.25), round(2.2 * 2**FINE))
        for _ in range(3):
            square = self._fine(w, w)
            rest = plus(self.party, self._fine(u, square).map(torch.neg), 3 << FINE)
            w = self._fine(w, rest, FINE + 1)
        return w

    def _signed(self, x: Shared) -> tuple[Shared, Shared]:
        """Whether x < 0, and −|x|."""
        negative = self.negative(x)
        return negative, sub(multiply(self.party, negative, x).map(lambda t: 2 * t), x)

    def _times(self, x: Shared, factor: float) -> Shared:
        bits = 8
        return truncate(self.party, x.map(lambda t: t * round(factor * 2**bits)), bits)

    def _inverse(self, u: Shared) -> Shared:
        """1/u for 1/2 ≤ u ≤ 1, both with ``FINE`` fraction bits (Goldschmidt 1964).

        A line w is off by e = 1 − u·w, of at most 0.086; w·(1 + e)(1 + e²)(1 + e⁴) by e⁸. The next e and w are made together.
        """
        w = plus(self.party, u.map(lambda t: -2 * t), round(2.9142 * 2**FINE))
        e = plus(self.party, self._fine(u, w).map(torch.neg), 1 << FINE)
        for _ in range(2):
            both = self._fine(Shared(*(torch.stack(t) for t in zip(e, w, strict=True))), e)
            e, w = both.map(lambda t: t[0]), add(w, both.map(lambda t: t[1]))
        return add(w, self._fine(w, e))

    def _normal(self, x: Shared, even: bool = False) -> tuple[Shared, Callable[[Callable[[int], int]], Shared]]:
        """u = x·2^s / 2^32 in [1/2, 1), with ``FINE`` fraction bits; with ``even`` x·4^(s // 2) / 2^32 in [1/4, 1).

        What it gives beside makes shares of a number that depends on s, which nobody knows. The highest bit is found by a
        prefix ∨; the number is a sum over its steps, each of which becomes a number.
        """
        shape, count = x.own.shape, x.own.numel()
        above = decompose.any_above(self.party, decompose.decompose(self.party, x, NORMAL))
        steps = convert.numbers(self.party, above, count)

        def power(of: Callable[[int], int]) -> Shared:
            values = [of(NORMAL - 1 - j) for j in range(NORMAL)]
            weights = [values[0], *(b - a for a, b in pairwise(values))]
            column = torch.tensor(weights, device=x.own.device).view(-1, 1)
            return steps.map(lambda t: (t * column).sum(0).view(shape))

        factor = power((lambda s: 4 ** (s // 2)) if even else (lambda s: 2**s))
        return truncate(self.party, part(x, factor), NORMAL - FINE), power


def _rows(x: Shared, rows: slice) -> Shared:
    return Shared(x.own[rows], x.other[rows])
