"""What one party knows becomes shares: it keeps two and sends one.

With the party's own key i, share i is F(k_i), known to it and to the party before it; share i + 1 is x − F(k_i), which it
sends to the next party, and share i + 2 is 0. One message of 64 bits. The next party sees a uniform number, for it lacks
k_i; the one before sees nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.party import Party

_SHARE = 0


def enter(party: Party, owner: int, x: Tensor | None, shape: Sequence[int]) -> Shared:
    """Shares of ``x`` (int64), which only the party ``owner`` has; all know its shape."""
    op = party.step()
    none = torch.zeros((), dtype=torch.int64, device=party.device).expand(tuple(shape))
    if party.next == owner:
        return Shared(none, party.words(owner, op, _SHARE, shape))
    if party.index != owner:
        return Shared(party.receive(owner, shape), none)
    if x is None:
        raise ValueError("the owner of an input must have it")
    kept = party.words(owner, op, _SHARE, shape)
    rest = x - kept
    party.send(party.next, rest)
    return Shared(kept, rest)
