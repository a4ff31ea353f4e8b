"""Comparisons, what conditions choose and count, the largest and the smallest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import RefusedOpError
from syft_lab.mpc.aby3.multiply import multiply
from syft_lab.mpc.aby3.shares import Shared, add, constant, sub
from syft_lab.mpc.rules.operands import a_share, alike, as_one, axes, number
from syft_lab.mpc.share import Share, rule

aten = torch.ops.aten


@rule(aten.lt.Tensor, aten.lt.Scalar)
def _lt(x: Any, y: Any) -> Share:
    fixed, (a, b), _ = alike(x, y)
    return Share(fixed.negative(sub(a, b)), fixed, torch.bool)


@rule(aten.gt.Tensor, aten.gt.Scalar)
def _gt(x: Any, y: Any) -> Share:
    return _lt(y, x)


@rule(aten.ge.Tensor, aten.ge.Scalar)
def _ge(x: Any, y: Any) -> Share:
    return _not(_lt(x, y))


@rule(aten.le.Tensor, aten.le.Scalar)
def _le(x: Any, y: Any) -> Share:
    return _not(_lt(y, x))


@rule(aten.eq.Tensor, aten.eq.Scalar)
def _eq(x: Any, y: Any) -> Share:
    return _not(_ne(x, y))


@rule(aten.ne.Tensor, aten.ne.Scalar)
def _ne(x: Any, y: Any) -> Share:
    less, more = _lt(x, y), _lt(y, x)
    return Share(add(less.shared, more.shared), less.fixed, torch.bool)


@rule(aten.sign.default)
def _sign(x: Share) -> Share:
    whole = Share(sub(_gt(x, 0).shared, _lt(x, 0).shared), x.fixed, torch.int64)
    return whole if x.whole else Share(number(whole, x.fixed), x.fixed)


@rule(aten.logical_not.default, aten.bitwise_not.default)
def _not(x: Share) -> Share:
    (bit,) = _conditions(x)
    return Share(sub(constant(x.fixed.party, torch.ones_like(bit.own)), bit), x.fixed, torch.bool)


@rule(aten.logical_and.default, aten.bitwise_and.Tensor)
def _and(x: Any, y: Any) -> Share:
    fixed, (a, b) = a_share(x, y).fixed, _conditions(x, y)
    return Share(multiply(fixed.party, a, b), fixed, torch.bool)


@rule(aten.logical_or.default, aten.bitwise_or.Tensor)
def _or(x: Any, y: Any) -> Share:
    (a, b), both = _conditions(x, y), _and(x, y)
    return Share(sub(add(a, b), both.shared), both.fixed, torch.bool)


@rule(aten.logical_xor.default, aten.bitwise_xor.Tensor)
def _xor(x: Any, y: Any) -> Share:
    (a, b), both = _conditions(x, y), _and(x, y)
    return Share(sub(add(a, b), both.shared.map(lambda t: 2 * t)), both.fixed, torch.bool)


@rule(aten.any.default, aten.any.dim, aten.any.dims)
def _any(x: Share, dim: Any = None, keepdim: bool = False) -> Share:
    return _gt(_count(x, dim, keepdim), 0)


@rule(aten.all.default, aten.all.dim, aten.all.dims)
def _all(x: Share, dim: Any = None, keepdim: bool = False) -> Share:
    return _not(_any(_not(x), dim, keepdim))


@rule(aten.count_nonzero.default, aten.count_nonzero.dim_IntList)
def _count_nonzero(x: Share, dim: Any = None) -> Share:
    return _count(x if x.dtype is torch.bool else _ne(x, 0), dim, False)


def _count(x: Share, dim: Any, keepdim: bool) -> Share:
    _conditions(x)
    dims = axes(x, dim)
    return x.sum(dims, keepdim=keepdim)


def _conditions(*of: Any) -> list[Shared]:
    """The bits of each, which may be public."""
    share = a_share(*of)
    if any(isinstance(x, Tensor) and x.dtype is not torch.bool for x in of):
        raise RefusedOpError("on shares, and, or, not, any and all take conditions: (x != 0)")
    device, party = share.fixed.party.device, share.fixed.party
    return [x.shared if isinstance(x, Share) else constant(party, torch.as_tensor(x).long().to(device)) for x in of]


@rule(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(x: Any, mask: Any, value: Any) -> Share:
    return _where(mask, value if isinstance(value, Share) else torch.as_tensor(value).to(x.dtype), x)


@rule(aten.where.self)
def _where(condition: Any, x: Any, y: Any) -> Share:
    fixed = a_share(condition, x, y).fixed
    (a, b), dtype = as_one(fixed, x, y)
    if not isinstance(condition, Share):
        public = condition.to(fixed.party.device)
        return Share(Shared(*(torch.where(public, s, t) for s, t in zip(a, b, strict=True))), fixed, dtype)
    return Share(fixed.where(condition.shared, a, b), fixed, dtype)


@rule(aten.maximum.default)
def _maximum(x: Any, y: Any) -> Share:
    fixed, (a, b), dtype = alike(x, y)
    return Share(fixed.larger(a, b), fixed, dtype)


@rule(aten.minimum.default)
def _minimum(x: Any, y: Any) -> Share:
    fixed, (a, b), dtype = alike(x, y)
    return Share(sub(add(a, b), fixed.larger(a, b)), fixed, dtype)


@rule(aten.hardtanh.default)
def _hardtanh(x: Share, low: float = -1, high: float = 1) -> Share:
    return _clamp(x, low, high)


@rule(aten.clamp.default)
def _clamp(x: Share, low: float | None = None, high: float | None = None) -> Share:
    raised = x if low is None else _maximum(x, low)
    return raised if high is None else _minimum(raised, high)


@rule(aten.clamp_min.default)
def _clamp_min(x: Share, low: float) -> Share:
    return _clamp(x, low)


@rule(aten.clamp_max.default)
def _clamp_max(x: Share, high: float) -> Share:
    return _clamp(x, None, high)


@rule(aten.amax.default)
def _amax(x: Share, dim: Sequence[int] = (), keepdim: bool = False) -> Share:
    dims = sorted((d % x.dim() for d in dim), reverse=True) if dim else list(range(x.dim()))[::-1]
    found = x.shared
    for each in dims:
        found = x.fixed.largest(found, each)
        if keepdim:
            found = Shared(found.own.unsqueeze(each), found.other.unsqueeze(each))
    return Share(found, x.fixed, x.dtype)


@rule(aten.max.default)
def _max(x: Share) -> Share:
    return Share(x.fixed.largest(x.shared.map(lambda t: t.reshape(-1)), 0), x.fixed, x.dtype)


@rule(aten.max.dim)
def _max_dim(x: Share, dim: int, keepdim: bool = False) -> tuple[Share, Share]:
    best, place = (s.map(lambda t: t.unsqueeze(dim)) if keepdim else s for s in x.fixed.which_largest(x.shared, dim))
    return Share(best, x.fixed, x.dtype), Share(place, x.fixed, torch.int64)


@rule(aten.argmax.default)
def _argmax(x: Share, dim: int | None = None, keepdim: bool = False) -> Share:
    flat = x if dim is not None else x.reshape(-1)
    return _max_dim(flat, 0 if dim is None else dim, keepdim)[1]


@rule(aten.amin.default)
def _amin(x: Share, dim: Sequence[int] = (), keepdim: bool = False) -> Share:
    return -_amax(-x, dim, keepdim)


@rule(aten.min.default)
def _min(x: Share) -> Share:
    return -_max(-x)


@rule(aten.min.dim)
def _min_dim(x: Share, dim: int, keepdim: bool = False) -> tuple[Share, Share]:
    best, place = _max_dim(-x, dim, keepdim)
    return -best, place


@rule(aten.argmin.default)
def _argmin(x: Share, dim: int | None = None, keepdim: bool = False) -> Share:
    return _argmax(-x, dim, keepdim)
