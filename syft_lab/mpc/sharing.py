"""Numbers as integers with a fixed number of fraction bits, split into shares and put together again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from syft_lab.errors import UsageError
from syft_lab.mpc.randomness import fresh
from syft_lab.partnership import FRACTION as FRACTION
from syft_lab.partnership import RANGE_BITS as RANGE_BITS


def encode(x: Tensor, fraction: int = FRACTION, range_bits: int = RANGE_BITS) -> Tensor:
    """Integers x·2^f, as int64; raises UsageError for NaN, inf, and numbers of 2^(range − f) or more, without telling them."""
    if x.dtype.is_complex:
        raise UsageError("shares are of real numbers: share x.real and x.imag")
    scaled = x.detach().double() * 2.0**fraction
    if not bool(torch.isfinite(scaled).all()):
        raise UsageError("a tensor with NaN or inf can't be shared: fill or drop them first")
    if x.numel() and float(scaled.abs().max()) >= 2.0**range_bits:
        raise UsageError(f"shares with {fraction} fraction bits hold numbers below {2 ** (range_bits - fraction)}, and some "
                         "here are not: scale them down first")  # fmt: skip
    return torch.round(scaled).long()


def decode(x: Tensor, fraction: int = FRACTION) -> Tensor:
    """The numbers again, as float64."""
    return x.double().div_(2.0**fraction)


def split(x: Tensor, parties: int = 3) -> list[Tensor]:
    """Additive shares modulo 2^64: all but one are random."""
    shares = [torch.from_numpy(np.frombuffer(fresh(8 * x.numel()), np.int64).copy()).view(x.shape) for _ in range(parties - 1)]
    rest = x.clone()
    for share in shares:
        rest -= share
    return [*shares, rest]


def join(shares: Sequence[Tensor]) -> Tensor:
    """What they add up to."""
    total = shares[0].clone()
    for share in shares[1:]:
        total += share
    return total
