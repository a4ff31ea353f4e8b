"""Finds calls for which a rule of `labels` promises more than torch keeps: arguments from schemas, and every record in turn.

All lengths are alike, so that no shape gives away which axis is meant: a label that stands at the wrong axis still fits. Each
call is compiled as a plan of one node, and run by `Runner._step` on a base and on variants of it in which each record by
itself, and some sets of them, are other values. What a label says stays, must keep every bit; sums stay within L1 and L2.
`kernel.executor.trial` does the like before something leaves; which variants are tried is decided here anew, so that neither
hides what the other has forgotten.
"""

from __future__ import annotations

import itertools
import math
import random
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from syft_lab import labels, ops, plans
from syft_lab.errors import FailedError, LabError, RefusedOpError
from syft_lab.kernel.executor import compiled as compiling
from syft_lab.kernel.executor.compiled import Step, laid_out
from syft_lab.kernel.executor.grid import Grid
from syft_lab.kernel.executor.provenance import Made
from syft_lab.kernel.executor.runner import Held, Quota, Runner
from syft_lab.kernel.executor.trial import BYTES, _bits, _perturb
from syft_lab.labels import PUBLIC, Label
from syft_lab.plans import Mark, Node, Plan, Ref
from syft_lab.spec import META, Spec, decoded, looks

N = 4  # records, and the length of every other axis
CPU = torch.device("cpu")
TRIES = 4  # calls of one overload in a row, until one keeps a label
HOPELESS = 50  # calls without one that keeps a label
LABELINGS, KEPT = 8, 3  # of one call: how many are drawn, and how many of those that keep a label are tried
ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 3.4e38, -1e10, 88.0, -1.0, 0.5)
FLOATS, WHOLE = ("float32", "float64", "float16", "bfloat16"), ("int64", "int32", "uint8", "int8")
BITS = frozenset("bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__ gcd lcm".split())
SHIFTS = frozenset("bitwise_left_shift bitwise_right_shift".split())
SUMS = frozenset("add sub mul div neg negative clone detach alias positive lift_fresh view _unsafe_view reshape permute "
                 "transpose t unsqueeze squeeze select slice".split())  # fmt: skip
# How many axes tensors have, where they are not broadcast to each other.
NDIMS: dict[str, dict[str, tuple[int, ...]]] = {
    "mm": {"self": (2,), "mat2": (2,)}, "mv": {"self": (2,), "vec": (1,)}, "addmm": {"self": (0, 1, 2), "mat1": (2,), "mat2": (2,)},
    "bmm": {"self": (3,), "mat2": (3,)}, "baddbmm": {"self": (0, 1, 2, 3), "batch1": (3,), "batch2": (3,)},
    "masked_fill": {"value": (0,)}, "t": {"self": (0, 1, 2, 2, 2)}, "embedding": {"weight": (2,), "indices": (0, 1, 2, 3)}, "index_select": {"index": (1,)},
    "max_pool2d_with_indices": {"self": (3, 4, 4)}, "avg_pool2d": {"self": (3, 4, 4)}, "_adaptive_avg_pool2d": {"self": (3, 4, 4)},
    "_native_batch_norm_legit_no_training": {"input": (2, 3, 4), **dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (1,))},
}  # fmt: skip
FRONT = frozenset((*NDIMS, "convolution", "native_layer_norm", "view", "_unsafe_view", "reshape"))  # records are often in front


@dataclass(frozen=True)
class Overload:
    """One overload that has a rule."""

    op: str
    name: str
    func: Any = field(compare=False)

    @property
    def arguments(self) -> Sequence[Any]:
        return self.func._schema.arguments


@dataclass
class Call:
    """One operation, and how what it reads looks."""

    node: Node
    specs: list[Spec]

    def __str__(self) -> str:
        lines = [plans.line(self.node)]
        for i, s in enumerate(self.specs):
            lines.append(f"  %{i}: {s.dtype} {list(s.shape)} strides {list(s.stride)}, {s.label}")
        return "\n".join(lines)


@dataclass
class Fault:
    """What a rule promised of a call, and what became of it."""

    call: Call
    outs: Sequence[Spec | None]
    why: str
    seed: int

    def __str__(self) -> str:
        made = "\n".join(
            f"  result {i}: {s.dtype} {list(s.shape)}, {s.label}" for i, s in enumerate(self.outs) if s is not None
        )
        return f"{self.call}\n{made}\n  {self.why} (SYFT_LAB_RULES_SEED={self.seed})"


class Leak(Exception):
    """A label does not hold: says why."""


def overloads(names: Sequence[str] | None = None) -> list[Overload]:
    """Every overload that takes a tensor, of operations that have a rule."""
    found = []
    for name in sorted(labels._RULES if names is None else names):
        packet = getattr(torch.ops.aten, name)
        for each in packet.overloads():
            try:
                func = ops.find(f"aten.{name}.{each}")
            except RefusedOpError:
                continue
            if any("Tensor" in str(a.type) for a in func._schema.arguments):
                found.append(Overload(f"aten.{name}.{each}", name, func))
    return found


def forget() -> None:
    """Let rules that were planted, or taken out again, be asked anew."""
    compiling._KINDS.clear()


class Checker:
    """Calls overloads until its time is over. The same seed gives the same calls, in the same order."""

    def __init__(self, seed: int, names: Sequence[str] | None = None) -> None:
        self.seed, self.rng = seed, random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.overloads = overloads(names)
        self.labelled = 0
        self.calls: Counter[str] = Counter()
        self.valid: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.untried: dict[str, str] = {}  # why a call that kept a label could not be run, by overload
        self.invalid: dict[str, str] = {}  # why a call was refused, by overload
        self.sums: Counter[str] = Counter()  # names of operations that made an aggregate, by which rule function
        self.summed: set[str] = set()  # overloads that made one
        self.pairs: set[tuple[Any, ...]] = set()
        self.types: dict[str, list[dict[str, str]]] = {}  # of tensors, by argument, in calls that went well
        self.faults: list[Fault] = []

    def run(self, seconds: float, faults: int = 20, enough: Callable[[], bool] = lambda: False) -> list[Fault]:
        """Call each overload in turn, for so long; stops early at so many faults, and after a round that was ``enough``."""
        end, threads = time.monotonic() + seconds, torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with warnings.catch_warnings(
                action="ignore"
            ):  # that an imaginary part is left out, say: no call is refused for that
                self._rounds(end, faults, enough)
        finally:
            torch.set_num_threads(threads)
            _perturb(0)
        return self.faults

    def _rounds(self, end: float, faults: int, enough: Callable[[], bool]) -> None:
        while not enough():
            order = self.overloads.copy()
            self.rng.shuffle(order)
            for overload in order:
                self._until_kept(overload)
                if len(self.faults) >= faults or time.monotonic() > end:
                    return

    def _until_kept(self, overload: Overload) -> None:
        """Call an overload until it keeps a label: more often if it never did, but not if it seems that it never will."""
        new = not self.kept[overload.op]
        for _ in range(TRIES if not new else 6 * TRIES if self.calls[overload.op] < HOPELESS else 2):
            if self._one(overload):
                return

    def _one(self, overload: Overload) -> bool:
        """Whether a call kept a label, and was tried. Its arguments are drawn once, their labels several times."""
        self.calls[overload.op] += 1
        hard = self.valid[overload.op] < 0.6 * self.calls[overload.op] or overload.op in self.untried
        draft = Draft(overload, self.rng, self.types.setdefault(overload.op, []), 0.7 if hard else 0.1)
        try:
            call = draft.call()
            args, named, plain = _looked(overload, call)
        except Exception as error:  # whatever torch says of arguments that do not fit
            self.invalid[overload.op] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            return False
        self.valid[overload.op] += 1
        kept = 0
        sums = 0.0 if overload.name not in SUMS else 0.3 if overload.op in self.summed else 0.8
        for _ in range(LABELINGS):
            specs = draft.labelled(summed=self.rng.random() < sums)
            given = [_filled(a, specs) for a in args], {k: _filled(v, specs) for k, v in named.items()}
            found = labels.infer(overload.op, *given, [s for s in plain if s is not None], Spec)
            self.labelled += 1
            if any(label.kind != "private" for label in found):
                kept += self._kept(overload, Call(call.node, specs))
                if kept == KEPT:
                    break
        remembered = self.types[overload.op]
        if kept and len(remembered) < 12 and draft.types not in remembered:
            remembered.append(draft.types)
        return kept > 0

    def _kept(self, overload: Overload, call: Call) -> bool:
        """Try a call whose label says more than private, as an owner would compile it; False where it can't be run."""
        try:
            (step,) = compiling.compiled(Plan(len(call.specs), (call.node,), call.node.outs), call.specs, CPU).steps
        except LabError as error:  # of what only a plan is asked: sizes, numbers that are truths
            self.invalid[overload.op] = f"{type(error).__name__}: {error}"
            return False
        step.last = ()
        outs = step.kind.outs
        try:
            _check_said(call, outs)
            tried = self._tried(step, call)
        except Leak as leak:
            self.faults.append(Fault(call, outs, str(leak), self.seed))
            tried = True
        kinds = {s.label.kind for s in outs if s is not None}
        if not tried or not kinds & {"rows", "aggregate"}:
            return False
        self.kept[overload.op] += 1
        if "aggregate" in kinds:
            self.summed.add(overload.op)
            self.sums[labels._RULES[overload.name].__name__] += 1
        places = tuple([(len(s.shape), s.label.kind, s.label.axis) for s in call.specs])
        self.pairs.add((overload.op, places))
        return True

    def _tried(self, step: Step, call: Call) -> bool:
        """Run the base and its variants; raises Leak. False where it fails whatever public values are."""
        for mode in ("drawn", "half", "one", "zero"):
            try:
                Trial(step, call, self.rng, self.generator, mode).run()
            except FailedError as error:
                self.untried[call.node.op] = str(error)
                if all(s.label.kind != "public" for s in call.specs):
                    return False
            except (Leak, MemoryError):
                raise
            except Exception as error:  # the runner takes in what torch fails with
                raise Leak(f"the owner's own code fails: {type(error).__name__}: {error}") from error
            else:
                return True
        return False

    def report(self) -> str:
        """Figures."""
        never = [o.op for o in self.overloads if not self.kept[o.op]]
        reached = len(self.overloads) - len(never)
        lines = [
            f"seed {self.seed}: {sum(self.calls.values())} calls, {sum(self.valid.values())} valid, labelled in "
            f"{self.labelled} ways, of which {sum(self.kept.values())} kept a label and were tried",
            f"{reached} of {len(self.overloads)} overloads kept a label ({reached / len(self.overloads):.1%}); "
            f"{len(self.pairs)} pairs of an overload and labels; aggregates by {dict(self.sums)}",
        ]
        for op in never:
            why = f"untried: {self.untried[op]}" if op in self.untried else f"last refusal: {self.invalid.get(op, 'none')}"
            lines.append(f"  never kept: {op}, {self.valid[op]} of {self.calls[op]} calls valid; {why[:160]}")
        return "\n".join([*lines, *map(str, self.faults)])


def _looked(overload: Overload, call: Call) -> tuple[list[Any], dict[str, Any], list[Spec | None]]:
    """Arguments as rules see them, with numbers for tensors; and how results look, by a run on meta tensors."""

    def numbered(arg: Any) -> Any:
        return decoded(arg, Ref, META, compiling.no_constant)

    args, named = [numbered(a) for a in call.node.args], {k: numbered(v) for k, v in call.node.kwargs.items()}
    seen = [_filled(a, call.specs) for a in args], {k: _filled(v, call.specs) for k, v in named.items()}
    outs, _ = looks(overload.func, *seen)
    call.node = call.node._replace(outs=tuple(range(len(call.specs), len(call.specs) + len(outs))))
    return args, named, outs


def _filled(arg: Any, specs: Sequence[Spec]) -> Any:
    return compiling.filled(arg, specs.__getitem__)


def _check_said(call: Call, outs: Sequence[Spec | None]) -> None:
    """Raises Leak where a label contradicts those of what was read, whatever values are."""
    given = [s.label for s in call.specs if s.label.kind != "public"]
    sources = {s for label in given for s in label.sources}
    records = [s for s in call.specs if s.label.kind == "rows"]
    for spec in outs:
        if spec is None or spec.label.kind == "private":
            continue
        if spec.label.kind == "public":
            continue  # tried
        if set(spec.label.sources) != sources:
            raise Leak("its label leaves out a source")
        if spec.label.kind == "rows":
            axis = spec.label.axis
            if not 0 <= axis < len(spec.shape) or any(s.shape[s.label.axis] != spec.shape[axis] for s in records):
                raise Leak("it has other records than what it reads")
            if spec.label.k < max((s.label.k for s in records), default=0):
                raise Leak("it says that a person has fewer records")


# One call on values


@dataclass
class Variant:
    """Values in which some records are others than in the base; none of them, for a base or a neighbour of sums."""

    values: list[torch.Tensor]
    grids: dict[int, Grid]
    changed: tuple[int, ...]
    how: str


class Trial:
    """One step, on a base and on variants of it. ``mode`` is how public values are drawn."""

    def __init__(self, step: Step, call: Call, rng: random.Random, generator: torch.Generator, mode: str) -> None:
        self.step, self.specs, self.rng, self.generator, self.mode = step, call.specs, rng, generator, mode
        self.source = next((s.label.sources for s in self.specs if s.label.kind == "rows"), ())
        self.runner = Runner("cpu", Quota(memory=1 << 62, values=1 << 30))
        self.others: dict[tuple[int, Any], torch.Tensor] = {}  # what records are replaced by
        self.made = [Made(f"made up {n}") for n in range(len(self.specs))]
        self.tame = rng.random() < 0.7
        self.sums = any(s is not None and s.label.kind == "aggregate" for s in step.kind.outs)

    def run(self) -> None:
        """Raises Leak, or FailedError: it can't run on such public values."""
        variants = list(self.variants())
        results = [self._run(v, i) for i, v in enumerate(variants)]
        for j, spec in enumerate(self.step.kind.outs):
            if spec is None or spec.label.kind == "private":
                continue
            made = [r[j] for r in results]
            bad = next((m.why for m in made if m.why), "")
            if bad:
                raise Leak(f"it fails on some private values: {bad}")
            if spec.label.kind == "aggregate":
                self._compare_sums(spec, made, variants)
            else:
                self._compare_rows(spec, made, variants)

    def _run(self, variant: Variant, number: int) -> list[Held]:
        _perturb(BYTES[number % len(BYTES)])
        held = {
            n: Held(v if v.stride() == s.stride else laid_out(v, s), s, self.made[n], variant.grids.get(n))
            for n, (v, s) in enumerate(zip(variant.values, self.specs, strict=True))
        }
        with torch.no_grad():
            self.runner._step(self.step, held, False, ())
        return [held[n] for n in self.step.outs if n is not None]

    def _compare_rows(self, spec: Spec, made: list[Held], variants: list[Variant]) -> None:
        """Raises Leak where a record that was kept, or a public value, has other bits."""
        bits = _bits(torch.stack([m.tensor for m in made if m.tensor is not None]))
        differs = bits[1:] != bits[:1]
        if spec.label.kind == "public":
            moved = differs.reshape(len(differs), -1).any(1)
            if bool(moved.any()):
                raise Leak(f"what it calls public differs where {variants[1 + int(moved.int().argmax())].how}")
            return
        axis, count = spec.label.axis, spec.shape[spec.label.axis]
        by_record = differs.movedim(axis + 1, 1).reshape(len(differs), count, -1).any(2)
        keep = torch.ones(len(differs), count, dtype=torch.bool)
        for row, variant in zip(keep, variants[1:], strict=True):
            row[list(variant.changed)] = False
        wrong = by_record & keep
        if bool(wrong.any()):
            v, record = (int(i) for i in wrong.nonzero()[0])
            raise Leak(f"record {record} of the result differs where {variants[1 + v].how}")

    def _compare_sums(self, spec: Spec, made: list[Held], variants: list[Variant]) -> None:
        """Raises Leak where two neighbours are further apart than the label says, or the label than the companion."""
        grids = [m.grid for m in made]
        first = grids[0]
        if first is None or any(g is None for g in grids):
            raise Leak("its sum has no exact form")
        if any(
            (g.step, g.offset, g.l1, g.l2, g.ints.shape) != (first.step, first.offset, first.l1, first.l2, first.ints.shape)
            for g in grids
        ):
            raise Leak("how its sum is counted depends on private values")
        if tuple(first.ints.shape) != spec.shape:
            raise Leak("its exact form has another shape")
        step = abs(first.step)
        if step * first.l1 > spec.label.l1 * (1 + 1e-9) or step * first.l2 > spec.label.l2 * (1 + 1e-9):
            raise Leak("its sum moves by more than its label says")
        k = max((s.label.k for s in self.specs if s.label.kind == "rows"), default=1)
        alike: dict[tuple[int, ...], list[int]] = {}
        for i, variant in enumerate(variants[1:], 1):
            alike.setdefault(variant.changed, [0]).append(i)
        ints = torch.stack([g.ints for g in grids]).reshape(len(grids), -1)
        for changed, group in alike.items():
            persons = max(1, math.ceil(len(changed) / k))
            mine = ints[group]
            apart = (mine[:, None] - mine[None]).abs()
            far = (apart.sum(2) > persons * first.l1) | (
                apart.double().square().sum(2).sqrt() > persons * first.l2 * (1 + 1e-12)
            )
            if bool(far.any()):
                a, b = (int(i) for i in far.nonzero()[0])
                raise Leak(
                    f"one person moves its sum by more than it says: {variants[group[a]].how}, against {variants[group[b]].how}"
                )
        self._compare_values(spec, made[0], first)

    def _compare_values(self, spec: Spec, base: Held, companion: Grid) -> None:
        """Raises Leak where the companion is of another sum than the value: over other axes, say."""
        precise = all(s.dtype in (torch.float32, torch.float64, torch.bool) for s in (*self.specs, spec))
        if (
            not precise
            or not self.tame
            or base.tensor is None
            or not spec.shape
            or any(s.label.kind == "aggregate" for s in self.specs)
        ):
            return
        value = companion.offset + companion.step * companion.ints.double()
        size = abs(companion.step) * companion.l1 + value.abs().max()
        if bool(((value - base.tensor.double()).abs() > 1e-3 * size).any()):
            raise Leak("its exact form is of another sum than its value")

    # What is drawn

    def variants(self) -> Iterator[Variant]:
        """The base; each record by itself, in several ways; sets of them; and neighbours of sums."""
        base = [self._base(s) for s in self.specs]
        grids = {n: self._grid(s) for n, s in enumerate(self.specs) if s.label.kind == "aggregate"}
        for n, g in grids.items():
            base[n] = (g.offset + g.step * g.ints.double()).to(self.specs[n].dtype)
        yield Variant(base, grids, (), "nothing changed")
        records = [s.shape[s.label.axis] for s in self.specs if self._apart(s)]
        if not records:
            for i in range(3):
                yield self._neighbour(base, grids, i)
            return
        count = max(records)
        ways: tuple[Any, ...] = (math.inf, -math.inf, math.nan, "drawn") if self.sums else ("drawn", self.rng.choice(ODD))
        for i in range(count):
            for way in ways:
                yield self._replaced(base, (i,), way)
        k = next(s.label.k for s in self.specs if s.label.kind == "rows")
        sets = [c for c in itertools.combinations(range(count), k) if k > 1] if self.sums else []
        sets += [tuple(i for i in range(count) if self.rng.random() < 0.5) for _ in range(2)]
        for chosen in filter(None, sets):
            for way in ways[:2] if self.sums else ways[:1]:
                yield self._replaced(base, chosen, way)

    def _apart(self, spec: Spec) -> bool:
        """Whether a tensor's records are those that are replaced one by one: others are private as a whole."""
        return spec.label.kind == "rows" and spec.label.sources == self.source

    def _replaced(self, base: Sequence[torch.Tensor], chosen: tuple[int, ...], way: Any) -> Variant:
        values = []
        for n, (value, spec) in enumerate(zip(base, self.specs, strict=True)):
            if spec.label.kind == "public":
                values.append(value)
                continue
            if not self._apart(spec):
                values.append(self._other(value, spec, "drawn"))
                continue
            if (n, way) not in self.others:
                self.others[n, way] = self._other(value, spec, way)
            axis, other, changed = spec.label.axis, self.others[n, way], value.clone()
            for i in chosen:
                if i < spec.shape[axis]:
                    changed.select(axis, i).copy_(other.select(axis, i))
            values.append(changed)
        return Variant(values, {}, chosen, f"records {list(chosen)} are {way}")

    def _neighbour(self, base: Sequence[torch.Tensor], grids: Mapping[int, Grid], person: int) -> Variant:
        """Another person in every sum, as far as L1 and L2 go; other private values anew. Two of these are no neighbours."""
        others, values = {}, list(base)
        for n, g in grids.items():
            ints = g.ints.clone()
            if ints.numel():
                ints.view(-1)[self.rng.randrange(ints.numel())] += self.rng.choice((-1, 1)) * int(min(g.l1, g.l2))
            others[n] = Grid(ints, g.step, g.offset, g.l1, g.l2)
            values[n] = (g.offset + g.step * ints.double()).to(self.specs[n].dtype)
        for n, s in enumerate(self.specs):
            if s.label.kind in ("private", "rows"):
                values[n] = self._other(base[n], s, "drawn")
        return Variant(values, others, (person,), "one person is another")

    def _base(self, spec: Spec) -> torch.Tensor:
        shape, dtype, g = spec.shape, spec.dtype, self.generator
        public = spec.label.kind == "public"
        if public and self.mode != "drawn":
            return torch.full(shape, {"half": 0.5, "one": 1, "zero": 0}[self.mode], dtype=dtype)
        if dtype is torch.bool:
            return torch.rand(shape, generator=g) < 0.5
        if not (dtype.is_floating_point or dtype.is_complex):
            return torch.randint(0, N, shape, generator=g).to(dtype)
        if dtype.is_complex:
            return torch.complex(torch.randn(shape, generator=g), torch.randn(shape, generator=g)).to(dtype)
        bounds = spec.label.bounds
        if self.tame and bounds is not None:
            return (bounds[0] + torch.rand(shape, generator=g) * (bounds[1] - bounds[0])).to(dtype).clamp(*bounds)
        x = torch.randn(shape, generator=g) * 1.5
        return (x if public or self.tame else self._odd(x)).to(dtype)

    def _odd(self, x: torch.Tensor) -> torch.Tensor:
        odd = torch.tensor(ODD)[torch.randint(len(ODD), x.shape, generator=self.generator)]
        return torch.where(torch.rand(x.shape, generator=self.generator) < 0.2, odd, x)

    def _other(self, value: torch.Tensor, spec: Spec, way: Any) -> torch.Tensor:
        """A tensor all of whose entries are others (for most of them, for odd ones)."""
        dtype, g = spec.dtype, self.generator
        floats = dtype.is_floating_point or dtype.is_complex
        if way == "drawn":
            if dtype is torch.bool:
                return ~value
            if floats:
                x = torch.randn(spec.shape, generator=g) * 3
                return (x if self.tame else self._odd(x)).to(dtype)
            return ((value.to(torch.int64) + torch.randint(1, N, spec.shape, generator=g)) % N).to(dtype)
        if floats:
            return torch.full(spec.shape, way, dtype=torch.float64).to(dtype)  # infinite where the type has nothing so large
        if dtype is torch.bool:
            return torch.full(spec.shape, way > 0, dtype=dtype)
        limits = torch.iinfo(dtype)
        number = (
            limits.max if way == math.inf else limits.min if way == -math.inf else max(limits.min, -1) if way != way else 100
        )
        return torch.full(spec.shape, number, dtype=dtype)

    def _grid(self, spec: Spec) -> Grid:
        one, label = 1000, spec.label
        ints = torch.randint(0, 10**6, spec.shape, generator=self.generator)
        return Grid(ints, label.l1 / one, 0.0, one, one * label.l2 / label.l1)


# One call, drawn from a schema


class Draft:
    """Arguments for an overload. Most fit; torch, on meta tensors, says which don't.

    ``remembered``: types of tensors that went well, taken ``again`` so often.
    """

    def __init__(self, overload: Overload, rng: random.Random, remembered: Sequence[dict[str, str]], again: float) -> None:
        self.overload, self.name, self.rng = overload, overload.name, rng
        self.specs: list[Spec] = []  # public ones, until they are `labelled`
        self.places: list[
            tuple[str, int | None]
        ] = []  # of each, whose argument it is, and which other it was made to look like
        self.given: dict[str, Any] = {}  # specs and plain arguments, by name
        self.types = dict(rng.choice(remembered)) if remembered and rng.random() < again else {}
        self.ndim = rng.choice((0, 1, 2, 3, 3, 3, 4) if overload.name == "squeeze" else (0, 1, 2, 2, 3, 3, 4))
        self.dense = rng.random() < 0.5  # whether all tensors are contiguous cubes
        self.dims: dict[str, int] = self._dims()
        self.type = self._type()

    def _chance(self, p: float) -> bool:
        return self.rng.random() < p

    def _type(self) -> str:
        if self.name in BITS | SHIFTS and not self._chance(0.1):
            return self.rng.choice((*WHOLE, *(("bool",) if self.name not in SHIFTS | {"gcd", "lcm"} else ())))
        r = self.rng.random()
        if r < 0.62:
            return "float32"
        return self.rng.choice(FLOATS[1:] if r < 0.75 else WHOLE if r < 0.87 else ("bool",) if r < 0.93 else ("complex64",))

    def _dims(self) -> dict[str, int]:
        if self.name == "convolution":
            d = self.rng.choice((3, 3, 4, 4, 4, 5) if self._chance(0.1) else (3, 4, 4))
            self.ndim = d if self._chance(0.9) else d - 1
            return {"input": self.ndim, "weight": d, "bias": 1}
        found = {arg: self.rng.choice(choice) for arg, choice in NDIMS.get(self.name, {}).items()}
        if self.name == "native_layer_norm":
            self.ndim = self.rng.choice((1, 2, 3, 4))
            over = self.rng.randint(1, self.ndim) if self._chance(0.3) else max(1, self.ndim - self.rng.randint(1, 2))
            self.given["normalized_shape"] = [N] * over
            return {"input": self.ndim, "weight": over, "bias": over}
        if found:
            self.ndim = (
                next(iter(found.values()))
                if self.name not in ("baddbmm", "addmm", "index_select", "masked_fill")
                else self.ndim
            )
            return found
        return {}

    def call(self) -> Call:
        """One call: arguments in place or by name, and defaults left out, as it comes."""
        arguments = self.overload.arguments
        for a in arguments:  # tensors first: the others depend on their shapes
            if "Tensor" in str(a.type):
                self.given[a.name] = self._tensors(a)
        for a in arguments:
            if "Tensor" not in str(a.type) and a.name not in self.given:
                self.given[a.name] = self._plain(a)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        count = sum(not a.kwarg_only for a in arguments)
        cut = 0 if self._chance(0.12) else self.rng.randint(0, count) if self._chance(0.4) else count
        for i, a in enumerate(arguments):
            value = self.given[a.name]
            if a.has_default_value() and (value is None or "Tensor" not in str(a.type)) and self._chance(0.25):
                cut = min(cut, i)
                continue
            if i < cut and not a.kwarg_only:
                args.append(value)
            else:
                kwargs[a.name] = value
        names = list(kwargs)
        self.rng.shuffle(names)
        return Call(Node(self.overload.op, tuple(args), {n: kwargs[n] for n in names}, ()), self.specs)

    # Tensors

    def _tensors(self, a: Any) -> Any:
        kind = str(a.type)
        if kind == "Tensor":
            return self._tensor(a.name)
        if kind == "Optional[Tensor]":
            return None if self._chance(0.25) else self._tensor(a.name)
        if self.ndim == 0 and self.name == "cat":
            self.ndim = 1
        count = self.rng.choice((1, 2, 2, 3))
        self.dims = {f"{a.name}{i}": self.ndim for i in range(count)}
        return [self._tensor(f"{a.name}{i}") for i in range(count)]

    def _tensor(self, name: str) -> Ref:
        number, free = len(self.specs), name not in ("index", "indices", "condition", "mask")
        if self.specs and free and self._chance(0.06):
            return Ref(self.rng.randrange(number))  # the same value
        if self.specs and free and self._chance(0.1):
            twin = self.rng.randrange(number)  # another that looks the same
            self.specs.append(self.specs[twin])
            self.places.append((name, twin))
            return Ref(number)
        shape = self._shape(name)
        self.types[name] = self._dtype(name)
        self.specs.append(Spec._the(shape, self._strides(shape), 0, getattr(torch, self.types[name]), PUBLIC))
        self.places.append((name, None))
        return Ref(number)

    def labelled(self, summed: bool = False) -> list[Spec]:
        """What tensors look like, with labels drawn anew; one that looks like another does so in its label too.

        ``summed``: the first is an aggregate, if it can be one.
        """
        self.k, self.axis, self.alike = self.rng.choice((1, 1, 2)), self.rng.randrange(max(1, self.ndim)), self._chance(0.7)
        self.front = self.name in FRONT and self._chance(0.7)
        first = "indices" if self.name == "embedding" else "mat1" if self.name == "addmm" else self.places[0][0]
        self.private = first if self.name in FRONT and self._chance(0.6) else self.rng.choice(self.places)[0]
        found: list[Spec] = []
        for spec, (name, twin) in zip(self.specs, self.places, strict=True):
            if twin is not None:
                found.append(found[twin])
                continue
            label = self._sum_label() if summed and not found and self._summable(spec) else self._label(name, spec)
            found.append(Spec._the(spec.shape, spec.stride, 0, spec.dtype, label))
        return found

    def _shape(self, name: str) -> tuple[int, ...]:
        ndim = self.dims.get(name)
        if ndim is None:
            first = not self.specs
            ndim = self.ndim if first or self._chance(0.75) else self.rng.randint(0, self.ndim)
        shape = [N] * ndim
        odd = 0.45 if self.name == "squeeze" else 0.04 if self.name in FRONT or self.dense else 0.25
        for i in range(ndim):
            if self._chance(odd if ndim == 1 or self.name == "squeeze" else odd / 1.5):
                shape[i] = 1
        if self.name == "convolution" and name == "weight" and self._chance(0.5):
            shape[2:] = [self.rng.randint(1, 3) for _ in shape[2:]]
        if self.name == "convolution" and name == "weight" and self._chance(0.15):
            groups = self.given["groups"] = self.rng.choice((2, 4))
            shape[1] = N // groups
        if self.name == "cat" and ndim and self._chance(0.1):
            shape[self.rng.randrange(ndim)] = 2
        return tuple(shape)

    def _dtype(self, name: str) -> str:
        if name in self.types:
            return self.types[name]
        if name in ("index", "indices") and self.name != "max_pool2d_with_indices":
            return self.rng.choice(("int64", "int64", "int32"))
        if name in ("condition", "mask"):
            return "bool"
        return self.type if self._chance(0.98 if self.name in FRONT else 0.9) else self._type()

    def _label(self, name: str, spec: Spec) -> Label:
        """Mostly records along the same axis, or public; the private tensor of a call is never public if it has axes."""
        shape, secret, r = spec.shape, name == self.private, self.rng.random()
        if not secret and self._chance(0.75 if self.name in FRONT else 0.5):
            return PUBLIC
        if r < 0.02:
            return Label("private", ("d v1",))
        if self._summable(spec) and self._chance(0.1 if self.name in SUMS else 0.02):
            return self._sum_label()
        if not shape:
            return Label("private", ("d v1",)) if secret else PUBLIC
        axis = self.rng.randrange(len(shape))
        if self.front and self._chance(0.9):
            axis = 0
        elif self.alike and self.axis < len(shape) and self._chance(0.9):
            axis = len(shape) - 1 - self.axis
        if spec.stride[axis] == 0:
            return PUBLIC  # records don't share memory
        source = "e v1" if r > 0.98 else "d v1"
        k = self.k if self._chance(0.98) else 3 - self.k
        return Label("rows", (source,), axis, k, self.rng.choice((None, (0.0, 1.0), (-1.0, 2.0))))

    def _summable(self, spec: Spec) -> bool:
        return spec.dtype.is_floating_point and not spec.gaps and 0 not in spec.stride

    def _sum_label(self) -> Label:
        return Label("aggregate", ("d v1",), l1=8.0, l2=self.rng.choice((8.0, 4.0)))

    def _strides(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        order = list(range(len(shape)))
        if not self.dense and self._chance(0.4):
            self.rng.shuffle(order)
        size, strides = 1, [0] * len(shape)
        for i in reversed(order):
            strides[i] = size
            size *= shape[i]
        if not self.dense and self._chance(0.1):
            strides = [2 * s for s in strides]
        if not self.dense and shape and self._chance(0.15):
            strides[self.rng.randrange(len(shape))] = 0
        return tuple(strides)

    # Others

    def _of(self) -> tuple[int, ...]:
        """The shape that axes are about."""
        return self.specs[0].shape

    def _plain(self, a: Any) -> Any:
        kind, name = str(a.type), a.name
        optional = kind.startswith("Optional[")
        if optional:
            kind = kind[len("Optional[") : -1]
        if name in ("dtype", "out_dtype", "layout", "memory_format") and kind == "int":
            return self._mark(name, optional)
        if optional and self._chance(0.4):
            return None
        if kind == "Device":
            return Mark("d", "owner")
        if kind == "List[int]":
            return self._list(name)
        if kind == "int":
            return self._int(name)
        if kind == "bool":
            return self._chance(0.1 if name in ("sparse", "half_to_float", "pin_memory", "implicit") else 0.4)
        if kind == "float":
            return self.rng.choice((0.0, 0.1, 0.5, 1.0, 1e-5)) if name != "eps" else self.rng.choice((0.1, 1e-5))
        if kind == "str":
            return self.rng.choice(("none", "tanh") if name == "approximate" else ("trunc", "floor"))
        return self._number(name)

    def _mark(self, name: str, optional: bool) -> Any:
        if optional and self._chance(0.6):
            return None
        if name == "layout":
            return Mark("l", "strided")
        if name == "memory_format":
            formats = ("contiguous_format", "preserve_format", *(("channels_last",) if len(self._of()) == 4 else ()))
            return Mark("m", self.rng.choice(formats))
        return Mark("t", self.rng.choice((*FLOATS, "int64", "int32", "bool")))

    def _number(self, name: str) -> Any:
        whole = self._chance(0.5)
        if name in ("alpha", "beta") and self._chance(0.5):
            return 1
        if name == "ord":
            return self.rng.choice((0, 1, 2, 2.0, 3.0, 0.5, math.inf, -math.inf))
        if self._chance(0.04):
            return self.rng.choice((math.nan, math.inf, True, 0))
        if whole or self.name in SHIFTS | BITS:
            return self.rng.choice((0, 1, 1, 2, 3, -1, -2))
        return self.rng.choice((0.0, 0.5, 1.0, -1.5, 2.0, 3.25))

    def _axis(self, ndim: int) -> int:
        axis = self.rng.randrange(max(1, ndim))
        return axis - max(1, ndim) if self._chance(0.5) else axis

    def _int(self, name: str) -> Any:
        of = self._of()
        if name in ("dim", "dim0", "dim1"):
            return self._axis(len(of) + (self.name in ("stack", "unsqueeze")))
        if name == "index":
            return self.rng.choice((0, 0, 1, -1, 3))
        if name in ("start", "end"):
            return self.rng.choice((0, 1, -1, 2, 3, 4, -4, 99))
        if name == "step":
            return self.rng.choice((1, 1, 2, 3))
        if name == "split_size":
            return self.rng.randint(1, N)
        if name == "padding_idx":
            return self.rng.choice((-1, 0, 2))
        if name == "groups":
            return 1
        return self.rng.randint(0, 3)

    def _list(self, name: str) -> Any:
        of, rng = self._of(), self.rng
        ndim = len(of)
        if name == "dim":
            counts = (0, 0, 0, 1, 1, 2, ndim) if self.name == "squeeze" else (0, 1, 1, 1, 2, 2, ndim)
            chosen = rng.sample(range(ndim), min(ndim, rng.choice(counts)))
            dims = [d - ndim if self._chance(0.5) else d for d in chosen]
            return dims[0] if len(dims) == 1 and self._chance(0.15) else dims
        if name == "dims":
            order = rng.sample(range(ndim), ndim)
            return [d - ndim if self._chance(0.5) else d for d in order]
        if name == "size" and self.name == "expand":
            front = [rng.choice((1, N)) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
            return [*front, *(rng.choice((1, N, -1)) if n == 1 else rng.choice((n, n, -1)) for n in of)]
        if name in ("size", "shape"):
            return self._sizes(of)
        if name in ("split_sizes", "split_size"):
            return rng.choice(([4], [1, 3], [2, 2], [1, 1, 2], [1, 1, 1, 1], [0, 4]))
        spatial = ndim - 2 if self.name == "convolution" else 2
        low, high = {"kernel_size": (1, 3), "stride": (1, 3), "dilation": (1, 2), "padding": (0, 1), "output_size": (1, 4)}.get(
            name, (0, 0)
        )
        if self.name == "convolution" and name == "padding":
            high = 3
        if name == "stride" and self.name != "convolution" and self._chance(0.3):
            return []
        return [rng.randint(low, high) for _ in range(spatial if self._chance(0.8) else 1)]

    def _sizes(self, of: tuple[int, ...]) -> list[int]:
        """Sizes with as many entries: axes joined, split, moved, some of length 1 more."""
        rng, sizes = self.rng, list(of)
        for _ in range(rng.randint(0, 3)):
            i = rng.randrange(len(sizes)) if sizes else 0
            what = rng.choice(("join", "split", "one", "move"))
            if what == "join" and len(sizes) > 1:
                i = min(i, len(sizes) - 2)
                sizes[i : i + 2] = [sizes[i] * sizes[i + 1]]
            elif what == "split" and sizes and sizes[i] % 2 == 0:
                part = rng.choice([p for p in (2, 4) if sizes[i] % p == 0])
                sizes[i : i + 1] = [part, sizes[i] // part] if self._chance(0.5) else [sizes[i] // part, part]
            elif what == "one":
                sizes.insert(i, 1)
            elif what == "move":
                rng.shuffle(sizes)
        if sizes and self._chance(0.3):
            sizes[rng.randrange(len(sizes))] = -1
        return sizes
