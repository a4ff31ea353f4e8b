"""Bits of many numbers at once: planes of one bit each, eight elements to a byte, so that one operation of torch is one
gate for all.

Turning numbers into planes is a transposition of 8×8 bits in words of 64 (Warren, Hacker's Delight, 2nd edition, section 7–3).
"""

from __future__ import annotations

import torch
from torch import Tensor

_SWAPS = ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0))
_GATHER = 0x0102040810204080
_SPREAD, _DIAGONAL = 0x0101010101010101, 0x8040201008040201 - (1 << 64)


def width(count: int) -> int:
    """Bytes of a plane of ``count`` elements."""
    return -(-count // 8)


def planes(x: Tensor, bits: int) -> Tensor:
    """The low ``bits`` (a multiple of 8) of int64 numbers (n,): uint8 (bits, n/8), the lowest first; missing elements are 0."""
    whole = _padded(x)
    groups = whole.numel() // 8
    if not groups:
        return torch.empty(bits, 0, dtype=torch.uint8, device=x.device)
    octets = whole.view(torch.uint8).view(groups, 8, 8)[:, :, : bits // 8]
    words = octets.permute(2, 0, 1).contiguous().view(torch.int64).view(bits // 8, groups)
    for shift, mask in _SWAPS:
        swap = (words ^ (words >> shift)).bitwise_and_(mask)
        words = (words ^ swap).bitwise_xor_(swap << shift)
    return words.contiguous().view(torch.uint8).view(bits // 8, groups, 8).permute(0, 2, 1).reshape(bits, groups)


def pack(x: Tensor) -> Tensor:
    """Zeros and ones (n,), of any type, as a plane: uint8 (n/8,)."""
    whole = _padded(x.to(torch.int8))
    return ((whole.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def unpack(plane: Tensor, count: int) -> Tensor:
    """The elements of a plane, as int8 zeros and ones (count,)."""
    spread = (plane.to(torch.int64) * _SPREAD).bitwise_and_(_DIAGONAL)
    return (spread.view(torch.uint8) != 0)[:count].view(torch.int8)


def _padded(x: Tensor) -> Tensor:
    missing = -x.numel() % 8
    return torch.cat([x, x.new_zeros(missing)]) if missing else x.contiguous()
