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
    aten.squeeze.dims, aten.select.int, aten.slice.Tensor, aten.flip.default,
):  # fmt: skip
    TABLE[_func] = _map(_func, moves=True)
for _func in (aten.view.default, aten._unsafe_view.default, aten.reshape.default):
    TABLE[_func] = _map(torch.reshape, moves=True)
for _func in (aten.expand.default, aten.index_select.default, aten.repeat.default, aten.diagonal.default):
    TABLE[_func] = _map(_func, moves=False)
for _func in (aten.neg.default, aten.sum.default, aten.sum.dim_IntList, aten.cumsum.default):
    TABLE[_func] = _map(_func, moves=False, adds=True)


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


def _unary(work: Callable[[Fixed, Shared], Shared]) -> Rule:
    return lambda x: Share(work(x.fixed, _number(x, x.fixed)), x.fixed)


TABLE[aten.exp.default] = _unary(Fixed.exp)
TABLE[aten.sigmoid.default] = _unary(Fixed.sigmoid)
TABLE[aten.reciprocal.default] = _unary(Fixed.reciprocal)
TABLE[aten.rsqrt.default] = _unary(Fixed.inverse_root)
TABLE[aten.abs.default] = _unary(Fixed.absolute)


@rule(aten.relu.default)
def _relu(x: Share) -> Share:
    return x if isinstance(x.state, Rectified) else Share(Rectified(_number(x, x.fixed) if x.whole else x.state), x.fixed)


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


@rule(aten.logical_not.default, aten.bitwise_not.default)
def _not(x: Share) -> Share:
    ones = constant(x.fixed.party, torch.ones_like(x.shared.own))
    return Share(sub(ones, x.shared), x.fixed, torch.bool)


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
