"""What rules are given: shares of one run, numbers that all know, dimensions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import UsageError
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3.shares import Shared, constant
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.share import Share

aten = torch.ops.aten


def a_share(*args: Any) -> Share:
    """One of the arguments that is a share. Raises UsageError where those of two runs meet."""
    found = next(a for a in args if isinstance(a, Share))
    if any(isinstance(a, Share) and a.fixed.party is not found.fixed.party for a in args):
        raise UsageError("shares of two runs, or of two federations, in one operation: share both in the same one")
    return found


def number(x: Any, fixed: Fixed) -> Shared:
    """As fixed-point shares."""
    if isinstance(x, Share):
        return x.shared.map(lambda t: t << fixed.f) if x.whole else x.shared
    return constant(fixed.party, sharing.encode(torch.as_tensor(x), fixed.f).to(fixed.party.device))


def axes(x: Tensor, dim: Any) -> list[int]:
    """The dimensions that are meant: one, some, or all where none is given."""
    return [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
