"""What one party knows becomes shares: it keeps two and sends one.

With the party's own key i, share i is F(k_i), known to it and to the party before it; share i + 1 is x − F(k_i), which it
sends to the next party, and share i + 2 is 0. One message of 64 bits. The next party sees a uniform number, for it lacks
k_i; the one before sees nothing.

Each share has two holders, and both must hold the same: an analyst deals each of them its copy. So they compare a hash of it
(`agree`) before it is used. A party reads the hash of what it holds itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from syft_lab.mpc.aby3.draws import Draw
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.party import Party

_HASH_BYTES = 32


def enter(party: Party, owner: int, x: Tensor | None, shape: Sequence[int]) -> Shared:
    """Shares of ``x`` (int64), which only the party ``owner`` has; all know its shape."""
    op = party.step()
    none = torch.zeros((), dtype=torch.int64, device=party.device).expand(tuple(shape))
    if party.next == owner:
        return Shared(none, party.words(owner, op, Draw.ENTER, shape))
    if party.index != owner:
        return Shared(party.receive(owner, shape), none)
    if x is None:
        raise ValueError("the owner of an input must have it")
    kept = party.words(owner, op, Draw.ENTER, shape)
    rest = x - kept
    party.send(party.next, rest)
    return Shared(kept, rest)


def agree(party: Party, x: Shared) -> Callable[[], None]:
    """Send each partner a hash of the share that both hold. What this gives looks at theirs, later, before x is used.

    That raises PartnerError, with both names, where they hold different shares: the run is over then.
    """
    hashes = {party.previous: _hash(x.own), party.next: _hash(x.other)}
    for to, mine in hashes.items():
        party.send(to, torch.frombuffer(bytearray(mine), dtype=torch.uint8))
    heard = {source: party.later(source, (_HASH_BYTES,), torch.uint8) for source in hashes}

    def compare() -> None:
        for source, mine in hashes.items():
            if not hmac.compare_digest(bytes(heard[source]().cpu().numpy()), mine):
                both = f"{party.names[source]} and {party.names[party.index]}"
                raise party.end(f"{both} hold different copies of one share: they were not given the same")

    return compare


def _hash(share: Tensor) -> bytes:
    whole = share.detach().contiguous().cpu()
    return hashlib.sha256(memoryview(whole.numpy()).cast("B") if whole.numel() else b"").digest()
