"""What is known of a value without it, on both sides: shape, strides, dtype and label, and how operations change them.

An operation is run on meta tensors, which have all but values; `labels` says what becomes of privacy. Whoever asks keeps
the answers, for most operations come again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch

from syft_lab import labels, ops
from syft_lab.errors import RefusedOpError, UsageError
from syft_lab.labels import PUBLIC, Label
from syft_lab.plans import Body, Mark, Ref

META = torch.device("meta")
MAX_CACHE = 8_192
DTYPES = {str(d).removeprefix("torch."): d for d in (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)}  # fmt: skip
_FORMATS = {str(f).removeprefix("torch."): f for f in (torch.contiguous_format, torch.channels_last, torch.preserve_format)}


class Spec:
    """What is known of a value without it: shape, strides, offset, dtype, label. Interned: equal ones are the same object."""

    __slots__ = ("_plain", "boolean", "dtype", "label", "offset", "shape", "stride")
    _all: ClassVar[dict[tuple[Any, ...], Spec]] = {}

    def __init__(self, shape: tuple[int, ...], stride: tuple[int, ...], offset: int, dtype: torch.dtype, label: Label) -> None:
        self.shape, self.stride, self.offset, self.dtype, self.label = shape, stride, offset, dtype, label
        self.boolean = dtype is torch.bool
        self._plain: Spec | None = None

    @classmethod
    def of(cls, t: torch.Tensor, label: Label, offset: int | None = None) -> Spec:
        """That of a tensor, a meta tensor or a real one."""
        return cls._the(tuple(t.shape), tuple(t.stride()), t.storage_offset() if offset is None else offset, t.dtype, label)

    @classmethod
    def _the(cls, *key: Any) -> Spec:
        found = cls._all.get(key)
        if found is None:
            if len(cls._all) > 4 * MAX_CACHE:
                cls._all.clear()
            found = cls._all[key] = cls(*key)
        return found

    @property
    def plain(self) -> Spec:
        """The same at the beginning of its memory: what most operations see of it."""
        if self._plain is None:
            same = self.offset == 0
            self._plain = self if same else Spec._the(self.shape, self.stride, 0, self.dtype, self.label)
        return self._plain

    def typed(self, dtype: torch.dtype) -> Spec:
        """The same of another type."""
        return Spec._the(self.shape, self.stride, self.offset, dtype, self.label)

    def meta(self) -> torch.Tensor:
        """A meta tensor that looks like it."""
        if not self.offset:
            return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        return self.filled(0, META)

    @property
    def span(self) -> int:
        """How many places of memory lie between its first entry and its last, both counted."""
        return 0 if 0 in self.shape else 1 + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))

    @property
    def gaps(self) -> bool:
        """Whether its memory has places between its entries that none of them is at."""
        return self.span > math.prod(self.shape)

    def filled(self, value: float, device: torch.device) -> torch.Tensor:
        """A tensor that looks like it, all of whose memory holds ``value``."""
        whole = torch.full((self.offset + self.span,), value, dtype=self.dtype, device=device)
        return whole.as_strided(self.shape, self.stride, self.offset if self.span else 0)

    def to_json(self) -> dict[str, Any]:
        """For messages; `from_json` gives it back."""
        return {"shape": list(self.shape), "stride": list(self.stride), "offset": self.offset,
                "dtype": str(self.dtype).removeprefix("torch."), "label": self.label.to_json()}  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spec:
        """That of `to_json`."""
        label = Label.from_json(value["label"])
        return cls._the(tuple(value["shape"]), tuple(value["stride"]), value["offset"], DTYPES[value["dtype"]], label)

    @property
    def nbytes(self) -> int:
        """Bytes of its entries."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


def check_dense(tensor: torch.Tensor) -> None:
    """Raises UsageError for what can't travel."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise UsageError(f"a {tensor.layout} tensor can't travel: use t.to_dense()")
    if str(tensor.dtype).removeprefix("torch.") not in DTYPES:
        raise UsageError(f"a tensor of {tensor.dtype} can't travel; use {', '.join(DTYPES)}")
    if tensor.device.type == "meta":
        raise UsageError("a meta tensor has no values to send")


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The entries of a tensor on a CPU as a row of bytes: its own memory, where that is one stretch."""
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if whole.numel() == 1 and whole.stride() != (1,):  # a number that was expanded counts as contiguous
        whole = whole.clone(memory_format=torch.contiguous_format)
    return whole.view(torch.uint8) if whole.numel() else torch.empty(0, dtype=torch.uint8)


def decoded(arg: Any, tensor: Callable[[int], Any], device: Any, constant: Callable[[int], Any]) -> Any:
    """An argument of a parsed plan as torch wants it; raises RefusedOpError."""
    kind = type(arg)
    if kind is Ref:
        return tensor(arg.number)
    if kind in (list, tuple) and kind is not Mark:
        return [decoded(a, tensor, device, constant) for a in arg]
    if kind is Mark:
        found = {"t": DTYPES, "m": _FORMATS, "l": {"strided": torch.strided}, "d": {"owner": device}}[arg.kind].get(arg.name)
        if found is None:
            raise RefusedOpError(f"a plan has no {ascii(arg.name)[:40]}")
        return found
    return arg if kind in (int, float, bool, str, complex, Body) or arg is None else constant(arg.position)


def looks(func: Any, specs: Sequence[Any], named: Mapping[str, Any]) -> tuple[list[Spec | None], Any]:
    """Specs of what an overload makes of such arguments, by a run on meta tensors, and the nesting of its results."""
    op = str(func)

    def meta(arg: Any) -> Any:
        if type(arg) is Spec:
            return arg.meta()
        return [meta(a) for a in arg] if type(arg) in (list, tuple) else arg

    many = max((n for s in specs if type(s) is Spec for n in s.shape), default=0) if op in _LISTS else 0
    if many > 100_000:
        raise RefusedOpError(f"{op} would make too many tensors")
    try:
        with torch.no_grad():
            made = func(*map(meta, specs), **{k: meta(v) for k, v in named.items()})
    except NotImplementedError:
        raise RefusedOpError(f"torch can't tell what {op} would give without values, so a plan can't have it") from None
    flat = list(flattened(made))
    if not all(isinstance(t, torch.Tensor) for t in flat if t is not None):
        raise ops.refusal(op)
    plain = [None if t is None else Spec.of(t, PUBLIC) for t in flat]
    found = labels.infer(op, specs, named, [p for p in plain if p is not None], Spec)
    told = iter(found)
    outs = [None if t is None else Spec.of(t, next(told)) for t in flat]
    return outs, None if isinstance(made, torch.Tensor) else made


def of_each(inputs: Sequence[Spec], flags: Sequence[int], made: Sequence[Spec]) -> list[Spec]:
    """How results for each record look, of what a program makes of one: records along the first axis.

    ``flags`` say 0 of inputs that are mapped. Raises UsageError where these don't have the same number of records.
    """
    counts = {spec.shape[:1] for spec, flag in zip(inputs, flags, strict=True) if flag == 0}
    if len(counts) != 1 or () in counts:
        raise UsageError("what is mapped has the same number of records, at least one argument, along its first axis")
    (count,) = counts
    label = labels.each([(spec, flag == 0) for spec, flag in zip(inputs, flags, strict=True)])
    return [Spec.of(torch.empty((*count, *one.shape), dtype=one.dtype, device=META), label) for one in made]


def of_one(spec: Spec) -> Spec:
    """How one record of a mapped value looks."""
    label = PUBLIC if spec.label.kind == "public" else Label("private", spec.label.sources)
    return Spec.of(torch.empty(spec.shape[1:], dtype=spec.dtype, device=META), label)


_LISTS = frozenset(f"aten.{n}" for n in ("unbind.int", "split.Tensor", "unsafe_split.Tensor"))


def flattened(made: Any) -> Iterator[Any]:
    """The results of an operation in a row."""
    if isinstance(made, list | tuple):
        for each in made:
            yield from flattened(each)
    else:
        yield made
