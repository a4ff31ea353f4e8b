"""Operations that torch fails on for some values, made to give a result for every value, record by record.

Whether an operation failed on private values would be an exact bit about them, as often as one likes. So a place out of range
gives NaN (whole numbers: 0), and a whole number divided by 0 gives 0; `grid` counts NaN at the lower bound. Division by -1 is
never asked of the processor, which traps on the least whole number of 32 or 64 bits: that would end the process. Nor does a
value decide how long an operation takes without bound: zeta functions count up from it, so below -1000 they are NaN. Where
public values alone decide, the analyst sees torch's error.

Sound because each entry of a result is a function of the entries at its place: what is filled in for one record depends on that
record alone. `tests/attacks/test_failures.py` looks for operations that fail and are not here.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from syft_lab import ops
from syft_lab.errors import RefusedOpError
from syft_lab.kernel.executor import unchecked

Call = Callable[[list[Any], dict[str, Any], int | None], Sequence[Any]]
aten = torch.ops.aten
# Of each division of whole numbers, the form that takes two tensors.
_DIVISIONS = {
    "floor_divide": aten.floor_divide.default, "remainder": aten.remainder.Tensor, "fmod": aten.fmod.Tensor,
    "div": aten.div.Tensor_mode,
}  # fmt: skip
# Operations that torch looks at values for, and fails on some: of public ones the analyst sees that.
LOOKED_AT = frozenset(
    "_unsafe_index binary_cross_entropy div embedding floor_divide fmod gather index index_add index_fill index_put "
    "index_select nll_loss_forward remainder scatter scatter_add searchsorted take".split()
)

# Of a matrix that has no such form they give something that looks like one, and a number beside that says so.
INFO = {"linalg_cholesky_ex": 1, "linalg_inv_ex": 1, "linalg_solve_ex": 1, "_linalg_solve_ex": 3, "linalg_lu_factor_ex": 2,
        "linalg_ldl_factor_ex": 2}  # fmt: skip


class Results(list[Any]):
    """Results of an operation; ``filled`` of their entries had no value of their own."""

    filled = 0


LEAST = -1000  # below, a zeta function takes a turn for each whole number up to 9
_OTHERS = frozenset("embedding lcm avg_pool2d avg_pool3d special_zeta polygamma".split())


def is_made(op: str, given: Mapping[str, Any]) -> bool:
    """Whether an operation is made total here, for arguments that look so: most of these fail on whole numbers alone."""
    name = ops.packet(op)
    if name in _OTHERS:
        return name not in ("avg_pool2d", "avg_pool3d") or given.get("divisor_override") == -1
    whole = all(not a.dtype.is_floating_point and not a.dtype.is_complex for a in given.values() if hasattr(a, "dtype"))
    return name in _DIVISIONS and whole and (name != "div" or given.get("rounding_mode") is not None)


def made(op: str, call: Call, arguments: Sequence[str], private: frozenset[str]) -> Call:
    """``call`` of an operation that `is_made` names, without failures that its ``private`` arguments decide about."""

    def total(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        given = {**dict(zip(arguments, args, strict=False)), **kwargs}
        name = ops.packet(op)
        if name == "embedding":
            return _embedded(given, call, kwargs, seed) if "indices" in private else call(args, kwargs, seed)
        if name == "lcm":
            return [_multiple(given["self"], given["other"])]
        if name in ("avg_pool2d", "avg_pool3d"):
            return _pooled(given, call, seed)
        if name in ("special_zeta", "polygamma"):
            return _counted("self" if name == "polygamma" else "other", given, call, seed)
        return _divided(op, given, private) or call(args, kwargs, seed)

    return total


def informed(name: str, arguments: Sequence[str], call: Call) -> Call:
    """``call`` of an operation of `INFO`, with NaN in place of what a matrix does not have, errors or no errors."""

    def whole(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        results = list(call([], {**dict(zip(arguments, args, strict=False)), **kwargs, "check_errors": False}, seed))
        failed = results[INFO[name]] != 0
        for i, t in enumerate(results):
            if t.is_floating_point() or t.is_complex():
                where = failed.reshape(*failed.shape, *[1] * (t.dim() - failed.dim()))
                results[i] = torch.where(where, math.nan, t)
        return results

    return whole


def tamed(arguments: Sequence[str], call: Call) -> Call:
    """``call`` of `linalg_eig` on matrices without extremes: LAPACK's code writes beyond its memory where they span far.

    Each matrix with entries of 2^100 or more (float32: 2^40), or as small ones but 0, is scaled by a power of two of its own
    largest entry, entries below the square of the precision are 0, and its eigenvalues are scaled back. That moves them by far
    less than they are exact. Matrices without such entries are left as they are.
    """

    def tame(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        given = {**dict(zip(arguments, args, strict=False)), **kwargs}
        matrix = given["self"]
        if not matrix.numel():
            return call([], given, seed)
        size = torch.view_as_real(matrix).abs().amax(-1) if matrix.is_complex() else matrix.abs()
        wide = size.dtype is torch.float64
        edge = 2.0 ** (100 if wide else 40)
        extreme = ((size >= edge) | ((size > 0) & (size < 1 / edge))).any(-1, keepdim=True).any(-2, keepdim=True)
        exponent = torch.frexp(torch.where(torch.isfinite(size), size, 0).amax((-2, -1), keepdim=True)).exponent
        exponent = torch.where(extreme, exponent, 0)
        half = exponent // 2  # in two steps, of which none leaves the numbers there are
        steps = [torch.ldexp(torch.ones_like(size[..., :1, :1]), -e) for e in (half, exponent - half)]
        scaled = matrix * steps[0] * steps[1]
        least = torch.finfo(size.dtype).eps ** 2
        kept = torch.where(extreme & (size * steps[0] * steps[1] < least), torch.zeros_like(scaled), scaled)
        values, *vectors = call([], {**given, "self": kept}, seed)
        back = [torch.ldexp(torch.ones_like(size[..., 0, :1]), e[..., 0, :]) for e in (half, exponent - half)]
        return [values * back[0] * back[1], *vectors]

    return tame


def _multiple(a: Tensor, b: Tensor) -> Tensor:
    """The least common multiple; a divisor of the least whole number can come out as -1."""
    divisor = torch.gcd(a, b)
    divisor = torch.where((divisor == 0) | (divisor == -1), torch.ones_like(divisor), divisor)
    return (torch.div(a, divisor, rounding_mode="trunc") * b).abs()


def _pooled(given: Mapping[str, Any], call: Call, seed: int | None) -> Sequence[Any]:
    """Averages of whole numbers by a divisor of -1: those by 1, turned."""
    turned = given.get("divisor_override") == -1 and not given["self"].is_floating_point()
    out = call([], {**given, "divisor_override": 1} if turned else dict(given), seed)
    return [-t for t in out] if turned else out


def _counted(name: str, given: Mapping[str, Any], call: Call, seed: int | None) -> Sequence[Any]:
    """A zeta function, NaN where it would count up from far below 0."""
    start = given[name]
    if not isinstance(start, Tensor):
        return call([], dict(given), seed)  # a number, which is public
    far = start < LEAST
    return [torch.where(far, math.nan, t) for t in call([], {**given, name: torch.where(far, 1, start)}, seed)]


def _embedded(given: Mapping[str, Any], call: Call, kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
    table, index = given["weight"], given["indices"]
    outside = (index < 0) | (index >= table.shape[0])
    nothing = math.nan if table.is_floating_point() or table.is_complex() else 0
    more = {k: v for k, v in given.items() if k not in ("weight", "indices")}
    if table.shape[0]:
        (out,) = call([table, torch.where(outside, 0, index)], more, seed)
    else:
        out = torch.zeros((*index.shape, *table.shape[1:]), dtype=table.dtype, device=table.device)
    return _results(torch.where(outside.unsqueeze(-1), torch.full_like(out, nothing), out), outside)


def _divided(op: str, given: Mapping[str, Any], private: frozenset[str]) -> Sequence[Any] | None:
    """A division of whole numbers; None where torch's own has no values that it fails on but public zeros."""
    a, b, name = given["self"], given["other"], ops.packet(op)
    mode = {"rounding_mode": given["rounding_mode"]} if "rounding_mode" in given else {}
    if (name == "div" and mode.get("rounding_mode") is None) or isinstance(a, complex) or isinstance(b, complex):
        return None
    kind = torch.result_type(a, b)
    whole = not (kind.is_floating_point or kind.is_complex or kind is torch.bool)
    if not whole or not (isinstance(b, Tensor) or (b == -1 and kind.is_signed)):
        return None
    device = (a if isinstance(a, Tensor) else b).device
    a, b = (v.to(kind) if isinstance(v, Tensor) else torch.tensor(v, device=device).to(kind) for v in (a, b))
    zero, minus = b == 0, (b == -1) & kind.is_signed
    if "other" not in private:
        zero = torch.zeros_like(zero)  # torch says that it is 0
    out = _DIVISIONS[name](a, torch.where(zero | minus, torch.ones_like(b), b), **mode)
    turned = torch.zeros_like(out) if name in ("remainder", "fmod") else (-a).expand(out.shape)
    out = torch.where(zero, torch.zeros_like(out), torch.where(minus, turned, out))
    return _results(out, zero)


# For each record (`each`), where one that fails would cost the others time, no operation may fail on a value


def guarded(op: str, arguments: Sequence[str], call: Call) -> Callable[..., Sequence[Any]]:
    """``call`` with NaN (whole numbers: 0) in all of its results where torch would fail on a value; for use under `vmap`.

    Takes a list besides, to which goes whether it would. Places are counted from the front when torch sees them: under `vmap`
    it lays records end to end, where one before a record's first is its neighbour's last. Raises RefusedOpError for an
    operation that there is no such guard for.
    """
    name = ops.packet(op)
    if name in _UNGUARDED:
        raise RefusedOpError(f"{op} can fail on the values of one record, so lab.each can't have it: compute it outside")
    rule = _GUARDS.get(name)

    def careful(args: list[Any], kwargs: dict[str, Any], failures: list[Tensor]) -> Sequence[Any]:
        if rule is None:
            return call(args, kwargs, None)
        given = {**dict(zip(arguments, args, strict=False)), **kwargs}
        bad: list[Tensor] = []
        for argument, plain, outside in rule(given):
            bad.append(outside.any())
            kept = torch.where(outside, torch.zeros_like(plain), plain)
            if isinstance(argument, tuple):
                given[argument[0]] = [kept if i == argument[1] else v for i, v in enumerate(given[argument[0]])]
            else:
                given[argument] = kept
        results = call([], given, None)
        if not bad:
            return results
        failed = functools.reduce(torch.logical_or, bad)
        failures.append(failed)
        return [t if t is None else torch.where(failed, _nothing(t), t) for t in results]

    return careful


def _nothing(t: Tensor) -> Tensor:
    return torch.full_like(t, math.nan if t.is_floating_point() or t.is_complex() else 0)


# Each guard gives, for arguments by name: which one, what stands there in plain form, and where it is what torch fails on.
_Found = list[tuple[Any, Tensor, Tensor]]


def _places(argument: Any, places: Tensor, size: int, wraps: bool) -> tuple[Any, Tensor, Tensor]:
    """Places from 0 to below ``size``; where it ``wraps``, those below 0 count from the end."""
    plain = torch.where(places < 0, places + size, places) if wraps else places
    return argument, plain, (plain < 0) | (plain >= size)


def _along(given: Mapping[str, Any], name: str = "index", wraps: bool = False) -> _Found:
    """Places along one axis."""
    of = given["self"]
    return [_places(name, given[name], of.shape[given["dim"]] if of.dim() else 1, wraps)]


def _at(given: Mapping[str, Any]) -> _Found:
    """Places along several axes, each a tensor of its own."""
    return [
        _places(("indices", i), places, given["self"].shape[i], True)
        for i, places in enumerate(_whole(given["indices"]))
        if places is not None and places.dtype is not torch.bool
    ]


def _whole(places: Sequence[Any]) -> Sequence[Any]:
    if any(p is not None and p.dtype is torch.uint8 for p in places):
        raise RefusedOpError("places as uint8 are taken for a mask; make them .long(), or the mask .bool()")
    return places


def _flat(given: Mapping[str, Any]) -> _Found:
    return [_places("index", given["index"], given["self"].numel(), True)]


def _classes(given: Mapping[str, Any]) -> _Found:
    """Classes, and one that is left out, which may be any number."""
    target, of, apart = given["target"], given["self"].shape, given.get("ignore_index", -100)
    size = of[1 if len(of) > 1 else 0]
    return [("target", target, ((target < 0) | (target >= size)) & (target != apart))]


def _margins(given: Mapping[str, Any]) -> _Found:
    return [_places("target", given["target"], given["self"].shape[-1], False)]


def _rows(given: Mapping[str, Any]) -> _Found:
    """Rows of a table. ``padding_idx`` is a place, or -1 for none."""
    return [_places("indices", given["indices"], given["num_weights"], False)]


def _pooled_at(given: Mapping[str, Any], dims: int) -> _Found:
    return [_places("indices", given["indices"], math.prod(given["self"].shape[-dims:]), False)]


def _finite(given: Mapping[str, Any]) -> _Found:
    name = "A" if "A" in given else "self"
    return [(name, given[name], ~torch.isfinite(given[name]))]


def _shares(given: Mapping[str, Any]) -> _Found:
    return [("self", given["self"], ~((given["self"] >= 0) & (given["self"] <= 1)))]


_GUARDS: Mapping[str, Callable[[Mapping[str, Any]], _Found]] = {
    **dict.fromkeys("gather scatter scatter_add scatter_reduce index_add index_copy index_reduce index_select".split(), _along),
    "index_fill": functools.partial(_along, wraps=True), "cummaxmin_backward": lambda given: _along(
        {"self": given["input"], "dim": given["dim"], "indices": given["indices"]}, "indices"),
    **dict.fromkeys("index _unsafe_index index_put _unsafe_index_put _index_put_impl".split(), _at),
    **dict.fromkeys(("take", "put"), _flat),
    **dict.fromkeys("nll_loss_forward nll_loss2d_forward nll_loss_backward nll_loss2d_backward".split(), _classes),
    "multi_margin_loss": _margins, "embedding_dense_backward": _rows,
    **{name: functools.partial(_pooled_at, dims=dims) for name, dims in unchecked.PLANES.items()},
    **dict.fromkeys("_linalg_eigh _linalg_svd linalg_eig linalg_pinv".split(), _finite),
    "binary_cross_entropy": _shares,
}  # fmt: skip
_UNGUARDED = frozenset("max_unpool2d max_unpool3d linalg_lstsq linalg_lu_solve searchsorted cholesky_inverse".split())


def _results(out: Tensor, failed: Tensor) -> Results:
    results = Results([out])
    if not torch._C._functorch.maybe_current_level():  # under vmap nobody can count
        results.filled = int(failed.sum())
    return results
