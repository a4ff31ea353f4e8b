"""Views, moves, joins and splits: each party does them to its shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from syft_lab.errors import RefusedOpError
from syft_lab.mpc.aby3.shares import Shared
from syft_lab.mpc.rules.operands import alike, number
from syft_lab.mpc.share import TABLE, Rectified, Rule, Share, rule

aten = torch.ops.aten


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


for _func in (aten.split.Tensor, aten.split_with_sizes.default, aten.unsafe_split.Tensor, aten.unbind.int):
    _splitting(_func)


@rule(aten.constant_pad_nd.default)
def _pad(x: Share, pad: Sequence[int], value: float = 0) -> Share:
    wider = Share(x.shared.map(lambda t: aten.constant_pad_nd.default(t, pad)), x.fixed, x.dtype)
    return wider if not value else wider + aten.constant_pad_nd.default(torch.zeros(x.shape, dtype=x.dtype), pad, value)


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
    if dtype is torch.bool and x.dtype is not torch.bool:
        return TABLE[aten.ne.Scalar](x, 0)
    if dtype is None or dtype.is_floating_point == x.dtype.is_floating_point:
        return Share(x.shared, x.fixed, dtype or x.dtype)
    if not dtype.is_floating_point:
        raise RefusedOpError("shares of fractions don't become whole numbers: rounding has no rule")
    return Share(number(x, x.fixed), x.fixed, dtype)


def _joining(func: Any) -> None:
    def work(tensors: Sequence[Any], dim: int = 0) -> Share:
        fixed, parts, dtype = alike(*tensors)
        return Share(Shared(func([p.own for p in parts], dim), func([p.other for p in parts], dim)), fixed, dtype)

    TABLE[func] = work


for _func in (aten.cat.default, aten.stack.default):
    _joining(_func)
