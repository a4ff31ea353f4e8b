"""The sum of vectors that parties know, opened to all: secure aggregation among the owners, for models and gradients.

It is `input`, an addition and `open`, modulo 2^32 and a piece at a time. For input j of party o, and each piece:

    1. o and the party before it draw F(k_o); o sends x_j − F(k_o) to the next party. As `input`: F(k_o), x_j − F(k_o) and 0.
    2. Each party adds up its two shares over all inputs.
    3. Party i sends its sum share i to party i + 1, which adds all three. As `open`.

What is sent and seen is as in those two, so their arguments hold: masks of 32 bits are uniform modulo 2^32. Such shares can be
added and opened, nothing else; hence their own protocol. The sum must be below 2^31: each party checks its own inputs for that.
Pieces stay in a processor's cache, and only the sum is kept whole. Later pieces are made while earlier ones travel: each step
comes `AHEAD` pieces after the one that it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from syft_lab.errors import UsageError
from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.party import Party

PIECE, AHEAD = 1 << 19, 2  # numbers
BITS = 31


def aggregate(party: Party, owners: Sequence[int], xs: Sequence[Tensor | None], shape: Sequence[int], fraction: int) -> Tensor:
    """Σ xs as float64, exact but for the rounding of each input to ``fraction`` bits after the point.

    Input j, real numbers of ``shape`` on the party's device, is known to the party ``owners[j]`` alone, and None at the others.
    Raises UsageError for NaN, inf and numbers of 2^(31 − fraction) over the number of inputs or more.
    """
    return _Sum(party, owners, xs, shape, fraction).run()


class _Sum:
    """One run of it. Sums of shares wait in ``_parts`` from step 1 to 2, and from 2 to 3."""

    def __init__(
        self, party: Party, owners: Sequence[int], xs: Sequence[Tensor | None], shape: Sequence[int], fraction: int
    ) -> None:
        for x in (x for x, owner in zip(xs, owners, strict=True) if owner == party.index):
            if x is None or tuple(x.shape) != tuple(shape):
                raise ValueError("the owner of an input must have it, in the shape that all know")
            if x.is_complex():
                raise UsageError("sums are of real numbers: add x.real and x.imag")
        self.party, self.scale, self.limit = party, 2.0**fraction, 2.0**BITS / max(1, len(owners))
        flat = [None if x is None else x.detach().reshape(-1) for x in xs]
        self.inputs = [(owner, party.step(), x) for owner, x in zip(owners, flat, strict=True)]
        self.heard = owners.count(party.previous)
        self.total = torch.empty(tuple(shape), dtype=torch.float64, device=party.device)
        self._flat = self.total.view(-1)
        self._parts: dict[int, tuple[Tensor, Tensor]] = {}

    def run(self) -> Tensor:
        """All pieces, each step `AHEAD` pieces after the one before it."""
        pieces = -(-self._flat.numel() // PIECE)
        for now in range(pieces + 2 * AHEAD):
            for step, piece in ((self.enter, now), (self.add, now - AHEAD), (self.open, now - 2 * AHEAD)):
                if 0 <= piece < pieces:
                    step(piece)
        return self.total

    def enter(self, piece: int) -> None:
        """Step 1."""
        party, at = self.party, slice(piece * PIECE, (piece + 1) * PIECE)
        size = self._flat[at].numel()
        own, other = (torch.zeros(size, dtype=torch.int32, device=party.device) for _ in "ab")
        for owner, op, x in self.inputs:
            if party.next == owner:
                other += self._mask(owner, op, piece, size)
            elif x is not None and party.index == owner:
                kept = self._mask(owner, op, piece, size)
                rest = self._encoded(x[at]).sub_(kept)
                party.send(party.next, rest)
                own += kept
                other += rest
        self._parts[piece] = own, other

    def add(self, piece: int) -> None:
        """Step 2, and what step 3 sends."""
        own, other = self._parts[piece]
        for _ in range(self.heard):
            own += self.party.receive(self.party.previous, own.shape, torch.int32)
        self.party.opened = True
        self.party.send(self.party.next, own)
        self._parts[piece] = own, own + other

    def open(self, piece: int) -> None:
        """Step 3."""
        _, both = self._parts.pop(piece)
        both += self.party.receive(self.party.previous, both.shape, torch.int32)
        self._flat[piece * PIECE : (piece + 1) * PIECE].copy_(both).mul_(1 / self.scale)

    def _mask(self, key: int, op: int, piece: int, size: int) -> Tensor:
        return self.party.bits(key, op, Draw.AGGREGATE + piece, (4 * size,)).view(torch.int32)

    def _encoded(self, x: Tensor) -> Tensor:
        scaled = (x if x.dtype is torch.float32 else x.double()).mul(self.scale).round_()
        low, high = torch.aminmax(scaled)
        if not bool((-self.limit < low) & (high < self.limit)):  # false for NaN too
            most, count = self.limit / self.scale, len(self.inputs)
            raise UsageError(f"a sum of {count} with these fraction bits holds numbers below {most:g}, and some here are NaN, "
                             "inf or not below that: scale them down, or fill what is missing")  # fmt: skip
        return scaled.int()
