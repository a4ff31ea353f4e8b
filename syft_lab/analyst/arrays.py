"""NumPy's functions on pointers: the names and what they mean are NumPy's, the operations are torch's.

Elementwise functions are torch's own, which keep plain numbers as they are (labels know bounds by them) and its types: an
integer and a float32 make a float32. Most others are of `torch._numpy`, which torch has for its compiler; the few that
differ there from NumPy, or lack, are below. Any that is not named here is refused: one of the same name that means
something else would give another number without a word. `tests/unit/analyst/test_arrays.py` compares each with NumPy.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from inspect import signature
from types import FunctionType
from typing import Any

import numpy as np
import torch

from syft_lab.errors import PrivateValueError, RefusedOpError, UsageError
from syft_lab.record import Recorded

# NumPy's ufuncs, with torch's names for them.
_ELEMENTWISE = {
    "absolute": "abs", "fabs": "abs", "power": "pow", "negative": "neg", "invert": "bitwise_not",
    "divide": "div", "subtract": "sub", "multiply": "mul", "arcsin": "asin", "arccos": "acos", "arctan": "atan",
    "arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh", "arctan2": "atan2", "rint": "round", "radians": "deg2rad",
    "degrees": "rad2deg", "left_shift": "bitwise_left_shift", "right_shift": "bitwise_right_shift",
    "conjugate": "conj_physical",
    **{name: name for name in (
        "add float_power floor_divide remainder fmod maximum minimum fmax fmin hypot copysign logaddexp logaddexp2 sqrt "
        "square exp expm1 exp2 log log1p log2 log10 sin cos tan sinh cosh tanh floor ceil trunc positive deg2rad rad2deg "
        "isnan isfinite isinf signbit gcd lcm bitwise_and bitwise_or bitwise_xor logical_and logical_or logical_xor "
        "logical_not").split()},
}  # fmt: skip
# Torch's functions that take no plain number where NumPy's do.
_OF_TENSORS = frozenset(
    "maximum minimum fmax fmin atan2 hypot copysign logaddexp logaddexp2 gcd lcm logical_and logical_or logical_xor".split()
)
# Functions of `torch._numpy` that mean there what they mean in NumPy.
_COMPATIBLE = frozenset((
    "sum std var average prod max min amax amin ptp argmax argmin cumsum cumprod diff gradient sort argsort "
    "all any count_nonzero searchsorted nan_to_num isclose dot matmul inner vdot tensordot einsum kron trace "
    "convolve correlate transpose swapaxes moveaxis ravel expand_dims concatenate stack vstack hstack dstack "
    "column_stack split array_split hsplit vsplit dsplit tile repeat flip flipud fliplr roll rot90 pad where take "
    "take_along_axis diag diagonal tril triu zeros_like ones_like full_like empty_like broadcast_to "
    "broadcast_arrays atleast_1d atleast_2d atleast_3d copy shape ndim size real imag angle sinc meshgrid append "
    "histogram bincount unique nonzero argwhere divmod linalg.norm linalg.det linalg.slogdet linalg.inv linalg.pinv "
    "linalg.solve linalg.svd linalg.eigh linalg.eigvalsh linalg.cholesky linalg.qr linalg.matrix_rank "
    "linalg.matrix_power linalg.multi_dot linalg.cond fft.fft fft.ifft fft.rfft fft.irfft fft.fft2 fft.ifft2 "
    "fft.fftn fft.ifftn fft.fftshift fft.ifftshift").split())  # fmt: skip
_TRUTHS = frozenset("array_equal array_equiv allclose".split())


def call(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What a NumPy function or ufunc gives for pointers. Raises RefusedOpError for one that is not among those named above."""
    name = func.__name__ if isinstance(func, np.ufunc) else f"{func.__module__}.{func.__name__}".removeprefix("numpy.")
    if name in _TRUTHS:
        raise PrivateValueError(f"np.{name} would tell whether values are equal; (x == y).all() stays at the owner")
    given = {k: _ours(v) for k, v in kwargs.items() if v is not np._NoValue}
    if given.pop("out", None) is not None:
        raise RefusedOpError(f"np.{name} writes into no pointer: take what it gives, or use torch")
    args = [_ours(a) for a in args]
    if name in _OWN:
        return _called(name, _OWN[name], args, given)
    if name in _ELEMENTWISE and not given:
        return _elementwise(_ELEMENTWISE[name], args)
    if name not in _COMPATIBLE:
        raise RefusedOpError(f"np.{name} has no counterpart for pointers{' with these arguments' * (name in _ELEMENTWISE)}; "
                             "write it with torch functions")  # fmt: skip
    import torch._numpy as counterpart

    found: Any = counterpart
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise RefusedOpError(f"np.{name} is not in this version of torch; write it with torch functions")
    return _theirs(_called(name, found, args, given))


def _called(name: str, function: Callable[..., Any], args: list[Any], given: dict[str, Any]) -> Any:
    """What it gives; raises RefusedOpError for arguments of NumPy's that it does not have."""
    try:
        if isinstance(function, FunctionType):
            signature(function).bind(*args, **given)
    except TypeError as error:
        raise RefusedOpError(f"np.{name} on pointers {error}; write it with torch functions") from None
    try:
        return function(*args, **given)
    except NotImplementedError as error:
        why = str(error).rstrip(".") or "not with these arguments"
        raise RefusedOpError(f"np.{name} on pointers: {why}; write it with torch functions") from None


def _ours(given: Any) -> Any:
    """An argument with torch's tensors in place of arrays, and torch's types in place of NumPy's."""
    if isinstance(given, np.ndarray):
        return torch.from_numpy(np.array(given))
    if isinstance(given, np.generic):
        return given.item()
    if isinstance(given, np.dtype) or (isinstance(given, type) and issubclass(given, np.generic)):
        return torch.from_numpy(np.empty(0, given)).dtype
    if type(given) in (list, tuple):
        return type(given)(map(_ours, given))
    return given


def _theirs(found: Any) -> Any:
    """A result with pointers in place of torch's stand-ins for arrays."""
    if isinstance(found, list | tuple):
        parts = [_theirs(f) for f in found]
        return type(found)(*parts) if hasattr(found, "_fields") else type(found)(parts)
    return getattr(found, "tensor", found)


def _elementwise(name: str, args: list[Any]) -> Any:
    if name in _OF_TENSORS:
        tensor = next(a for a in args if isinstance(a, torch.Tensor))
        args = [torch.as_tensor(a, dtype=torch.result_type(tensor, a)) if isinstance(a, int | float) else a for a in args]
    return getattr(torch, name)(*args)


# What differs there from NumPy, or lacks


def _over(a: torch.Tensor, axis: Any, keepdims: Any, reduce: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``reduce`` gets all of ``axis`` as the last one and takes it away; dimensions that it adds come first."""
    chosen = tuple(range(a.dim())) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
    axes = sorted(range(a.dim())[i] for i in chosen)
    found = reduce(a.movedim(axes, tuple(range(-len(axes), 0))).flatten(-len(axes)) if axes else a[..., None])
    if keepdims:
        added = found.dim() - (a.dim() - len(axes))
        found = found.reshape(*found.shape[:added], *(1 if i in axes else n for i, n in enumerate(a.shape)))
    return found


def _floating(a: torch.Tensor) -> torch.Tensor:
    return a if a.is_floating_point() else a.double()


def _quantiles(function: Callable[..., torch.Tensor], scale: float) -> Callable[..., torch.Tensor]:
    def quantile(a: torch.Tensor, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False) -> torch.Tensor:
        a = _floating(a)
        wanted = torch.as_tensor(q, dtype=a.dtype) / scale
        return _over(a, axis, keepdims, lambda x: function(x, wanted, dim=-1, interpolation=method))

    return quantile


def _median(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    quantile = _quantiles(function, 1)
    return lambda a, axis=None, keepdims=False: quantile(a, 0.5, axis, keepdims=keepdims)


def _mean(a: torch.Tensor, axis: Any = None, dtype: torch.dtype | None = None, keepdims: bool = False) -> torch.Tensor:
    a = a.to(dtype) if dtype else a if a.is_complex() else _floating(a)  # not by mean's own dtype, with which a label is lost
    axes = tuple(range(a.dim())) if axis is None else axis
    return a.clone() if axes == () else a.mean(axes, keepdims)  # by no axis torch takes all


def _nansum(a: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    return _over(a, axis, keepdims, lambda x: x.nansum(-1))


def _nanmean(a: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    return _over(_floating(a), axis, keepdims, lambda x: x.nanmean(-1))


def _nanvar(a: torch.Tensor, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> torch.Tensor:
    def var(x: torch.Tensor) -> torch.Tensor:
        here = x.isnan().logical_not()
        apart = torch.where(here, x - x.nanmean(-1, keepdim=True), 0.0)  # of an infinity it is NaN, and stays it
        return apart.square().sum(-1) / (here.sum(-1) - ddof)

    return _over(_floating(a), axis, keepdims, var)


def _nanstd(a: torch.Tensor, axis: Any = None, ddof: float = 0, keepdims: bool = False) -> torch.Tensor:
    return _nanvar(a, axis, ddof, keepdims).sqrt()


def _nanmax(a: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    if not a.is_floating_point():
        return _over(a, axis, keepdims, lambda x: x.amax(-1))
    return _over(a, axis, keepdims, lambda x: torch.where(
        x.isnan().all(-1), torch.nan, torch.where(x.isnan(), -torch.inf, x).amax(-1)))  # fmt: skip


def _nanmin(a: torch.Tensor, axis: Any = None, keepdims: bool = False) -> torch.Tensor:
    return -_nanmax(-a, axis, keepdims)


def _clip(a: torch.Tensor, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> torch.Tensor:
    low, high = min if a_min is None else a_min, max if a_max is None else a_max
    if isinstance(low, torch.Tensor) or isinstance(high, torch.Tensor):
        low, high = (b if b is None else torch.as_tensor(b) for b in (low, high))
    return a.clone() if low is None and high is None else torch.clamp(a, low, high)  # a label knows by numbers


def _reshape(a: torch.Tensor, shape: Any, order: str = "C") -> torch.Tensor:
    if order != "C":
        raise RefusedOpError(f"np.reshape on pointers takes order='C', not {order!a}; transpose first")
    return a.reshape(shape)


def _squeeze(a: torch.Tensor, axis: Any = None) -> torch.Tensor:
    if axis is None:
        return a.squeeze()
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    if any(a.shape[i] != 1 for i in axes):
        raise ValueError("cannot squeeze an axis whose length is not 1")
    return a.squeeze(axes)


def _round(a: torch.Tensor, decimals: int = 0) -> torch.Tensor:
    if a.is_floating_point():
        return torch.round(a, decimals=decimals)
    if decimals < 0:
        raise RefusedOpError("np.round on pointers takes no negative decimals for integers; use // and *")
    return a.clone()


def _sign(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x.isnan(), x, x.sign()) if x.is_floating_point() else x.sign()


def _observed(m: torch.Tensor, y: torch.Tensor | None, rowvar: bool) -> torch.Tensor:
    """The variables, one a row."""
    rows = [v.T if v.dim() > 1 and not rowvar else torch.atleast_2d(v) for v in (m, *([] if y is None else [y]))]
    found = torch.cat(rows)
    return found.to(torch.promote_types(found.dtype, torch.float64))


def _cov(m: torch.Tensor, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None) -> torch.Tensor:
    return torch.cov(_observed(m, y, rowvar), correction=(0 if bias else 1) if ddof is None else ddof)


def _corrcoef(x: torch.Tensor, y: Any = None, rowvar: bool = True) -> torch.Tensor:
    return torch.corrcoef(_observed(x, y, rowvar))


def _digitize(x: torch.Tensor, bins: Any, right: bool = False) -> torch.Tensor:
    edges = torch.as_tensor(bins)
    if isinstance(edges, Recorded) or not bool((edges.diff() >= 0).all()):
        raise UsageError("np.digitize on pointers takes edges of your own, from the lowest to the highest")
    return torch.bucketize(x, edges, right=not right)


def _select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> torch.Tensor:
    found = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        found = torch.where(condition, choice, found)
    return found


def _cross(a: Any, b: Any, axis: int = -1) -> torch.Tensor:
    left, right = torch.broadcast_tensors(torch.as_tensor(a), torch.as_tensor(b))
    return torch.linalg.cross(left, right, dim=axis)


def _norm(x: torch.Tensor, *, axis: Any = None, keepdims: bool = False, ord: Any = 2) -> torch.Tensor:
    return torch.linalg.vector_norm(x, ord, axis, keepdims)


_OWN: dict[str, Callable[..., Any]] = {
    "median": _median(torch.quantile), "nanmedian": _median(torch.nanquantile),
    "quantile": _quantiles(torch.quantile, 1), "nanquantile": _quantiles(torch.nanquantile, 1),
    "percentile": _quantiles(torch.quantile, 100), "nanpercentile": _quantiles(torch.nanquantile, 100),
    "nansum": _nansum, "nanmean": _nanmean, "nanvar": _nanvar, "nanstd": _nanstd, "nanmax": _nanmax, "nanmin": _nanmin,
    "mean": _mean, "clip": _clip, "reshape": _reshape, "digitize": _digitize, "select": _select, "linalg.vector_norm": _norm,
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
    "equal": operator.eq, "not_equal": operator.ne, "squeeze": _squeeze, "round": _round, "around": _round, "sign": _sign,
    "cov": _cov, "corrcoef": _corrcoef, "outer": lambda a, b: torch.outer(a.ravel(), b.ravel()),
    "fix": torch.trunc, "cbrt": lambda x: torch.copysign(x.abs().pow(1 / 3), x), "matrix_transpose": lambda x: x.mT,
    "vecdot": lambda x1, x2, axis=-1: torch.linalg.vecdot(x1, x2, dim=axis), "cross": _cross,
    "trapezoid": lambda y, x=None, dx=1.0, axis=-1:
        torch.trapezoid(y, dx=dx, dim=axis) if x is None else torch.trapezoid(y, x, dim=axis),
}  # fmt: skip
