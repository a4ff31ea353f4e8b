"""What a party holds of a number: two of its three shares, and what it does alone with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from syft_lab.mpc.party import Party


class Shared(NamedTuple):
    """Party i's part of x = x0 + x1 + x2 modulo 2^64: ``own`` is x_i, ``other`` is x_{i+1}, both int64."""

    own: Tensor
    other: Tensor

    def map(self, work: Callable[[Tensor], Tensor]) -> Shared:
        """What a linear map, or a view, makes of both."""
        return Shared(work(self.own), work(self.other))


class Bits(NamedTuple):
    """Party i's part of x = x0 ⊕ x1 ⊕ x2: uint8 planes (rows, bytes), eight elements to a byte."""

    own: Tensor
    other: Tensor

    def map(self, work: Callable[[Tensor], Tensor]) -> Bits:
        """What a linear map, or a view, makes of both."""
        return Bits(work(self.own), work(self.other))

    def rows(self, rows: slice) -> Bits:
        """Some of the planes."""
        return Bits(self.own[rows], self.other[rows])


Parts = TypeVar("Parts", Shared, Bits)


def add(x: Shared, y: Shared) -> Shared:
    """x + y, with broadcasting."""
    return Shared(x.own + y.own, x.other + y.other)


def add_to(x: Shared, y: Shared) -> Shared:
    """The same in the memory of x, of which nothing may be on its way to a partner."""
    return Shared(x.own.add_(y.own), x.other.add_(y.other))


def sub(x: Shared, y: Shared) -> Shared:
    """x − y, with broadcasting."""
    return Shared(x.own - y.own, x.other - y.other)


def plus(party: Party, x: Shared, public: Tensor | int) -> Shared:
    """x and what everybody knows, which is added to share 0."""
    both = constant(party, public if isinstance(public, Tensor) else x.own.new_tensor(public))
    return add(x, both)


def constant(party: Party, public: Tensor) -> Shared:
    """What everybody knows, as shares: it is share 0."""
    none = torch.zeros_like(public)
    return Shared(public if party.index == 0 else none, public if party.next == 0 else none)


def xor(x: Bits, y: Bits) -> Bits:
    """x ⊕ y."""
    return Bits(x.own ^ y.own, x.other ^ y.other)


def joined(x: Parts, y: Parts) -> Parts:
    """The rows of x, then those of y."""
    return type(x)(torch.cat([x.own, y.own]), torch.cat([x.other, y.other]))
