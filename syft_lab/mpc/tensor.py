"""What torch does to `Share`s: a function for each aten operation, in one table. Each party runs the same program."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import RefusedOpError, UsageError
from syft_lab.mpc import ring, sharing
from syft_lab.mpc.aby3.multiply import double_part, multiply
from syft_lab.mpc.aby3.shares import Shared, add, constant, sub
from syft_lab.mpc.aby3.truncate import truncate
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.share import TABLE, Product, Rectified, Rule, Share, rule

aten = torch.ops.aten


def _a_share(*args: Any) -> Share:
    found = next(a for a in args if isinstance(a, Share))
    if any(isinstance(a, Share) and a.fixed.party is not found.fixed.party for a in args):
        raise UsageError("shares of two runs, or of two federations, in one operation: share both in the same one")
    return found


def _number(x: Any, fixed: Fixed) -> Shared:
    """As fixed-point shares."""
    if isinstance(x, Share):
        return x.shared.map(lambda t: t << fixed.f) if x.whole else x.shared
    return constant(fixed.party, sharing.encode(torch.as_tensor(x), fixed.f).to(fixed.party.device))


def _map(work: Callable[..., Tensor], moves: bool, adds: bool = False) -> Rule:
    """What is done to each share alike. What only ``moves`` entries can be done before what was put off; sums are no bools."""

    def on_shares(x: Share, *args: Any, memory_format: Any = None, dtype: torch.dtype | None = None) -> Share:
        public = [a.to(x.fixed.party.device) if isinstance(a, Tensor) else a for a in args]
        made = _mapped(x.state if moves else x.shared, lambda t: work(t, *public))
        share = Share(made, x.fixed, torch.int64 if x.whole and adds else x.dtype)
        return share if dtype is None else _to(share, dtype)

    return on_shares


def _mapped(state: Any, work: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(state, Rectified):
        return Rectified(_mapped(state.of, work))
    return type(state)(*(work(t) for t in state))


for _func in (
    aten.transpose.int, aten.t.default, aten.permute.default, aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim,
    aten.squeeze.dims, aten.select.int, aten.slice.Tensor, aten.flip.default, aten.roll.default, aten.diagonal.default,
    aten.diagonal_copy.default,
):  # fmt: skip
    TABLE[_func] = _map(_func, moves=True)
for _func in (aten.view.default, aten._unsafe_view.default, aten.reshape.default):
    TABLE[_func] = _map(torch.reshape, moves=True)
for _func in (
    aten.expand.default, aten.index_select.default, aten.repeat.default, aten.tril.default, aten.triu.default,
):  # fmt: skip
    TABLE[_func] = _map(_func, moves=False)
for _func in (aten.neg.default, aten.sum.default, aten.sum.dim_IntList, aten.cumsum.default, aten.trace.default):
    TABLE[_func] = _map(_func, moves=False, adds=True)


def _splitting(func: Any) -> None:
    def work(x: Share, *args: Any) -> list[Share]:
        return [Share(Shared(*both), x.fixed, x.dtype) for both in zip(*(func(t, *args) for t in x.shared), strict=True)]

    TABLE[func] = work


for _func in (aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int):
    _splitting(_func)


@rule(aten.constant_pad_nd.default)
def _pad(x: Share, pad: Sequence[int], value: float = 0) -> Share:
    wider = Share(x.shared.map(lambda t: aten.constant_pad_nd.default(t, pad)), x.fixed, x.dtype)
    return wider if not value else wider + aten.constant_pad_nd.default(torch.zeros(x.shape), pad, value)


@rule(aten.gather.default)
def _gather(x: Share, dim: int, index: Any, **_: Any) -> Share:
    if isinstance(index, Share):
        raise RefusedOpError("which entries a shared index takes is private: use torch.where, or multiply by (index == i)")
    return Share(x.shared.map(lambda t: t.gather(dim, index.to(t.device))), x.fixed, x.dtype)


@rule(aten.clone.default, aten.detach.default, aten.alias.default, aten.contiguous.default, aten.lift_fresh.default)
def _same(x: Share, **_: Any) -> Share:
    return Share(x.state, x.fixed, x.dtype)


@rule(aten.index.Tensor)
def _index(x: Share, indices: Sequence[Any]) -> Share:
    if any(isinstance(i, Share) for i in indices):
        raise RefusedOpError("which entries a shared condition takes is private, and so is how many: use torch.where")
    where = tuple(slice(None) if i is None else i.to(x.fixed.party.device) for i in indices)
    return Share(x.shared.map(lambda t: t[where]), x.fixed, x.dtype)


@rule(aten._to_copy.default)
def _to(x: Share, dtype: torch.dtype | None = None, **_: Any) -> Share:
    if dtype is None or dtype.is_floating_point == x.dtype.is_floating_point:
        return Share(x.shared, x.fixed, dtype or x.dtype)
    if not dtype.is_floating_point:
        raise RefusedOpError("shares of fractions don't become whole numbers: rounding has no rule")
    return Share(_number(x, x.fixed), x.fixed, dtype)


def _joining(func: Any) -> None:
    def work(tensors: Sequence[Any], dim: int = 0) -> Share:
        share = _a_share(*tensors)
        whole = all(isinstance(t, Share) and t.whole for t in tensors)
        parts = [t.shared for t in tensors] if whole else [_number(t, share.fixed) for t in tensors]
        return Share(Shared(func([p.own for p in parts], dim), func([p.other for p in parts], dim)), share.fixed, share.dtype)

    TABLE[func] = work


for _func in (aten.cat.default, aten.stack.default):
    _joining(_func)


@rule(aten.add.Tensor, aten.add.Scalar)
def _add(x: Any, y: Any, alpha: float = 1) -> Share:
    return _linear(x, y if alpha == 1 else y * alpha, add)


@rule(aten.sub.Tensor, aten.sub.Scalar)
def _sub(x: Any, y: Any, alpha: float = 1) -> Share:
    return _linear(x, y if alpha == 1 else y * alpha, sub)


@rule(aten.rsub.Scalar, aten.rsub.Tensor)
def _rsub(x: Any, y: Any, alpha: float = 1) -> Share:
    return _sub(y, x, alpha)


def _linear(x: Any, y: Any, work: Callable[[Shared, Shared], Shared]) -> Share:
    share = _a_share(x, y)
    put_off = [a for a in (x, y) if isinstance(a, Share) and isinstance(a.state, Product)]
    if put_off and all(p.shape == torch.broadcast_shapes(_shape(x), _shape(y)) for p in put_off):
        total, _ = work(*(Shared(p, p) for p in (_part(x, share.fixed), _part(y, share.fixed))))
        return Share(Product(total), share.fixed)
    if all(isinstance(a, Share) and a.whole for a in (x, y)):
        return Share(work(x.shared, y.shared), share.fixed, torch.int64)
    return Share(work(_number(x, share.fixed), _number(y, share.fixed)), share.fixed)


def _shape(x: Any) -> torch.Size:
    return x.shape if isinstance(x, Tensor) else torch.Size()


def _part(x: Any, fixed: Fixed) -> Tensor:
    """With 2f + 1 fraction bits, to be added to a product."""
    if isinstance(x, Share) and isinstance(x.state, Product):
        return x.state.part
    return _number(x, fixed).own << (fixed.f + 1)


@rule(aten.mul.Tensor, aten.mul.Scalar)
def _mul(x: Any, y: Any) -> Share:
    return _product(x, y, torch.mul)


@rule(aten.mm.default, aten.bmm.default, aten.mv.default, aten.dot.default)
def _matmul(x: Any, y: Any) -> Share:
    flat = y.dim() == 1 if isinstance(y, Tensor) else False
    if not flat:
        return _product(x, y, ring.matmul)
    column = _product(x if x.dim() == 2 else x.unsqueeze(0), y.unsqueeze(1), ring.matmul)
    return column.squeeze(1) if x.dim() == 2 else column.reshape(())


@rule(aten.addmm.default, aten.baddbmm.default)
def _addmm(bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Share:
    return _matmul(x, y) * alpha + bias * beta if (alpha, beta) != (1, 1) else _matmul(x, y) + bias


@rule(aten.linear.default)
def _affine(x: Any, weight: Any, bias: Any = None) -> Share:
    made = _matmul(x.reshape(-1, x.shape[-1]), weight.t()).reshape(*x.shape[:-1], weight.shape[0])
    return made if bias is None else made + bias


@rule(aten.convolution.default)
def _convolution(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, *rest: Any) -> Share:
    turned, _, groups = rest
    if turned or x.dim() != 4:
        raise RefusedOpError("of convolutions, shares have conv2d only")
    made = _product(x, weight, lambda a, b: ring.conv2d(a, b, stride, padding, dilation, groups))
    return made if bias is None else made + bias.view(-1, 1, 1)


def _product(x: Any, y: Any, bilinear: Callable[[Tensor, Tensor], Tensor]) -> Share:
    """A bilinear map of two arguments, of which one may be public."""
    share = _a_share(x, y)
    fixed = share.fixed
    if all(isinstance(a, Share) for a in (x, y)):
        if x.whole or y.whole:
            dtype = x.dtype if x.whole and y.whole else torch.float32
            return Share(
                multiply(fixed.party, x.shared, y.shared, bilinear), fixed, torch.int64 if dtype is torch.bool else dtype
            )
        return Share(Product(double_part(fixed.party, x.shared, y.shared, bilinear)), fixed)
    public = y if share is x else x
    one = torch.as_tensor(public)
    if one.dim() == 0 and bilinear is torch.mul:
        scaled = fixed.scaled(_number(share, fixed), float(one))
        return Share(scaled, fixed)
    number = sharing.encode(one, fixed.f).to(fixed.party.device)
    made = share.shared.map((lambda t: bilinear(t, number)) if share is x else lambda t: bilinear(number, t))
    return Share(made if share.whole else truncate(fixed.party, made, fixed.f), fixed)


@rule(aten.div.Tensor, aten.div.Scalar)
def _div(x: Any, y: Any) -> Share:
    if not isinstance(y, Share):
        return _mul(x, 1 / y)
    fixed = _a_share(x, y).fixed
    over, under = _number(x, fixed), _number(y, fixed)
    shape = torch.broadcast_shapes(over.own.shape, under.own.shape)
    return Share(fixed.divide(over.map(lambda t: t.expand(shape)), under.map(lambda t: t.expand(shape))), fixed)


@rule(aten.pow.Tensor_Scalar)
def _pow(x: Share, exponent: float) -> Share:
    if exponent not in (2, 3, 4):
        raise RefusedOpError("of powers, shares have 2, 3 and 4")
    square = _mul(x, x)
    return square if exponent == 2 else _mul(square, x if exponent == 3 else square)


@rule(aten.mean.default, aten.mean.dim)
def _mean(x: Share, dim: Any = None, keepdim: bool = False, **_: Any) -> Share:
    dims = [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
    total = Share(_number(x, x.fixed).map(lambda t: t.sum(dims, keepdim=keepdim)), x.fixed)
    return _mul(total, 1 / math.prod(x.shape[d] for d in dims))


@rule(aten.var.correction)
def _var(x: Share, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False) -> Share:
    dims = [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
    count = math.prod(x.shape[d] for d in dims)
    apart = _sub(x, _mean(x, dims, True))
    return _mul(_mul(apart, apart).sum(dims, keepdim=keepdim), 1 / (count - (1 if correction is None else correction)))


@rule(aten.std.correction)
def _std(x: Share, dim: Any = None, *, correction: float | None = 1, keepdim: bool = False) -> Share:
    return _var(x, dim, correction=correction, keepdim=keepdim).sqrt()


@rule(aten.linalg_vector_norm.default)
def _norm(x: Share, order: float = 2, dim: Any = None, keepdim: bool = False, **_: Any) -> Share:
    if order not in (1, 2):
        raise RefusedOpError("of norms, shares have those of order 1 and 2")
    dims = [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
    return x.abs().sum(dims, keepdim=keepdim) if order == 1 else _mul(x, x).sum(dims, keepdim=keepdim).sqrt()


@rule(aten.mse_loss.default)
def _mse(x: Any, y: Any, reduction: int = 1) -> Share:
    apart = _sub(x, y)
    square = _mul(apart, apart)
    return square if reduction == 0 else _mean(square) if reduction == 1 else square.sum()


def _unary(work: Callable[[Fixed, Shared], Shared]) -> Rule:
    return lambda x: Share(work(x.fixed, _number(x, x.fixed)), x.fixed)


TABLE[aten.exp.default] = _unary(Fixed.exp)
TABLE[aten.sigmoid.default] = _unary(Fixed.sigmoid)
TABLE[aten.reciprocal.default] = _unary(Fixed.reciprocal)
TABLE[aten.rsqrt.default] = _unary(Fixed.inverse_root)
TABLE[aten.sqrt.default] = _unary(Fixed.root)
TABLE[aten.abs.default] = _unary(Fixed.absolute)


@rule(aten.relu.default)
def _relu(x: Share) -> Share:
    return x if isinstance(x.state, Rectified) else Share(Rectified(_number(x, x.fixed) if x.whole else x.state), x.fixed)


@rule(aten.leaky_relu.default)
def _leaky(x: Share, slope: float = 0.01) -> Share:
    return _mul(x.relu(), 1 - slope) + _mul(x, slope)


@rule(aten._softmax.default)
def _softmax(x: Share, dim: int, _: bool) -> Share:
    return Share(x.fixed.softmax(x.shared, dim), x.fixed)


@rule(aten.lt.Tensor, aten.lt.Scalar)
def _lt(x: Any, y: Any) -> Share:
    fixed = _a_share(x, y).fixed
    difference = sub(_number(x, fixed), _number(y, fixed))
    return Share(fixed.negative(difference), fixed, torch.bool)


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
    return Share(_number(_sub(_as_int(_gt(x, 0)), _as_int(_lt(x, 0))), x.fixed), x.fixed)


def _as_int(condition: Share) -> Share:
    return Share(condition.shared, condition.fixed, torch.int64)


# Conditions: zeros and ones, without fraction bits


@rule(aten.logical_not.default, aten.bitwise_not.default)
def _not(x: Share) -> Share:
    (bit,) = _conditions(x)
    return Share(sub(constant(x.fixed.party, torch.ones_like(bit.own)), bit), x.fixed, torch.bool)


@rule(aten.logical_and.default, aten.bitwise_and.Tensor)
def _and(x: Any, y: Any) -> Share:
    fixed, (a, b) = _a_share(x, y).fixed, _conditions(x, y)
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


def _count(x: Share, dim: Any, keepdim: bool) -> Share:
    _conditions(x)
    dims = [dim] if isinstance(dim, int) else list(dim) if dim else list(range(x.dim()))
    return x.sum(dims, keepdim=keepdim)


def _conditions(*of: Any) -> list[Shared]:
    """The bits of each, which may be public."""
    share = _a_share(*of)
    if any(isinstance(x, Tensor) and x.dtype is not torch.bool for x in of):
        raise RefusedOpError("on shares, and, or, not, any and all take conditions: (x != 0)")
    device, party = share.fixed.party.device, share.fixed.party
    return [x.shared if isinstance(x, Share) else constant(party, torch.as_tensor(x).long().to(device)) for x in of]


@rule(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(x: Any, mask: Any, value: Any) -> Share:
    return _where(mask, torch.as_tensor(value, dtype=torch.float32) if not isinstance(value, Tensor) else value, x)


@rule(aten.where.self)
def _where(condition: Any, x: Any, y: Any) -> Share:
    share = _a_share(condition, x, y)
    fixed = share.fixed
    if not isinstance(condition, Share):
        parts, public = (_number(x, fixed), _number(y, fixed)), condition.to(fixed.party.device)
        return Share(Shared(*(torch.where(public, a, b) for a, b in zip(*parts, strict=True))), fixed)
    return Share(fixed.where(condition.shared, _number(x, fixed), _number(y, fixed)), fixed)


@rule(aten.maximum.default)
def _maximum(x: Any, y: Any) -> Share:
    fixed = _a_share(x, y).fixed
    return Share(fixed.larger(_number(x, fixed), _number(y, fixed)), fixed)


@rule(aten.minimum.default)
def _minimum(x: Any, y: Any) -> Share:
    return -_maximum(-x, -y)


@rule(aten.clamp.default, aten.hardtanh.default)
def _clamp(x: Share, low: float | None = None, high: float | None = None) -> Share:
    raised = x if low is None else _maximum(x, torch.tensor(float(low)))
    return raised if high is None else _minimum(raised, torch.tensor(float(high)))


@rule(aten.amax.default)
def _amax(x: Share, dim: Sequence[int] = (), keepdim: bool = False) -> Share:
    dims = sorted((d % x.dim() for d in dim), reverse=True) if dim else list(range(x.dim()))[::-1]
    found = x.shared
    for each in dims:
        found = x.fixed.largest(found, each)
        if keepdim:
            found = Shared(found.own.unsqueeze(each), found.other.unsqueeze(each))
    return Share(found, x.fixed)


@rule(aten.max.default)
def _max(x: Share) -> Share:
    return Share(x.fixed.largest(x.shared.map(lambda t: t.reshape(-1)), 0), x.fixed)


@rule(aten.max.dim)
def _max_dim(x: Share, dim: int, keepdim: bool = False) -> tuple[Share, Share]:
    best, place = (s.map(lambda t: t.unsqueeze(dim)) if keepdim else s for s in x.fixed.which_largest(x.shared, dim))
    return Share(best, x.fixed), Share(place, x.fixed, torch.int64)


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


@rule(aten.max_pool2d_with_indices.default)
def _max_pool(
    x: Share, size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> tuple[Share, Tensor]:
    """Rows first, then columns, before ReLU, which gives the same; the places of the largest are not to be had."""
    size, padding, dilation = _two(size), _two(padding), _two(dilation)
    steps = _two(stride) if stride else size
    if ceil or dilation != (1, 1):
        raise RefusedOpError("of max-pooling, shares have neither ceil_mode nor dilation")
    rectified = isinstance(x.state, Rectified)
    found = (Share(x.state.of, x.fixed) if isinstance(x.state, Rectified) else x).shared
    for dim, taps, step, pad in zip((3, 2), size[::-1], steps[::-1], padding[::-1], strict=True):
        found = _pool_one(x.fixed, found, dim, taps, step, pad)
    places = torch.empty(found.own.shape, dtype=torch.int64, device="meta")
    return Share(Rectified(found) if rectified else found, x.fixed), places


def _pool_one(fixed: Fixed, x: Shared, dim: int, taps: int, step: int, pad: int) -> Shared:
    if pad:
        lowest = torch.full_like(x.own.narrow(dim, 0, pad), -(1 << (sharing.RANGE_BITS - 1)))
        edge = constant(fixed.party, lowest)
        x = Shared(*(torch.cat([e, t, e], dim) for e, t in zip(edge, x, strict=True)))
    windows = x.map(lambda t: t.unfold(dim, taps, step))
    return fixed.largest(windows, -1)


@rule(aten.avg_pool2d.default)
def _avg_pool(x: Share, size: Any, stride: Any = (), padding: Any = 0, *rest: Any) -> Share:
    given = dict(enumerate(rest))
    ceil, counted, by = given.get(0, False), given.get(1, True), given.get(2)
    size, padding = _two(size), _two(padding)
    steps = _two(stride) if stride else size
    if ceil or (padding != (0, 0) and not counted):
        raise RefusedOpError("of average-pooling, shares have neither ceil_mode nor count_include_pad=False")
    edges = (padding[1], padding[1], padding[0], padding[0])

    def total(t: Tensor) -> Tensor:
        return torch.nn.functional.pad(t, edges).unfold(2, size[0], steps[0]).unfold(3, size[1], steps[1]).sum((-1, -2))

    return _mul(Share(_number(x, x.fixed).map(total), x.fixed), 1 / (by or math.prod(size)))


@rule(aten._adaptive_avg_pool2d.default)
def _adaptive(x: Share, to: Sequence[int]) -> Share:
    sizes = x.shape[-2:]
    if any(s % t for s, t in zip(sizes, to, strict=True)):
        raise RefusedOpError("adaptive pooling of shares needs sizes that divide")
    return _avg_pool(x, [s // t for s, t in zip(sizes, to, strict=True)])


@rule(aten.native_batch_norm.default, aten._native_batch_norm_legit_no_training.default)
def _batch_norm(x: Share, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> tuple[Any, Any, Any]:
    """(x − mean) / √(var + eps) · weight + bias, with the running statistics."""
    if len(rest) == 3 and rest[0]:
        raise RefusedOpError("batch normalisation of shares goes by the running statistics: model.eval() first")
    if mean is None or var is None:
        raise RefusedOpError("batch normalisation of shares needs running statistics (track_running_stats=True)")
    root = (var + rest[-1]).rsqrt()
    factor = root if weight is None else root * weight
    offset = -(mean * factor) if bias is None else bias - mean * factor
    shape = [1, -1, *[1] * (x.dim() - 2)]
    none = torch.empty(0)
    return x * factor.view(shape) + offset.view(shape), none, none


def _two(x: Any) -> tuple[int, int]:
    values = [x, x] if isinstance(x, int) else list(x)
    return (values[0], values[-1])


def run(work: Callable[..., Any], *inputs: Share, parameters: Mapping[str, Share] | None = None) -> Any:
    """Run a module, or a function, on shares; ``parameters`` replace those of the module."""
    with torch.no_grad():
        if parameters is None:
            return work(*inputs)
        return torch.func.functional_call(work, dict(parameters), inputs)
