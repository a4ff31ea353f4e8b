"""What torch takes on trust: sizes and places that its own code gives to an operation, and a plan need not.

Kernels of gradients, and some that fuse several steps, go by the size of one argument and read another without looking at its
own; some write to places that are values. An analyst who gives them others would read or write memory next to a tensor, where
private data lies. So sizes are compared before anything runs, and places each time. `tests/attacks/test_memory.py` looks for
such operations, with arguments that end where memory does.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, broadcast_shapes

from syft_lab.ops import LOSSES

Shape = tuple[int, ...]
Given = Mapping[str, Any]  # arguments by name; what has a shape is a tensor, or how one looks
Pair = tuple[Any, Any]  # what must be equal


# Gradients of max-pooling write to places in planes of so many dimensions.
PLANES = {f"{name}{dims}d{end}_backward": dims for dims in (2, 3)
          for name, end in (("max_pool", "_with_indices"), ("adaptive_max_pool", ""))}  # fmt: skip


def sizes(name: str, given: Given) -> None:
    """Raises ValueError where arguments of an operation don't belong together."""
    if name.startswith("as_strided") and "backward" not in name:
        _inside(name, given)
    if name in _FULL and any(0 in _shape(given, n) for n, v in given.items() if hasattr(v, "shape")):
        raise ValueError(f"{name} of tensors without entries: torch's code divides by their number, or reads before them")
    if name in LOSSES and name.endswith("_backward") and not given["self"].dtype.is_floating_point:
        raise ValueError(f"{name} of whole numbers: they have no gradient")  # and a divisor would be cut to 0, which traps
    if name in _AXES and not all(0 <= d < len(_shape(given, "self")) for d in given["dim"]):
        raise ValueError(f"{name} takes axes that are counted from the front, from 0 on")
    for argument, most in {**_MODES, **_CHOICES.get(name, {})}.items():
        if type(given.get(argument)) is int and not 0 <= given[argument] <= most:
            raise ValueError(f"{name} has {argument} 0 to {most}, not {given[argument]}")
    rule = _SIZES.get(name)
    if rule is not None:
        for found, due in rule(given):
            if found is not None and found != due:
                raise ValueError(f"{name} was given sizes that don't belong together: {list(found)} in place of {list(due)}")


def _inside(name: str, given: Given) -> None:
    """Raises ValueError where places in memory are before a value's first entry, or behind its last: nobody wrote there."""
    of, size, stride, place = given["self"], given["size"], given["stride"], given.get("storage_offset")
    start = of.offset if place is None else place
    last = start + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and not of.offset <= start <= last < of.offset + of.span:
        raise ValueError(
            f"{name} was given places {start} to {last} of a value that has {of.offset} to {of.offset + of.span - 1}"
        )


def _of(given: Given, name: str) -> Shape | None:
    value = given.get(name)
    return None if value is None else tuple(value.shape)


def _shape(given: Given, name: str) -> Shape:
    return tuple(given[name].shape)


def _count(shape: Shape | None) -> Shape | None:
    return None if shape is None else (math.prod(shape),)


def _channels(*names: str) -> Callable[[Given], Iterator[Pair]]:
    """Batch normalisation: a number for each channel; those of a batch may be missing where running ones are used."""

    def rule(given: Given) -> Iterator[Pair]:
        of = _shape(given, "input")
        for name in names:
            shape = _of(given, name)
            if not (name.startswith("save") and shape == (0,) and not given.get("train")):
                yield shape, of[1:2]
        yield _of(given, "grad_out"), of

    return rule


def _last(given: Given) -> Iterator[Pair]:
    """Normalisation over the last dimensions."""
    of, over = _shape(given, "input"), tuple(given["normalized_shape"])
    rows = of[: len(of) - len(over)]
    yield of[len(rows) :], over
    yield _of(given, "grad_out"), of
    for name in ("weight", "bias"):
        yield _of(given, name), over
    for name in ("mean", "rstd"):
        yield _count(_of(given, name)), (math.prod(rows),)


def _attention(given: Given) -> Iterator[Pair]:
    query, key, value = (_shape(given, n) for n in ("query", "key", "value"))
    yield (len(query), len(key), len(value)), (4, 4, 4)
    yield key, (*query[:2], key[2], query[3])
    yield value, key
    for name in ("grad_out", "out"):
        yield _of(given, name), query
    yield _of(given, "logsumexp"), query[:3]
    mask = _of(given, "attn_mask")
    if mask is not None:
        yield broadcast_shapes(mask, (*query[:3], key[2])), (*query[:3], key[2])


def _weight_norm(given: Given) -> Iterator[Pair]:
    of = _shape(given, "v" if "v" in given else "saved_v")
    dim = given.get("dim", 0) % max(1, len(of))
    yield (dim in (0, len(of) - 1),), (True,)
    yield _of(given, "grad_w"), of
    for name in ("g", "saved_g", "saved_norms"):
        yield _count(_of(given, name)), of[dim : dim + 1]


def _distances(given: Given) -> Iterator[Pair]:
    a, b = _shape(given, "x1"), _shape(given, "x2")
    due = (*broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-2])
    yield b[-1:], a[-1:]
    yield _of(given, "cdist"), due
    yield _of(given, "grad"), due


def _pairs(given: Given) -> Iterator[Pair]:
    rows = _shape(given, "self")[0]
    for name in ("grad", "pdist"):
        yield _of(given, name), (rows * (rows - 1) // 2,)


def _like(name: str, *others: str) -> Callable[[Given], Iterator[Pair]]:
    return lambda given: ((_of(given, other), _shape(given, name)) for other in others)


def _pooled(dims: int) -> Callable[[Given], Iterator[Pair]]:
    """The gradient of a pooling has the same planes as what was pooled."""

    def rule(given: Given) -> Iterator[Pair]:
        of, grad = _shape(given, "self"), _shape(given, "grad_output")
        yield grad[:-dims], of[:-dims]
        yield (len(grad),), (len(of),)
        yield _of(given, "indices"), grad

    return rule


def _padded(given: Given) -> Iterator[Pair]:
    of, padding = list(_shape(given, "self")), list(given["padding"])
    for i in range(len(padding) // 2):
        of[-1 - i] += padding[2 * i] + padding[2 * i + 1]
    yield _shape(given, "grad_output"), tuple(of)


def _windows(given: Given) -> Iterator[Pair]:
    of, size, step = list(given["input_sizes"]), given["size"], given["step"]
    dim = given["dim"] % len(of) if of else 0
    of[dim] = (of[dim] - size) // step + 1
    yield _shape(given, "grad_in"), (*of, size)


def _grid(given: Given) -> Iterator[Pair]:
    of, grid = _shape(given, "input"), _shape(given, "grid")
    yield _shape(given, "grad_output"), (*of[:2], *grid[1:-1])
    yield (grid[0], grid[-1], len(grid)), (of[0], len(of) - 2, len(of))


def _half(given: Given) -> Iterator[Pair]:
    of = list(_shape(given, "self"))
    of[given["dim"]] //= 2
    yield _shape(given, "grad_output"), tuple(of)


_FULL = frozenset(
    "_pdist_backward _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention_for_cpu_backward "
    "_weight_norm_interface _weight_norm_interface_backward".split()
)
_AXES = frozenset(("_fft_c2c", "_fft_r2c", "_fft_c2r"))  # written to in a list of sizes as they are
# Numbers that stand for a way to compute, for which there is code up to so much; for others results stay as memory was.
_MODES: Mapping[str, int] = {"reduction": 2, "normalization": 2, "compute_mode": 2}
_CHOICES: Mapping[str, Mapping[str, int]] = {
    **{f"grid_sampler_2d{end}": {"interpolation_mode": 2, "padding_mode": 2} for end in ("", "_backward")},
    **{f"grid_sampler_3d{end}": {"interpolation_mode": 1, "padding_mode": 2} for end in ("", "_backward")},
}
_RUNNING = ("weight", "bias", "running_mean", "running_var")
_SIZES: dict[str, Callable[[Given], Iterator[Pair]]] = {
    **dict.fromkeys(("_native_batch_norm_legit", "_native_batch_norm_legit_functional",
                     "_native_batch_norm_legit_no_training", "native_batch_norm"), _channels(*_RUNNING)),
    "native_batch_norm_backward": _channels(*_RUNNING, "save_mean", "save_invstd"),
    **dict.fromkeys(("native_layer_norm", "native_layer_norm_backward", "_fused_rms_norm", "_fused_rms_norm_backward"), _last),
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention,
    "_weight_norm_interface": _weight_norm, "_weight_norm_interface_backward": _weight_norm,
    "_cdist_backward": _distances, "_pdist_backward": _pairs,
    "_softmax_backward_data": _like("output", "grad_output"), "_log_softmax_backward_data": _like("output", "grad_output"),
    "log_sigmoid_backward": _like("self", "grad_output"),
    "unfold_backward": _windows, "glu_backward": _half,
    **dict.fromkeys(("grid_sampler_2d_backward", "grid_sampler_3d_backward"), _grid),
    **{f"{name}{dims}d_backward": _pooled(dims) for dims in (2, 3) for name in ("avg_pool", "_adaptive_avg_pool")},
    **{name: _pooled(dims) for name, dims in PLANES.items()},
    **{f"{name}_pad{dims}d_backward": _padded for dims in (1, 2, 3) for name in ("reflection", "replication")},
}  # fmt: skip


# Places, which are values


def within(places: Tensor, low: int, high: int, besides: int | None = None) -> None:
    """Raises IndexError where a place is below ``low``, or ``high`` or more, and not ``besides``."""
    if not places.numel() or torch._C._functorch.maybe_current_level() is not None:  # there they are guarded: `total`
        return
    outside = (places < low) | (places >= high)
    if besides is not None:
        outside &= places != besides
    if bool(outside.any()):
        raise IndexError("index out of range")


def looked(name: str, arguments: Sequence[str], call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` of an operation of `PLACES`, whose places are looked at first: torch writes to them, or reads, as they are."""
    rule = PLACES[name]

    def checked(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Any:
        within(*rule({**dict(zip(arguments, args, strict=False)), **kwargs}))
        return call(args, kwargs, seed)

    return checked


def long_places(arguments: Sequence[str], call: Callable[..., Any]) -> Callable[..., Any]:
    """``call`` of `gather` with places of 64 bits: torch 2.13 reads others wrongly where they are expanded."""

    def widened(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Any:
        given = {**dict(zip(arguments, args, strict=False)), **kwargs}
        return call([], {**given, "index": given["index"].to(torch.int64)}, seed)

    return widened


def _in_planes(given: Given, dims: int) -> tuple[Any, int, int]:
    """Each place is in a plane of what was pooled."""
    return given["indices"], 0, math.prod(given["self"].shape[-dims:])


def _classes(given: Given) -> tuple[Any, int, int, int]:
    of = given["self"].shape
    return given["target"], 0, of[1 if len(of) > 1 else 0], given["ignore_index"]


PLACES: Mapping[str, Callable[[Given], tuple[Any, ...]]] = {
    **{name: functools.partial(_in_planes, dims=dims) for name, dims in PLANES.items()},
    **dict.fromkeys(("nll_loss_backward", "nll_loss2d_backward"), _classes),
    "embedding_dense_backward": lambda given: (given["indices"], 0, given["num_weights"], given["padding_idx"]),
}
