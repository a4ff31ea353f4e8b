"""What rules are given: shares of one run, numbers that all know, dimensions."""

from __future__ import annotations

from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import UsageError
from syft_lab.mpc import sharing
from syft_lab.mpc.aby3.shares import Shared, constant
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.share import Share


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


def alike(*of: Any) -> tuple[Fixed, list[Shared], torch.dtype]:
    """All arguments as fixed-point numbers, or all as whole ones; and the type that torch gives what is made of them."""
    fixed = a_share(*of).fixed
    return fixed, *as_one(fixed, *of)


def as_one(fixed: Fixed, *of: Any) -> tuple[list[Shared], torch.dtype]:
    """The same where all of them may be public."""
    dtype = promoted(*of)
    if dtype.is_floating_point:
        return [number(x, fixed) for x in of], dtype
    return [x.shared if isinstance(x, Share) else _whole(x, fixed) for x in of], dtype


def promoted(*of: Any) -> torch.dtype:
    """Torch's type for what is made of two, or of several tensors: whole where none has fractions."""
    if len(of) != 2:
        return reduce(torch.promote_types, (x.dtype for x in of))
    return torch.result_type(*(_stand_in(x.dtype, x.dim()) if isinstance(x, Tensor) else x for x in of))


@cache
def _stand_in(dtype: torch.dtype, dims: int) -> Tensor:
    """A tensor that shares are told by, without their own operations."""
    return torch.empty((1,) * dims, dtype=dtype, device="meta")


def _whole(x: Any, fixed: Fixed) -> Shared:
    return constant(fixed.party, torch.as_tensor(x).long().to(fixed.party.device))


def axes(x: Tensor, dim: Any) -> list[int]:
    """The dimensions that are meant: one, some, or all where none is given."""
    return [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
