"""Convolutions, activations, pooling and normalisation, for modules in inference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import RefusedOpError
from syft_lab.mpc import ring, sharing
from syft_lab.mpc.aby3.shares import Shared, constant
from syft_lab.mpc.functions import Fixed
from syft_lab.mpc.rules.arithmetic import product, times
from syft_lab.mpc.rules.operands import number
from syft_lab.mpc.share import Rectified, Share, rule

aten = torch.ops.aten


@rule(aten.convolution.default)
def _convolution(x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, *rest: Any) -> Share:
    turned, _, groups = rest
    if turned or x.dim() not in (3, 4):
        raise RefusedOpError("of convolutions, shares have conv1d and conv2d only")
    if x.dim() == 3:  # an image one row high
        wide = [[1, *stride], [0, *padding], [1, *dilation]]
        return _convolution(x.unsqueeze(2), weight.unsqueeze(2), bias, *wide, *rest).squeeze(2)
    made = product(x, weight, lambda a, b: ring.conv2d(a, b, stride, padding, dilation, groups))
    return made if bias is None else made + bias.view(-1, 1, 1)


@rule(aten.relu.default)
def _relu(x: Share) -> Share:
    if x.whole:
        return Share(x.fixed.relu(x.shared), x.fixed, x.dtype)
    return x if isinstance(x.state, Rectified) else Share(Rectified(x.state), x.fixed)


@rule(aten.leaky_relu.default)
def _leaky(x: Share, slope: float = 0.01) -> Share:
    return times(x.relu(), 1 - slope) + times(x, slope)


@rule(aten._softmax.default)
def _softmax(x: Share, dim: int, _: bool) -> Share:
    return Share(x.fixed.softmax(x.shared, dim), x.fixed)


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

    return times(Share(number(x, x.fixed).map(total), x.fixed), 1 / (by or math.prod(size)))


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
    root = (var + rest[-1]).rsqrt() if isinstance(var, Share) else _inverse_root(var, rest[-1])
    factor = root if weight is None else root * weight
    offset = -(mean * factor) if bias is None else bias - mean * factor
    shape = [1, -1, *[1] * (x.dim() - 2)]
    none = torch.empty(0)
    return x * factor.view(shape) + offset.view(shape), none, none


def _inverse_root(var: Tensor, eps: float) -> Tensor:
    """1/√(var + eps) of public numbers, alike on each processor: torch's own is not, on a GPU."""
    return (1 / (var.cpu().double() + eps).sqrt()).to(var)


def _two(x: Any) -> tuple[int, int]:
    values = [x, x] if isinstance(x, int) else list(x)
    return (values[0], values[-1])
