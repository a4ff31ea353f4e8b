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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from syft_lab.ops import ALLOWED, LIKE, POINTWISE, REASONS, packet

Bounds = tuple[float, float]
MAX_SOURCES = 16


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


PUBLIC = Label("public")


class Known(Protocol):
    """What is known of a tensor without its values."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its lengths."""

    @property
    def label(self) -> Label:
        """Its label."""

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
    sources = tuple(sorted({s for t in given for s in t.label.sources}))
    private = Label("private", sources[:MAX_SOURCES])
    rule = _RULES.get(name)
    if rule is None or len(sources) > 1:
        return [private] * len(outs)
    return [_judged(rule, _Step(name, args, kwargs, given, out, kind)) or private for out in outs]


def _judged(rule: Callable[[_Step], Label | None], step: _Step) -> Label | None:
    """What a rule says; nothing where the arguments are not as it expects, or where records would change their number."""
    try:
        found = rule(step)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if found is None or found.kind != "rows":
        return found
    counts = {t.shape[t.label.axis] for t in step.given if t.label.kind == "rows"}
    return found if 0 <= found.axis < len(step.out.shape) and {step.out.shape[found.axis]} == counts else None


@dataclass(frozen=True)
class _Step:
    """One operation, as its rule sees it."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    given: Sequence[Known]
    out: Known
    kind: type

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        return self.args[position] if position < len(self.args) else self.kwargs.get(name, default)

    @property
    def first(self) -> Known:
        at: Any = self.args[0] if self.args else None
        return at if isinstance(at, self.kind) else self.given[0]  # type: ignore[return-value]

    @property
    def only_first(self) -> bool:
        """Whether all but the first argument are public."""
        return all(t is self.first or t.label.kind == "public" for t in self.given)


def _number(value: Any) -> bool:
    return type(value) in (int, float, bool) and math.isfinite(value)


def _pointwise(step: _Step) -> Label | None:
    """Entry by entry, with broadcasting. Records stay apart if all that have some lie along the same axis of the result."""
    found: Label | None = None
    ndim = len(step.out.shape)
    for t in step.given:
        label = t.label
        if label.kind == "public":
            continue
        if label.kind == "aggregate":
            return _scaled(step)
        if label.kind != "rows":
            return None
        axis = ndim - len(t.shape) + label.axis
        if axis < 0 or axis >= ndim or t.shape[label.axis] != step.out.shape[axis]:
            return None  # a single record spread over many
        placed = Label("rows", label.sources, axis, label.k)
        if found is not None and placed != found:
            return None  # records of different people, or the same person's elsewhere
        found = placed
    return None if found is None else replace(found, bounds=_bounds(step))


def _scaled(step: _Step) -> Label | None:
    """Linear in one aggregate with public numbers: moving, turning its sign, scaling by a number."""
    first, name = step.first, step.name
    held = [t for t in step.given if t.label.kind != "public"]
    if len(held) != 1 or held[0].label.kind != "aggregate" or held[0].shape != step.out.shape:
        return None
    label, other = held[0].label, step.arg(1, "other")
    if name in ("neg", "negative", "clone", "detach", "alias", "positive", "lift_fresh"):
        return label
    if name in ("add", "sub") and held[0] is first and step.arg(2, "alpha", 1) == 1 and (_number(other)):
        return label
    if name in ("mul", "div") and held[0] is first and _number(other) and step.kwargs.get("rounding_mode") is None:
        by = abs(other) if name == "mul" else (1 / abs(other) if other else math.inf)
        if 0 < by < math.inf and math.isfinite(label.l1 * by):
            return replace(label, l1=label.l1 * by, l2=label.l2 * by)
    return None


def _bounds(step: _Step) -> Bounds | None:
    """Where the results of a pointwise operation lie; None if that is not known."""
    name, first, other = step.name, step.first, step.arg(1, "other")
    b: Bounds | None = first.label.bounds if first.label.kind == "rows" else None
    if step.out.boolean:
        return 0.0, 1.0
    if name in ("clamp", "hardtanh"):
        plain = name == "clamp"  # which has no bound where none is given
        low, high = (
            step.arg(1, "min" if plain else "min_val", None if plain else -1),
            step.arg(2, "max" if plain else "max_val", None if plain else 1),
        )
        return (float(low), float(high)) if _number(low) and _number(high) and low <= high else None
    if name in ("sigmoid", "hardsigmoid"):
        return 0.0, 1.0
    if name in ("tanh", "erf", "sin", "cos"):
        return -1.0, 1.0
    if b is None:
        return None
    if name in ("clone", "detach", "alias", "_to_copy", "positive", "lift_fresh"):
        return b
    if name == "relu":
        return max(b[0], 0.0), max(b[1], 0.0)
    if name in ("neg", "negative"):
        return -b[1], -b[0]
    if name in ("abs", "square"):
        ends = [abs(v) if name == "abs" else v * v for v in b]
        return (0.0 if b[0] <= 0 <= b[1] else min(ends)), max(ends)
    if name in ("add", "sub", "mul", "div") and _number(other) and step.arg(2, "alpha", 1) == 1 and not step.kwargs:
        if name == "div" and other == 0:
            return None
        by = {"add": lambda v: v + other, "sub": lambda v: v - other, "mul": lambda v: v * other, "div": lambda v: v / other}
        ends = sorted(float(by[name](v)) for v in b)
        return (ends[0], ends[1]) if all(map(math.isfinite, ends)) else None
    return None


def _dims(step: _Step, position: int = 1) -> tuple[int, ...]:
    """The axes that are reduced, all of them where none is named."""
    dim, ndim = step.arg(position, "dim"), len(step.first.shape)
    if dim is None or dim == []:
        return tuple(range(ndim))
    named = dim if isinstance(dim, list | tuple) else [dim]
    if any(type(d) is not int for d in named):  # torch takes True for 1
        raise TypeError
    return tuple(sorted({d % ndim for d in named})) if ndim else ()


def _sum(step: _Step) -> Label | None:
    """A sum or mean: over the records, of bounded values, it is an aggregate; otherwise records stay apart."""
    x, mean = step.first, step.name == "mean"
    label = x.label
    if label.kind != "rows" or step.kwargs.get("dtype") is not None:
        return None
    dims = _dims(step)
    bounds = (0.0, 1.0) if x.boolean else label.bounds
    if label.axis not in dims:
        within = math.prod(x.shape[d] for d in dims)
        after = None if bounds is None else bounds if mean else (bounds[0] * within, bounds[1] * within)
        return _moved(step, dims, after)
    if bounds is None or 0 in x.shape:
        return None
    width, outs = bounds[1] - bounds[0], math.prod(step.out.shape)
    within = math.prod(x.shape[d] for d in dims if d != label.axis)
    one = label.k * within * width / (within * x.shape[label.axis] if mean else 1)
    return Label("aggregate", label.sources, l1=one * outs, l2=one * math.sqrt(outs))


def _moved(step: _Step, dims: Sequence[int], bounds: Bounds | None) -> Label:
    """Rows whose axis moves because others are gone, unless they are kept with length 1."""
    x = step.first
    gone = 0 if len(step.out.shape) == len(x.shape) else sum(d < x.label.axis for d in dims)
    return replace(x.label, axis=x.label.axis - gone, bounds=bounds)


def _within(step: _Step) -> Label | None:
    """A reduction of each record by itself: its axes are not that of the records."""
    x = step.first
    dims = _dims(step)
    if x.label.kind != "rows" or not step.only_first or x.label.axis in dims:
        return None
    return _moved(step, dims, x.label.bounds if step.name in ("amax", "amin") else None)


def _along(step: _Step) -> Label | None:
    """Softmax and the like: along an axis that is not that of the records; the shape stays."""
    x, dim = step.first, step.arg(1, "dim")
    if x.label.kind != "rows" or not step.only_first or type(dim) is not int or dim % len(x.shape) == x.label.axis:
        return None
    return replace(x.label, bounds=(0.0, 1.0) if step.name in ("_softmax", "softmax") else None)


def _view(step: _Step) -> Label | None:
    """Another shape: of an aggregate, any; records stay if they lie along the first axis before and after."""
    x = step.first
    if not isinstance(step.arg(1, "size"), list | tuple):
        return None  # a view of the bits as another type
    if x.label.kind == "aggregate":
        return x.label
    if x.label.kind == "rows" and x.label.axis == 0 and step.out.shape[:1] == x.shape[:1] and x.shape[0] > 0:
        return x.label
    return None


def _permuted(step: _Step) -> Label | None:
    """Axes in another order: the records' goes with them."""
    x, ndim = step.first, len(step.first.shape)
    if x.label.kind == "aggregate":
        return x.label
    if x.label.kind != "rows":
        return None
    order = list(range(ndim))
    if step.name == "permute":
        order = [d % ndim for d in step.arg(1, "dims")]
    elif step.name == "t":
        order = order[::-1]
    else:
        a, b = step.arg(1, "dim0") % ndim, step.arg(2, "dim1") % ndim
        order[a], order[b] = order[b], order[a]
    return replace(x.label, axis=order.index(x.label.axis))


def _unsqueezed(step: _Step) -> Label | None:
    """An axis of length 1 more."""
    x, ndim = step.first, len(step.first.shape)
    if x.label.kind != "rows":
        return x.label if x.label.kind == "aggregate" else None
    return replace(x.label, axis=x.label.axis + (step.arg(1, "dim") % (ndim + 1) <= x.label.axis))


def _squeezed(step: _Step) -> Label | None:
    """Axes of length 1 fewer."""
    x = step.first
    if x.label.kind != "rows":
        return x.label if x.label.kind == "aggregate" else None
    dims = _dims(step) if len(step.args) > 1 or "dim" in step.kwargs else tuple(range(len(x.shape)))
    gone = [d for d in dims if x.shape[d] == 1]
    if x.label.axis in gone:
        return None
    return replace(x.label, axis=x.label.axis - sum(d < x.label.axis for d in gone))


def _expanded(step: _Step) -> Label | None:
    """Repeated along other axes than that of the records."""
    x = step.first
    axis = len(step.out.shape) - len(x.shape) + x.label.axis
    if x.label.kind != "rows" or step.out.shape[axis] != x.shape[x.label.axis]:
        return None
    return replace(x.label, axis=axis)


def _part(step: _Step) -> Label | None:
    """Some columns of each record. Some *records* would no longer stand at their place: private."""
    x, dim = step.first, step.arg(1, "dim", 0)
    if step.name == "unbind":
        dim = step.arg(1, "dim", 0)
    elif step.name in ("split", "split_with_sizes"):
        dim = step.arg(2, "dim", 0)
    if x.label.kind == "aggregate":
        return x.label if step.name in ("select", "slice") else None
    if x.label.kind != "rows" or type(dim) is not int or dim % len(x.shape) == x.label.axis or not step.only_first:
        return None
    gone = step.name in ("select", "unbind") and dim % len(x.shape) < x.label.axis
    return replace(x.label, axis=x.label.axis - gone)


def _joined(step: _Step) -> Label | None:
    """Side by side, along an axis that is not that of the records."""
    if any(t.label.kind not in ("rows", "public") for t in step.given):
        return None
    held = {t.label.axis: t for t in step.given if t.label.kind == "rows"}
    if len(held) != 1 or len({(t.label.k, t.label.sources) for t in step.given if t.label.kind == "rows"}) != 1:
        return None
    ((axis, x),) = held.items()
    ndim = len(x.shape)
    dim = step.arg(1, "dim", 0) % (ndim + (step.name == "stack"))
    if (step.name == "cat" and dim == axis) or any(len(t.shape) != ndim for t in step.given):
        return None
    every = [t.label.bounds for t in step.given]
    bounds = None if None in every else (min(b[0] for b in every if b), max(b[1] for b in every if b))
    return replace(x.label, axis=axis + (step.name == "stack" and dim <= axis), bounds=bounds)


def _matmul(step: _Step) -> Label | None:
    """Each record times public numbers: (n, d) @ (d, m), with a public term added."""
    x: Known
    y: Known
    x, y = step.args[-2:] if step.name in ("mm", "mv") else (step.args[1], step.args[2])
    if step.name == "addmm" and step.args[0].label.kind != "public":
        return None
    if y.label.kind != "public" or x.label.kind != "rows" or x.label.axis != 0:
        return None
    return replace(x.label, bounds=None)


def _bmm(step: _Step) -> Label | None:
    """A product for each record: those that have some have them along the first axis."""
    factors = step.args[1:3] if step.name == "baddbmm" else step.args[:2]
    held = [t.label for t in step.given if t.label.kind != "public"]
    if any(h.kind != "rows" or h.axis != 0 for h in held) or len({(h.k, h.sources) for h in held}) != 1 or len(factors) != 2:
        return None
    return replace(held[0], bounds=None)


def _layer(step: _Step) -> Label | None:
    """A layer that treats each entry of the first axis by itself, with public weights."""
    x = step.first
    if x.label.kind != "rows" or x.label.axis != 0 or not step.only_first or len(x.shape) < 2:
        return None
    if step.out.shape[:1] != x.shape[:1]:
        return None
    if step.name == "native_layer_norm" and len(step.arg(1, "normalized_shape")) >= len(x.shape):
        return None
    if "pool" in step.name and len(x.shape) < 4:
        return None
    return replace(x.label, bounds=None)


def _convolution(step: _Step) -> Label | None:
    """A convolution of each record, with public weights."""
    x, weight = step.args[0], step.args[1]
    return _layer(step) if len(x.shape) == len(weight.shape) else None  # without a batch the first axis is the channels


def _embedded(step: _Step) -> Label | None:
    """Public vectors, looked up for each record."""
    table: Known = step.args[0]
    index: Known = step.args[1]
    if table.label.kind != "public" or index.label.kind != "rows":
        return None
    return replace(index.label, bounds=None)


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
    "_adaptive_avg_pool2d": _layer,
}  # fmt: skip
# `linalg_vector_norm` and `logsumexp` name their axes second or third; only what `_dims` reads is used.
del _RULES["linalg_vector_norm"]


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
