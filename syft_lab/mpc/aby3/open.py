"""Opening to all three parties, in one round: party i sends share i to party i + 1, which lacks it.

A party sees the third share, which is what the value and its own two shares make of it: nothing but the value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from syft_lab.mpc.aby3.shares import Bits, Shared
from syft_lab.mpc.party import Party


def reveal(party: Party, x: Shared) -> Tensor:
    """x, known to all."""
    party.opened = True
    party.send(party.next, x.own)
    return x.own + x.other + party.receive(party.previous, x.own.shape)


def reveal_bits(party: Party, x: Bits) -> Tensor:
    """The same for bits."""
    party.send(party.next, x.own)
    return x.own ^ x.other ^ party.receive(party.previous, x.own.shape, torch.uint8)


def reveal_parts(party: Party, part: Tensor) -> Tensor:
    """The ⊕ of three parts that are masked already, one at each party: it goes to both others."""
    for to in (party.previous, party.next):
        party.send(to, part)
    heard = [party.receive(source, part.shape, part.dtype) for source in (party.previous, party.next)]
    return part ^ heard[0] ^ heard[1]
