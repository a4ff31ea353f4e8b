"""Sums for release, on an integer grid: what they may differ by for one person holds exactly, whatever floats do.

A record's entry is clamped into its bounds [lo, hi] (NaN counts as lo) and rounded to one of 2²⁰ + 1 equal steps from lo:
an integer from 0 to 2²⁰. A sum of such integers is exact, so replacing k records moves it by at most k·2²⁰ an entry. The
sum in real units is n·lo + step·S. After Mironov (2012), who showed what a sum of floats gives away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

STEPS = 1 << 20


@dataclass(frozen=True)
class Grid:
    """An aggregate as integers: its value is ``offset + step · ints``; one person moves ``ints`` by ``l1`` (``l2``)."""

    ints: torch.Tensor
    step: float
    offset: float
    l1: int
    l2: float

    def scaled(self, by: float, shift: float) -> Grid:
        """``by · value + shift``."""
        return Grid(self.ints, self.step * by, self.offset * by + shift, self.l1, self.l2)

    def shaped(self, change: Any) -> Grid:
        """With its entries elsewhere, or some of them."""
        return Grid(change(self.ints), self.step, self.offset, self.l1, self.l2)


def clamped(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Float64 entries within bounds; torch's clamp alone lets NaN through."""
    wide = x.to(torch.float64)
    return torch.nan_to_num(wide, nan=low, posinf=high, neginf=low).clamp(low, high)


def summed(
    x: torch.Tensor, bounds: tuple[float, float], dims: Sequence[int], axis: int, k: int, mean: bool, keepdim: bool
) -> Grid:
    """The sum, or mean, of bounded records over ``dims``, which include ``axis``."""
    low, high = bounds
    width = high - low
    count = 1
    for d in dims:
        count *= x.shape[d]
    if width > 0:
        ints = (
            torch.round((clamped(x, low, high) - low) * (STEPS / width))
            .to(torch.int64)
            .clamp(0, STEPS)
            .sum(dims, keepdim=keepdim)
        )
    else:
        ints = torch.zeros_like(x, dtype=torch.int64).sum(dims, keepdim=keepdim)
    step, offset = width / STEPS, low * count
    one = k * (count // x.shape[axis]) * STEPS
    outs = ints.numel()
    by = 1 / count if mean else 1.0
    return Grid(ints, step * by, offset * by, one * outs, one * outs**0.5)
