"""Privacy labels of tensors: what is known about how one person shows in a value. One rule an operation; default private.

    public             computed from public values alone
    rows(axis, k, …)   entry i along ``axis`` is about record i of one dataset, and one person has at most k records
    aggregate(L1, L2)  replacing one person moves it by at most L1, and L2, in those norms
    private            anything else

Neighbours replace one person's records (the number of records is public): docs/privacy.md has the argument for each
rule. Bounds of ``rows`` are where values lie *after* the owner has clamped them: the owner clamps again where a sum
makes an aggregate (`kernel.executor.grid`), so that no rounding, NaN or infinity on the way can break the promise.
Pure: the analyst computes the same labels to say early what the owner would say.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, Protocol

from syft_lab.errors import RefusedOpError
from syft_lab.ops import ALLOWED, LIKE, POINTWISE, REASONS, find, packet
from syft_lab.printable import printed

Bounds = tuple[float, float]
MAX_SOURCES = 64  # of a value: each is read by who decides about it


@dataclass(frozen=True)
class Label:
    """``kind`` is public, private, rows or aggregate; ``sources`` are the datasets it comes from, as "name v1"."""

    kind: str
    sources: tuple[str, ...] = ()
    axis: int = 0
    k: int = 0
    bounds: Bounds | None = None
    l1: float = 0.0
    l2: float = 0.0

    @printed
    def __str__(self) -> str:
        if self.kind == "rows":
            bounds = f", in [{self.bounds[0]:g}, {self.bounds[1]:g}]" if self.bounds else ""
            return f"rows(axis {self.axis}, {self.k} a person{bounds}) of {self.sources[0]}"
        if self.kind == "aggregate":
            return f"aggregate(L1 {self.l1:g}, L2 {self.l2:g}) of {self.sources[0]}"
        return self.kind + (f", from {', '.join(self.sources)}" if self.sources else "")

    def to_json(self) -> dict[str, Any]:
        """For messages."""
        return {"kind": self.kind, "sources": list(self.sources), "axis": self.axis, "k": self.k,
                "bounds": None if self.bounds is None else list(self.bounds), "l1": self.l1, "l2": self.l2}  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Label:
        """That of `to_json`."""
        bounds = value["bounds"]
        limits = None if bounds is None else (bounds[0], bounds[1])
        return cls(value["kind"], tuple(value["sources"]), value["axis"], value["k"], limits, value["l1"], value["l2"])


PUBLIC = Label("public")
LEAST = 2.0**-950  # of an aggregate: below, floats lose digits of its size


class Known(Protocol):
    """What is known of a tensor without its values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""

    @property
    def label(self) -> Label:
        """Its label."""

    @property
    def dtype(self) -> Any:
        """Its entries' type."""

    @property
    def boolean(self) -> bool:
        """Whether its entries are true or false."""


def rows(source: str, k: int, bounds: Bounds | None = None) -> Label:
    """The label of a published dataset: records lie along the first axis."""
    return Label("rows", (source,), 0, k, bounds)


def tensors(args: Sequence[Any], kwargs: Mapping[str, Any], kind: type) -> Iterator[Any]:
    """The tensors among arguments, in order, also within lists."""
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, kind):
            yield arg
        elif type(arg) in (list, tuple):
            yield from (a for a in arg if isinstance(a, kind))


def infer(op: str, args: Sequence[Any], kwargs: Mapping[str, Any], outs: Sequence[Known], kind: type) -> list[Label]:
    """Labels of what ``op`` makes. Tensor arguments are given as ``kind`` (a `Known`); ``outs`` lack their labels."""
    given: list[Known] = list(tensors(args, kwargs, kind))
    name = packet(op)
    # Of its first argument, and of no other, an operation that only makes something of the same shape uses no value.
    counts = given[1:] if name in LIKE and args and isinstance(args[0], kind) else given
    if all(t.label.kind == "public" for t in counts):
        return [PUBLIC] * len(outs)
    sources = joined(t.label for t in given)
    private = Label("private", sources)
    rule = _RULES.get(name)
    if rule is None or len(sources) > 1:
        return [private] * len(outs)
    try:
        named = bound(op, args, kwargs)
    except TypeError:
        return [private] * len(outs)
    return [_judged(rule, _Step(name, named, out, kind)) or private for out in outs]


def each(inputs: Iterable[tuple[Known, bool]]) -> Label:
    """The label of what a program makes of each record by itself, of inputs that are mapped along their first axis, or not.

    Rows, whatever the program is made of, where what is private is mapped, and its records are of the same people.
    """
    given = list(inputs)
    private = [(t.label, mapped) for t, mapped in given if t.label.kind != "public"]
    if not private:
        return PUBLIC
    sources = joined(label for label, _ in private)
    one = _together(replace(label, bounds=None) for label, _ in private)
    if one is not None and one.kind == "rows" and one.axis == 0 and all(mapped for _, mapped in private):
        return one
    return Label("private", sources)


def joined(of: Iterable[Label]) -> tuple[str, ...]:
    """The datasets of several values. None is ever left out: owners decide by them who may have what.

    Raises RefusedOpError for more than `MAX_SOURCES`.
    """
    found = tuple(sorted({s for label in of for s in label.sources}))
    if len(found) > MAX_SOURCES:
        raise RefusedOpError(f"a value is made of at most {MAX_SOURCES} datasets, and this would be of {len(found)}: an owner "
                             "who decides about it has to see them all; compute on some of them, and release that")  # fmt: skip
    return found


def bound(op: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by the names that torch's schema gives them, with defaults: the same in whichever way they were written.

    Raises TypeError where they don't fit the schema.
    """
    names, defaults = _parameters(op)
    if len(args) > len(names) or kwargs.keys() - set(names) or kwargs.keys() & set(names[: len(args)]):
        raise TypeError(f"{op} has other arguments")
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}


@cache
def _parameters(op: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    schema = find(op)._schema
    return tuple(a.name for a in schema.arguments), {a.name: a.default_value for a in schema.arguments if a.has_default_value()}


def _judged(rule: Callable[[_Step], Label | None], step: _Step) -> Label | None:
    """What a rule says; nothing where the arguments are not as it expects, or where records would change their number."""
    try:
        label = rule(step)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if label is None or label.kind != "rows":
        return label
    if label.bounds is not None and not all(map(math.isfinite, label.bounds)):
        label = replace(label, bounds=None)
    counts = {t.shape[t.label.axis] for t in step.given if t.label.kind == "rows"}
    return label if 0 <= label.axis < len(step.out.shape) and {step.out.shape[label.axis]} == counts else None


@dataclass(frozen=True)
class _Step:
    """One operation, as its rule sees it: arguments by name, so that no tensor is taken for another that looks the same."""

    name: str
    named: Mapping[str, Any]
    out: Known
    kind: type

    def __getitem__(self, name: str) -> Any:
        """An argument by its name; a KeyError, as of any rule, makes the result private."""
        return self.named[name]

    @cached_property
    def places(self) -> Mapping[str, Known]:
        """The tensors among the arguments, by their places: a name, or a name and a position in its list."""
        found: dict[str, Known] = {}
        for name, arg in self.named.items():
            if isinstance(arg, self.kind):
                found[name] = arg  # type: ignore[assignment]
            elif type(arg) in (list, tuple):
                found.update((f"{name}[{i}]", a) for i, a in enumerate(arg) if isinstance(a, self.kind))  # type: ignore[misc]
        return found

    @property
    def given(self) -> list[Known]:
        """The tensors among the arguments."""
        return list(self.places.values())

    @property
    def first(self) -> Known:
        """The first of them."""
        return self.given[0]

    def one(self, name: str) -> Known:
        """The tensor called so, where all others are public; raises TypeError otherwise."""
        if any(t.label.kind != "public" for place, t in self.places.items() if place != name):
            raise TypeError("others than the first are private")
        return self.places[name]


def _number(value: Any) -> bool:
    return type(value) in (int, float, bool) and math.isfinite(value)


def _placed(x: Known, out: Known) -> Label | None:
    """The label of rows that are broadcast to ``out``, which aligns last axes; None where they are not, or spread over others.

    A record is spread where its axis has another length in ``out``, or is not there at all.
    """
    axis = len(out.shape) - len(x.shape) + x.label.axis
    if x.label.kind != "rows" or not 0 <= axis < len(out.shape) or x.shape[x.label.axis] != out.shape[axis]:
        return None
    return Label("rows", x.label.sources, axis, x.label.k)


def _together(labels: Iterable[Label | None]) -> Label | None:
    """The one label that all of these are; None where they differ: records of different people, or elsewhere."""
    found = set(labels)
    return found.pop() if len(found) == 1 else None


def _pointwise(step: _Step) -> Label | None:
    """Entry by entry, with broadcasting. Records stay apart if all that have some lie along the same axis of the result."""
    private = [t for t in step.given if t.label.kind != "public"]
    if any(t.label.kind == "aggregate" for t in private):
        return _scaled(step)
    if step.name == "lerp" and step.out.dtype.is_complex:  # torch 2.13 takes a record's formula from the weight beside it
        return None
    label = _together(_placed(t, step.out) for t in private)
    return None if label is None else replace(label, bounds=_bounds(step))


def _scaled(step: _Step) -> Label | None:
    """Linear in one aggregate with public numbers: moving, turning its sign, scaling by a number."""
    name, x = step.name, step.one("self")
    if x.label.kind != "aggregate" or x.shape != step.out.shape:
        return None
    if name in ("neg", "negative", "clone", "detach", "alias", "positive", "lift_fresh"):
        return x.label
    other = step["other"]
    if not _number(other):
        return None
    if name in ("add", "sub", "rsub") and step["alpha"] == 1:
        return x.label
    if name in ("mul", "div") and step.named.get("rounding_mode") is None:
        by = abs(other) if name == "mul" else (1 / abs(other) if other else math.inf)
        if 0 < by < math.inf and LEAST < x.label.l1 * by < math.inf:
            return replace(x.label, l1=x.label.l1 * by, l2=x.label.l2 * by)
    return None


_SAME = frozenset(("clone", "detach", "alias", "_to_copy", "positive", "lift_fresh"))
_RANGES = {**dict.fromkeys(("sigmoid", "hardsigmoid"), (0.0, 1.0)), **dict.fromkeys(("tanh", "erf", "sin", "cos"), (-1.0, 1.0))}


def _bounds(step: _Step) -> Bounds | None:
    """Where the results of a pointwise operation lie; None if that is not known."""
    name, x, other = step.name, step.named.get("self"), step.named.get("other")
    if step.out.boolean:
        return 0.0, 1.0
    if name in ("clamp", "hardtanh"):
        low, high = (step["min"], step["max"]) if name == "clamp" else (step["min_val"], step["max_val"])
        return (float(low), float(high)) if _number(low) and _number(high) and low <= high else None
    if name in _RANGES:
        return _RANGES[name]
    b: Bounds | None = x.label.bounds if isinstance(x, step.kind) and x.label.kind == "rows" else None  # type: ignore[attr-defined]
    if b is None:
        return None
    if name in _SAME:
        return b
    if name == "relu":
        return max(b[0], 0.0), max(b[1], 0.0)
    if name in ("neg", "negative"):
        return -b[1], -b[0]
    if name in ("abs", "square"):
        ends = [abs(v) if name == "abs" else v * v for v in b]
        return (0.0 if b[0] <= 0 <= b[1] else min(ends)), max(ends)
    if name in _LINEAR and _number(other) and step.named.get("alpha", 1) == 1 and step.named.get("rounding_mode") is None:
        if name == "div" and other == 0:
            return None
        ends = sorted(float(_LINEAR[name](v, other)) for v in b)
        return (ends[0], ends[1]) if all(map(math.isfinite, ends)) else None
    return None


_LINEAR: dict[str, Callable[[float, Any], float]] = {
    "add": lambda v, by: v + by, "sub": lambda v, by: v - by, "rsub": lambda v, by: by - v,
    "mul": lambda v, by: v * by, "div": lambda v, by: v / by,
}  # fmt: skip


def reduced(dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes over which a reduction goes: all of them where none is named."""
    return _axes(dim, ndim) or tuple(range(ndim))


def _axes(dim: Any, ndim: int) -> tuple[int, ...]:
    """The axes that are named, from the front; raises TypeError for what is no axis."""
    axes = () if dim is None else tuple(dim) if isinstance(dim, list | tuple) else (dim,)
    if any(type(d) is not int or not -ndim <= d < ndim for d in axes):  # torch takes True for 1
        raise TypeError("no axis")
    axes = tuple(d % ndim for d in axes)
    if len(set(axes)) != len(axes):
        raise TypeError("an axis twice")
    return axes


def _without(label: Label, gone: Iterable[int], bounds: Bounds | None) -> Label | None:
    """Rows whose axis moves because axes before it are gone; None where it is gone itself."""
    axes = set(gone)
    return None if label.axis in axes else replace(label, axis=label.axis - sum(d < label.axis for d in axes), bounds=bounds)


def _sum(step: _Step) -> Label | None:
    """A sum or mean: over the records, of bounded values, it is an aggregate; otherwise records stay apart."""
    x, mean = step.one("self"), step.name == "mean"
    label = x.label
    if label.kind != "rows" or step["dtype"] is not None:
        return None
    dims = reduced(step.named.get("dim"), len(x.shape))
    bounds = (0.0, 1.0) if x.boolean else label.bounds
    within = math.prod(x.shape[d] for d in dims if d != label.axis)
    if label.axis not in dims:
        after = None if bounds is None else bounds if mean else (bounds[0] * within, bounds[1] * within)
        return _without(label, () if step.named.get("keepdim") else dims, after)
    if bounds is None or 0 in x.shape or x.dtype.is_complex:  # the grid is of real numbers
        return None
    width, outs, count = bounds[1] - bounds[0], math.prod(step.out.shape), within * x.shape[label.axis]
    one = label.k * within * width / (count if mean else 1)
    sizes = (one * outs, width, count * max(map(abs, bounds)), 2.0**64 / width if width else 0.0)
    if not all(map(math.isfinite, sizes)):  # the grid of `kernel.executor.grid` has no room for it
        return None
    return Label("aggregate", label.sources, l1=one * outs, l2=one * math.sqrt(outs))


def _within(step: _Step) -> Label | None:
    """A reduction of each record by itself: its axes are not that of the records."""
    x = step.one("self")
    if x.label.kind != "rows":
        return None
    dims = reduced(step.named.get("dim"), len(x.shape))
    if x.label.axis in dims:
        return None
    bounds = x.label.bounds if step.name in ("amax", "amin") else None
    return _without(x.label, () if step["keepdim"] else dims, bounds)


def _along(step: _Step) -> Label | None:
    """Softmax and the like: along an axis that is not that of the records; the shape stays."""
    x = step.one("self")
    if x.label.kind != "rows" or x.label.axis in _axes(step["dim"], len(x.shape)):
        return None
    return replace(x.label, bounds=(0.0, 1.0) if step.name in ("_softmax", "softmax") else None)


def _view(step: _Step) -> Label | None:
    """Another shape: of an aggregate, any; records stay if they lie along the first axis before and after."""
    x = step.one("self")
    if "dtype" in step.named:
        return None  # a view of the bits as another type
    if x.label.kind == "aggregate":
        return x.label
    if x.label.kind == "rows" and x.label.axis == 0 and step.out.shape[:1] == x.shape[:1] and x.shape[0] > 0:
        return x.label
    return None


def _permuted(step: _Step) -> Label | None:
    """Axes in another order: the records' goes with them."""
    x = step.one("self")
    if x.label.kind == "aggregate":
        return x.label
    if x.label.kind != "rows":
        return None
    ndim = len(x.shape)
    order = list(range(ndim))
    if step.name == "permute":
        order = list(_axes(step["dims"], ndim))
    elif step.name == "t":
        order = order[::-1]
    else:
        (a,), (b,) = _axes(step["dim0"], ndim), _axes(step["dim1"], ndim)
        order[a], order[b] = order[b], order[a]
    return replace(x.label, axis=order.index(x.label.axis))


def _unsqueezed(step: _Step) -> Label | None:
    """An axis of length 1 more."""
    x = step.one("self")
    if x.label.kind != "rows":
        return x.label if x.label.kind == "aggregate" else None
    (at,) = _axes(step["dim"], len(x.shape) + 1)
    return replace(x.label, axis=x.label.axis + (at <= x.label.axis))


def _squeezed(step: _Step) -> Label | None:
    """Axes of length 1 fewer: those that are named, of which there may be none, or all of them where none can be."""
    x = step.one("self")
    if x.label.kind != "rows":
        return x.label if x.label.kind == "aggregate" else None
    named = _axes(step["dim"], len(x.shape)) if "dim" in step.named else range(len(x.shape))
    return _without(x.label, (d for d in named if x.shape[d] == 1), x.label.bounds)


def _expanded(step: _Step) -> Label | None:
    """Repeated along other axes than that of the records."""
    x = step.one("self")
    label = _placed(x, step.out)
    return None if label is None else replace(label, bounds=x.label.bounds)


def _part(step: _Step) -> Label | None:
    """Some columns of each record. Some *records* would no longer stand at their place: private."""
    x = step.one("self")
    if x.label.kind == "aggregate":
        return x.label if step.name in ("select", "slice") else None
    if x.label.kind != "rows":
        return None
    (dim,) = _axes(step["dim"], len(x.shape))
    if dim == x.label.axis:
        return None
    return _without(x.label, (dim,) if step.name in ("select", "unbind") else (), x.label.bounds)


def _joined(step: _Step) -> Label | None:
    """Side by side, along an axis that is not that of the records."""
    parts = step.given
    ndim = len(parts[0].shape)
    label = _together(replace(t.label, bounds=None) for t in parts if t.label.kind != "public")
    if label is None or label.kind != "rows" or any(len(t.shape) != ndim for t in parts):
        return None
    (dim,) = _axes(step["dim"], ndim + (step.name == "stack"))
    if step.name == "cat" and dim == label.axis:
        return None
    every = [t.label.bounds for t in parts]
    bounds = None if None in every else (min(b[0] for b in every if b), max(b[1] for b in every if b))
    return replace(label, axis=label.axis + (step.name == "stack" and dim <= label.axis), bounds=bounds)


def _matmul(step: _Step) -> Label | None:
    """Each record times public numbers: (n, d) @ (d, m), with a public term added."""
    x = step.one("mat1" if step.name == "addmm" else "self")
    return replace(x.label, bounds=None) if x.label.kind == "rows" and x.label.axis == 0 else None


def _bmm(step: _Step) -> Label | None:
    """A product for each record: those that have some have them along the first axis, also the term that is added."""
    label = _together(_placed(t, step.out) for t in step.given if t.label.kind != "public")
    return label if label is not None and label.axis == 0 and len(step.out.shape) == 3 else None


def _layer(step: _Step) -> Label | None:
    """A layer that treats each entry of the first axis by itself, with public weights."""
    x = step.one("input" if "input" in step.named else "self")
    if x.label.kind != "rows" or x.label.axis != 0 or len(x.shape) < 2 or step.out.shape[:1] != x.shape[:1]:
        return None
    if step.name == "native_layer_norm" and len(step["normalized_shape"]) >= len(x.shape):
        return None
    if "pool" in step.name and len(x.shape) < 4:
        return None
    return replace(x.label, bounds=None)


def _convolution(step: _Step) -> Label | None:
    """A convolution of each record, with public weights."""
    same = len(step["input"].shape) == len(step["weight"].shape)  # without a batch the first axis is the channels
    return _layer(step) if same else None


def _normalised(step: _Step) -> Label | None:
    """A batch norm with public statistics: each entry by itself. What else it gives tells nothing, and is private."""
    return _layer(step) if step.out.shape == step["input"].shape else None


def _embedded(step: _Step) -> Label | None:
    """Public vectors, looked up for each record."""
    index = step.one("indices")
    return replace(index.label, bounds=None) if index.label.kind == "rows" else None


_RULES: dict[str, Callable[[_Step], Label | None]] = {
    **dict.fromkeys(POINTWISE - {"lift", "copy", "fill", "zero"}, _pointwise),
    **dict.fromkeys(("sum", "mean"), _sum),
    **dict.fromkeys(("amax", "amin", "logsumexp", "linalg_vector_norm"), _within),
    **dict.fromkeys(("_softmax", "_log_softmax", "softmax", "log_softmax"), _along),
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), _view),
    **dict.fromkeys(("permute", "transpose", "t"), _permuted),
    "unsqueeze": _unsqueezed, "squeeze": _squeezed, "expand": _expanded,
    **dict.fromkeys(("select", "slice", "unbind", "split", "split_with_sizes", "index_select"), _part),
    **dict.fromkeys(("cat", "stack"), _joined),
    **dict.fromkeys(("mm", "addmm", "mv"), _matmul),
    **dict.fromkeys(("bmm", "baddbmm"), _bmm),
    "convolution": _convolution, "embedding": _embedded,
    **dict.fromkeys(("native_layer_norm", "max_pool2d_with_indices", "avg_pool2d"), _layer),
    "_adaptive_avg_pool2d": _layer, "_native_batch_norm_legit_no_training": _normalised,
}  # fmt: skip


def page() -> str:
    """docs/operations.md: every operation of the table, and what its rule says."""
    lines = [
        "# Operations that pointers have, and what they do to labels",
        "",
        "Made by `python -m syft_lab.labels`; a test compares. Each operation of torch becomes some of these; in place, as the",
        "function that makes a new value. Where all that an operation reads is public, so is what it makes.",
        "",
        "| rule | what it keeps | operations |",
        "|---|---|---|",
    ]
    groups: dict[str, list[str]] = {}
    for name in sorted(ALLOWED):
        rule = _RULES.get(name)
        public = name in LIKE
        said = (rule.__doc__ or "").split("\n")[0] if rule else ""
        groups.setdefault("shape" if public else f"{rule.__name__.strip('_')}|{said}" if rule else "none", []).append(name)
    for key, names in groups.items():
        rule_name, _, said = key.partition("|")
        said = {
            "shape": "Of its first argument it uses the shape alone: public, where the others are.",
            "none": "Private.",
        }.get(key, said)
        lines.append(f"| {rule_name} | {said} | {' '.join(f'`{n}`' for n in names)} |")
    lines += ["", "Refused, and why:", "", "| operation | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in sorted(REASONS.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
