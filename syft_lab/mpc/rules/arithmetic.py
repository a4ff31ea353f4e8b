"""Sums, products, and functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import RefusedOpError
from syft_lab.mpc import ring, sharing
from syft_lab.mpc.aby3.multiply import double_part, multiply
from syft_lab.mpc.aby3.shares import Shared, add, sub
from syft_lab.mpc.aby3.truncate import truncate
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.rules.operands import a_share, alike, axes, number, promoted
from syft_lab.mpc.share import TABLE, Product, Rule, Share, rule

aten = torch.ops.aten


@rule(aten.add.Tensor, aten.add.Scalar)
def _add(x: Any, y: Any, alpha: float = 1) -> Share:
    if promoted(x, y) is torch.bool:  # to torch the sum of conditions is one: their or
        return minus(_linear(x, y, add), times(x, y))
    return _linear(x, y if alpha == 1 else y * alpha, add)


@rule(aten.sub.Tensor, aten.sub.Scalar)
def minus(x: Any, y: Any, alpha: float = 1) -> Share:
    """x − alpha·y; one of them may be public."""
    return _linear(x, y if alpha == 1 else y * alpha, sub)


@rule(aten.rsub.Scalar, aten.rsub.Tensor)
def _rsub(x: Any, y: Any, alpha: float = 1) -> Share:
    return minus(y, x, alpha)


def _linear(x: Any, y: Any, work: Callable[[Shared, Shared], Shared]) -> Share:
    share = a_share(x, y)
    put_off = [a for a in (x, y) if isinstance(a, Share) and isinstance(a.state, Product)]
    if put_off and all(p.shape == torch.broadcast_shapes(_shape(x), _shape(y)) for p in put_off):
        total, _ = work(*(Shared(p, p) for p in (_part(x, share.fixed), _part(y, share.fixed))))
        return Share(Product(total), share.fixed)
    fixed, both, dtype = alike(x, y)
    return Share(work(*both), fixed, dtype)


def _shape(x: Any) -> torch.Size:
    return x.shape if isinstance(x, Tensor) else torch.Size()


def _part(x: Any, fixed: Fixed) -> Tensor:
    """With 2f + 1 fraction bits, to be added to a product."""
    if isinstance(x, Share) and isinstance(x.state, Product):
        return x.state.part
    return number(x, fixed).own << (fixed.f + 1)


@rule(aten.mul.Tensor, aten.mul.Scalar)
def times(x: Any, y: Any) -> Share:
    """x·y, entry by entry; one of them may be public."""
    return product(x, y, torch.mul)


@rule(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default)
def matmul(x: Any, y: Any) -> Share:
    """The product of matrices, of batches of them, or with a vector; one may be public."""
    flat = y.dim() == 1 if isinstance(y, Tensor) else False
    if not flat:
        return product(x, y, ring.matmul)
    column = product(x if x.dim() == 2 else x.unsqueeze(0), y.unsqueeze(1), ring.matmul)
    return column.squeeze(1) if x.dim() == 2 else column.reshape(())


@rule(aten.addmm.default, aten.baddbmm.default)
def _addmm(bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Share:
    return matmul(x, y) * alpha + bias * beta if (alpha, beta) != (1, 1) else matmul(x, y) + bias


@rule(aten.linear.default)
def _affine(x: Any, weight: Any, bias: Any = None) -> Share:
    made = matmul(x.reshape(-1, x.shape[-1]), weight.t()).reshape(*x.shape[:-1], weight.shape[0])
    return made if bias is None else made + bias


def product(x: Any, y: Any, bilinear: Callable[[Tensor, Tensor], Tensor]) -> Share:
    """A bilinear map of two arguments, of which one may be public."""
    share, dtype = a_share(x, y), promoted(x, y)
    fixed, device = share.fixed, share.fixed.party.device
    if all(isinstance(a, Share) for a in (x, y)):
        if x.whole or y.whole:
            return Share(multiply(fixed.party, x.shared, y.shared, bilinear), fixed, dtype)
        return Share(Product(double_part(fixed.party, x.shared, y.shared, bilinear)), fixed)
    one = torch.as_tensor(y if share is x else x)
    if one.dim() == 0 and bilinear is torch.mul and dtype.is_floating_point:
        return Share(fixed.scaled(number(share, fixed), float(one)), fixed)
    known = sharing.encode(one, fixed.f).to(device) if one.is_floating_point() else one.long().to(device)
    made = share.shared.map((lambda t: bilinear(t, known)) if share is x else lambda t: bilinear(known, t))
    return Share(made if share.whole or not one.is_floating_point() else truncate(fixed.party, made, fixed.f), fixed, dtype)


@rule(aten.div.Tensor, aten.div.Scalar)
def _div(x: Any, y: Any) -> Share:
    if not isinstance(y, Share):
        return times(x, 1 / y)
    fixed = a_share(x, y).fixed
    over, under = number(x, fixed), number(y, fixed)
    shape = torch.broadcast_shapes(over.own.shape, under.own.shape)
    return Share(fixed.divide(over.map(lambda t: t.expand(shape)), under.map(lambda t: t.expand(shape))), fixed)


@rule(aten.pow.Tensor_Scalar)
def _pow(x: Share, exponent: float) -> Share:
    if exponent not in (2, 3, 4):
        raise RefusedOpError("of powers, shares have 2, 3 and 4")
    square = times(x, x)
    return square if exponent == 2 else times(square, x if exponent == 3 else square)


@rule(aten.mean.default, aten.mean.dim)
def mean(x: Share, dim: Any = None, keepdim: bool = False, **_: Any) -> Share:
    """The mean along dimensions, or of all."""
    return _average(x, axes(x, dim), keepdim)


def _average(x: Share, dims: list[int], keepdim: bool, less: float = 0) -> Share:
    total = Share(number(x, x.fixed).map(lambda t: t.sum(dims, keepdim=keepdim)), x.fixed)
    return times(total, 1 / (math.prod(x.shape[d] for d in dims) - less))


@rule(aten.var.correction)
def _var(x: Share, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Share:
    dims = axes(x, dim)
    less = 1 if correction is None else correction
    if math.prod(x.shape[d] for d in dims) <= less:
        raise RefusedOpError("a variance is of more numbers than its correction")
    apart = minus(x, mean(x, dims, True))
    return _average(times(apart, apart), dims, keepdim, less)


@rule(aten.std.correction)
def _std(x: Share, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Share:
    return _var(x, dim, correction=correction, keepdim=keepdim).sqrt()


@rule(aten.linalg_vector_norm.default)
def _norm(x: Share, order: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Share:
    if order not in (1, 2):
        raise RefusedOpError("of norms, shares have those of order 1 and 2")
    dims = axes(x, dim)
    if order == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    # The sum of the squares would soon be more than a root is taken of; their mean is not.
    return times(_average(times(x, x), dims, keepdim).sqrt(), math.sqrt(math.prod(x.shape[d] for d in dims)))


@rule(aten.mse_loss.default)
def _mse(x: Any, y: Any, reduction: int = 1) -> Share:
    apart = minus(x, y)
    square = times(apart, apart)
    return square if reduction == 0 else mean(square) if reduction == 1 else square.sum()


def _unary(work: Callable[[Fixed, Shared], Shared]) -> Rule:
    return lambda x: Share(work(x.fixed, number(x, x.fixed)), x.fixed)


TABLE[aten.exp.default] = _unary(Fixed.exp)


TABLE[aten.sigmoid.default] = _unary(Fixed.sigmoid)


TABLE[aten.reciprocal.default] = _unary(Fixed.reciprocal)


TABLE[aten.rsqrt.default] = _unary(Fixed.inverse_root)


TABLE[aten.sqrt.default] = _unary(Fixed.root)


@rule(aten.abs.default)
def _abs(x: Share) -> Share:
    return Share(x.fixed.absolute(x.shared), x.fixed, x.dtype)
