"""The second wall behind labels: what an operation claims of its results is tried on made-up values before anything leaves.

Rules of `labels` are written by hand, so none is believed alone. A *claim* (`compiled.Kind.claim`) is one operation with the
look of its arguments and of its results, labels included. It is tried in a process that never held private data, so that the
verdict tells nothing: by record numbers, which prove what only moves entries or works entry by entry; else on a base and on
variants of it, by the code that computes on real data.

    halves    half of the records are replaced: what belongs to the others keeps every bit
    persons   one person's records become others, odd ones: a sum moves by no more than its label says, from each to each
    public    what is public keeps every bit, whatever private values are, and whatever lay in memory before

If each operation's claim holds for all inputs, so does every plan's, over any number of runs: the values of each are drawn
anew, and nothing hides behind a mask. What this can't see is in docs/privacy.md.
"""

from __future__ import annotations

import ctypes
import math
import random
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from syft_lab import canonical, ops, plans
from syft_lab.errors import FailedError
from syft_lab.kernel.executor import gpu
from syft_lab.kernel.executor.compiled import Compiled, Step, compiled, laid_out
from syft_lab.kernel.executor.grid import Grid
from syft_lab.kernel.executor.provenance import Made
from syft_lab.kernel.executor.runner import Held, Quota, Runner
from syft_lab.plans import Plan
from syft_lab.spec import Spec

CPU, _LIBC = torch.device("cpu"), ctypes.CDLL(None)
M_PERTURB = -6
BYTES = (0x5A, 0xA3, 0x11, 0xFE, 0x37, 0xC8, 0x6B)  # memory that nobody filled holds another one in each variant
POOL, FEWEST, POOLED = (
    97,
    8,
    1 << 17,
)  # records that those of a value are chosen from: fewer where they are large, for drawing costs
HALVES, TAME, ALL_PAIRS = 3, 2, 1 << 18  # of a claim with so many entries or fewer, each two records are told apart for certain
PERSONS = (
    math.inf,
    math.nan,
    None,
    -math.inf,
    1.0,
    0.0,
)  # what one person's records become (None: others); of no sum the first
PUBLIC_MODES = ("drawn", "tame", "half", "one", "zero")  # tried in turn, while an operation fails on public values
MOVES = frozenset(
    "view _unsafe_view reshape permute transpose t unsqueeze squeeze expand select slice unbind split split_with_sizes cat "
    "stack clone detach alias flip roll lift_fresh".split()
)
ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-45, 1e-38, 3.4e38, -3.4e38, 1e10, 1e5, -1e5, 88.0, -88.0, 0.5, 1.0, -1.0)


class _Fallen(Exception):
    """A claim does not hold: says what moved. No error of the product, for nobody but `tried` sees it."""


def tried(claim: bytes, seed: int | None = None) -> str:
    """What of a claim does not hold, or why it can't be tried; empty where it holds. ``seed`` is for tests."""
    name = "what it says"
    try:
        step, specs = _parsed(claim)
        name = step.kind.op
        by_number = _by_number(step, specs)
        if by_number is False:
            raise _Fallen("its entries come from other records than it says")
        if by_number is None:
            rng = random.Random(secrets.randbits(64) if seed is None else seed)  # noqa: S311 - of made-up data
            _try_values(step, specs, _Draw(step, specs, rng))
    except _Fallen as fallen:
        return f"{name}: {fallen}"
    except MemoryError:
        raise
    except Exception as error:  # of ours, about values that are made up
        return f"{name}: it could not be tried: {type(error).__name__}: {str(error)[:200]}"
    finally:
        _perturb(0)
    return ""


def _parsed(claim: bytes) -> tuple[Step, list[Spec]]:
    """The one step of a claim, and how what it reads looks; raises _Fallen where its rule says something else."""
    said = canonical.loads(claim, limit=plans.MAX_PLAN)
    plan: Plan = plans.parse(canonical.dumps(said["plan"]))
    specs = [Spec.from_json(s) for s in said["reads"]]
    ready: Compiled = compiled(plan, specs, CPU, inside=True)
    (step,) = ready.steps
    if [None if s is None else s.to_json() for s in step.kind.outs] != said["outs"]:
        raise _Fallen(f"the rule of {step.kind.op} says something else where this is tried")
    step.last = ()
    return step, specs


def _perturb(byte: int) -> None:
    """Fill what malloc gives, and what free takes, with a byte; 0 ends it. Nothing where the C library has no such thing."""
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(M_PERTURB, byte)


# By record numbers


def _by_number(step: Step, specs: Sequence[Spec]) -> bool | None:
    """Whether each entry comes from the record at its place, or from no record; None where record numbers don't tell.

    What only moves entries is run on the numbers of the records that they are of. What torch itself calls pointwise, and fails
    on no value, has its arguments broadcast as it does; not of complex numbers, whose vectors torch once mixed (`lerp`).
    """
    name = ops.packet(step.kind.op)
    if step.kind.func is None:
        return None
    pointwise = torch.Tag.pointwise in step.kind.func.tags and name in ops.POINTWISE and not step.kind.total
    pointwise = pointwise and not any(s.dtype.is_complex for s in (*specs, *step.kind.outs) if s is not None)
    if any(s.label.kind not in ("rows", "public") for s in specs) or not (name in MOVES or pointwise):
        return None
    _perturb(BYTES[0])
    numbers = [laid_out(_numbers(spec), spec.typed(torch.int32)) for spec in specs]
    if name in MOVES:
        args, kwargs = step.arguments(numbers.__getitem__)
        groups = [[t] for t in step.kind.call(args, kwargs, None)]
    else:
        groups = [[t.expand(s.shape) for t in numbers] for s in step.kind.outs if s is not None]
    for spec, group in zip([s for s in step.kind.outs if s is not None], groups, strict=True):
        if spec.label.kind not in ("rows", "public"):
            continue
        place = _numbers(spec)
        if any(t.shape != spec.shape or not bool(((t == place) | (t == -1)).all()) for t in group):
            return False
    return True


def _numbers(spec: Spec) -> Tensor:
    """Of each entry the number of its record; -1 where it is of none."""
    if spec.label.kind != "rows":
        return torch.full(spec.shape, -1, dtype=torch.int32)
    count = spec.shape[spec.label.axis]
    return torch.arange(count, dtype=torch.int32).reshape(_along(spec, count)).expand(spec.shape)


def _along(spec: Spec, count: int) -> list[int]:
    shape = [1] * len(spec.shape)
    shape[spec.label.axis] = count
    return shape


# On made-up values


@dataclass
class _Variant:
    """Values of what a step reads, and which records kept those of the base (None: this is the base)."""

    values: Mapping[int, Tensor]
    grids: Mapping[int, Grid]
    keep: Tensor | None
    person: bool = False


def _try_values(step: Step, specs: Sequence[Spec], draw: _Draw) -> None:
    """Compare what a step makes of a base and of its variants; raises _Fallen."""
    for mode in PUBLIC_MODES if any(s.label.kind == "public" for s in specs) else PUBLIC_MODES[:1]:
        try:
            if any(s.label.kind != "public" for s in specs):  # NaN and infinity can hide what tame values show
                _compare_all(step, specs, draw.variants(mode, wild=True))
            _compare_all(step, specs, draw.variants(mode, wild=False))
        except FailedError as error:
            why = str(error)
        else:
            return
    raise _Fallen(f"it could not be tried: {why}")


def _compare_all(step: Step, specs: Sequence[Spec], variants: Iterator[_Variant]) -> None:
    base = _made(step, specs, next(variants), 0)
    persons: list[list[Held | None]] = []
    for i, variant in enumerate(variants, 1):
        outs = _made(step, specs, variant, i)
        for j, (spec, one, other) in enumerate(zip(step.kind.outs, base, outs, strict=True)):
            if spec is None or one is None or other is None or spec.label.kind == "private":
                continue
            if one.why or other.why:
                raise _Fallen(f"it fails on some values ({one.why or other.why})")
            if spec.label.kind == "public" and bool(_moved(one, other).any()):
                raise _Fallen("what it calls public depends on private values, or on memory that nobody wrote")
            if spec.label.kind == "rows":
                _compare_rows(spec, one, other, variant)
            if spec.label.kind == "aggregate":
                beside = [p for outs_of in persons if (p := outs_of[j]) is not None] if variant.person else []
                _compare_sums(spec, specs, one, other, variant, beside)
        if variant.person:
            persons.append([None if h is None else Held(None, h.spec, h.made, h.grid) for h in outs])


def _made(step: Step, specs: Sequence[Spec], variant: _Variant, number: int) -> list[Held | None]:
    """What a step makes, by a runner of its own."""
    _perturb(BYTES[number % len(BYTES)])
    held = {
        n: Held(
            value if value.stride() == specs[n].stride else laid_out(value, specs[n]),
            specs[n],
            Made(f"made up {n}"),
            variant.grids.get(n),
        )
        for n, value in variant.values.items()
    }
    runner = Runner("cpu", Quota(memory=1 << 62, values=1 << 30))
    with torch.no_grad():
        runner._step(step, held, False, (7,))
    return [None if n is None else held[n] for n in step.outs]


def _moved(one: Held, other: Held, axis: int | None = None) -> Tensor:
    """Entries, or records along ``axis``, at which two values differ by any bit."""
    a, b = _bits(one.tensor), _bits(other.tensor)
    differs = a != b
    if axis is None:
        return differs.reshape(-1)
    differs = differs.movedim(axis, 0)
    return differs.reshape(differs.shape[0], -1).any(1) if differs.numel() else torch.zeros(differs.shape[0], dtype=torch.bool)


def _bits(tensor: Tensor | None) -> Tensor:
    """The bits of each entry, so that NaN and the sign of zero count."""
    if tensor is None:
        raise _Fallen("it makes nothing")
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if whole.is_complex():
        whole = torch.view_as_real(whole)
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return whole if whole.dtype is torch.bool else whole.view(kinds[whole.dtype.itemsize])


def _compare_rows(spec: Spec, one: Held, other: Held, variant: _Variant) -> None:
    keep = variant.keep
    if keep is None or not 0 <= spec.label.axis < len(spec.shape) or spec.shape[spec.label.axis] != len(keep):
        raise _Fallen("its records are not those that it reads")
    if bool((_moved(one, other, spec.label.axis) & keep).any()):
        raise _Fallen("a record's entries depend on other records")


def _compare_sums(spec: Spec, specs: Sequence[Spec], one: Held, other: Held, variant: _Variant, beside: Sequence[Held]) -> None:
    a, b = one.grid, other.grid
    if a is None or b is None:
        raise _Fallen("its sum has no exact form")
    if (a.step, a.offset, a.l1, a.l2, a.ints.shape) != (b.step, b.offset, b.l1, b.l2, b.ints.shape):
        raise _Fallen("how its sum is counted depends on private values")
    step, most = abs(a.step), (spec.label.l1 * (1 + 1e-9), spec.label.l2 * (1 + 1e-9))
    if tuple(a.ints.shape) != spec.shape or step * a.l1 > most[0] or step * a.l2 > most[1]:
        raise _Fallen("its sum moves by more than its label says")
    per_person = max((s.label.k for s in specs if s.label.kind == "rows"), default=1)
    changed = 1 if variant.keep is None else int((~variant.keep).sum())
    _check_distance(a, b, math.ceil(changed / per_person))
    for person in beside:
        if person.grid is not None:
            _check_distance(person.grid, b, 1)


def _check_distance(a: Grid, b: Grid, persons: int) -> None:
    apart = (a.ints.double() - b.ints.double()).abs()
    most = (persons * a.l1 * (1 + 1e-12), persons * a.l2 * (1 + 1e-12))
    if float(apart.sum()) > most[0] or float(apart.square().sum().sqrt()) > most[1]:
        raise _Fallen("one person moves its sum by more than it says")


# What is made up


class _Draw:
    """Values of the look that a step reads.

    Records have styles: tame ones, the operation's own numbers and their neighbours, huge and tiny ones, NaN and infinities.
    Whole numbers that are places also lie out of range where they are private.
    """

    def __init__(self, step: Step, specs: Sequence[Spec], rng: random.Random) -> None:
        self.step, self.specs, self.rng = step, specs, rng
        self.generator = torch.Generator().manual_seed(rng.getrandbits(62))
        self.places = _places(step, specs)
        numbers = [float(n) for n in _plain_numbers(step.node.args) if abs(n) < 2**63] or [0.0]
        near = torch.tensor(numbers, dtype=torch.float64)
        self.numbers = torch.cat([near, near * (1 + 1e-7), near * (1 - 1e-7), -near])
        self.pools: dict[tuple[int, bool], Tensor] = {}
        self.wild = True

    def variants(self, mode: str, wild: bool) -> Iterator[_Variant]:
        """The base, then its variants. ``mode`` is how public values are drawn; private ones may be ``wild``."""
        self.wild = wild
        rows = [s for s in self.specs if s.label.kind == "rows"]
        counts = {s.shape[s.label.axis] for s in rows}
        if len(counts) > 1:
            raise _Fallen("it reads records of one dataset that differ in number")
        count = counts.pop() if counts else 0
        grids = {n: self._grid(s) for n, s in enumerate(self.specs) if s.label.kind == "aggregate"}
        base = {
            n: self._public(n, s, mode) if s.label.kind == "public" else self._private(n, s) for n, s in enumerate(self.specs)
        }
        yield _Variant(base, grids, None)
        if not rows:
            secret = any(s.label.kind != "public" for s in self.specs)
            for _ in range(2 if secret else 1):
                values = {n: base[n] if s.label.kind == "public" else self._private(n, s) for n, s in enumerate(self.specs)}
                yield _Variant(values, {n: self._next_to(g) for n, g in grids.items()}, None)
            return
        for keep in self._halves(count) if wild else [torch.rand(count, generator=self.generator) < 0.5 for _ in range(TAME)]:
            yield self._half(base, keep)
        if not count:
            return
        person = torch.tensor(self.rng.sample(range(count), min(max(1, rows[0].label.k), count)))
        keep = torch.ones(count, dtype=torch.bool).index_fill(0, person, False)
        # Sums are compared from each person to each; a base without NaN and infinity of its own shows what these do.
        sums = any(s is not None and s.label.kind == "aggregate" for s in self.step.kind.outs)
        for value in PERSONS[2:3] if wild else PERSONS if sums else PERSONS[:3]:
            yield self._person(base, keep, person, value)
        if len(person) > 1 and not wild:  # two odd records can cancel out
            yield self._person(base, keep, person[:1], math.nan)

    def _half(self, base: Mapping[int, Tensor], keep: Tensor) -> _Variant:
        """The base, with other records than those that are kept."""
        values = {}
        for n, spec in enumerate(self.specs):
            kept = base[n]
            if spec.label.kind == "rows":
                kept = torch.where(keep.reshape(_along(spec, len(keep))), kept, self._private(n, spec))
            values[n] = kept if spec.label.kind in ("rows", "public") else self._private(n, spec)
        return _Variant(values, {}, keep)

    def _person(self, base: Mapping[int, Tensor], keep: Tensor, person: Tensor, value: float | None) -> _Variant:
        """The base, with other records of one person: all of one value, or drawn ones."""
        values = {}
        for n, spec in enumerate(self.specs):
            values[n] = base[n] if spec.label.kind in ("rows", "public") else self._private(n, spec)
            if spec.label.kind == "rows":
                axis = spec.label.axis
                shape = (*spec.shape[:axis], len(person), *spec.shape[axis + 1 :])
                own = self._chosen(n, spec, len(person)) if value is None else _whole(shape, spec.dtype, value)
                values[n] = values[n].index_copy(axis, person, own)
        return _Variant(values, {}, keep, person=True)

    def _halves(self, count: int) -> list[Tensor]:
        """Sets of records that are kept; for small claims such that each two records are told apart, in both orders."""
        entries = sum(math.prod(s.shape) for s in (*self.specs, *(o for o in self.step.kind.outs if o is not None)))
        if entries > ALL_PAIRS:
            return [torch.rand(count, generator=self.generator) < 0.5 for _ in range(HALVES)]
        return antichain(count, self.rng)

    def _private(self, number: int, spec: Spec) -> Tensor:
        """Records chosen from a pool, so that some are alike; without an axis of records each entry is one."""
        axis = spec.label.axis if spec.label.kind == "rows" else 0
        if not spec.shape:
            return self._values(spec.shape, spec.dtype, None, self.places.get(number), self.wild)
        return self._chosen(number, spec, spec.shape[axis])

    def _chosen(self, number: int, spec: Spec, count: int) -> Tensor:
        axis = spec.label.axis if spec.label.kind == "rows" else 0
        if (number, self.wild) not in self.pools:
            one = math.prod(spec.shape) // max(1, spec.shape[axis])
            many = max(FEWEST, min(POOL, POOLED // max(1, one)))
            shape = (*spec.shape[:axis], many, *spec.shape[axis + 1 :])
            self.pools[number, self.wild] = self._values(shape, spec.dtype, axis, self.places.get(number), self.wild)
        pool = self.pools[number, self.wild]
        return pool.index_select(axis, torch.randint(pool.shape[axis], (count,), generator=self.generator))

    def _public(self, number: int, spec: Spec, mode: str) -> Tensor:
        if mode in ("drawn", "tame"):
            return self._values(spec.shape, spec.dtype, None, self.places.get(number), wild=False, low=int(mode == "tame"))
        return torch.full(spec.shape, {"half": 0.5, "one": 1, "zero": 0}[mode], dtype=spec.dtype)

    def _grid(self, spec: Spec) -> Grid:
        """A sum of whole numbers, in steps such that one person moves it by as much as its label says."""
        one, label = 1000, spec.label
        ints = torch.randint(0, 10**6, spec.shape, generator=self.generator)
        if label.l1 == 0:
            return Grid(ints, 1.0, 0.0, 0, 0.0)
        return Grid(ints, label.l1 / one, 0.0, one, one * label.l2 / label.l1)

    def _next_to(self, grid: Grid) -> Grid:
        """What one person could make of a sum: another entry, by as much as there may be in both norms."""
        ints = grid.ints.clone()
        if ints.numel():
            ints.view(-1)[self.rng.randrange(ints.numel())] += self.rng.choice((-1, 1)) * int(min(grid.l1, grid.l2))
        return Grid(ints, grid.step, grid.offset, grid.l1, grid.l2)

    def _values(
        self, shape: Sequence[int], dtype: torch.dtype, axis: int | None, high: int | None, wild: bool, low: int = 0
    ) -> Tensor:
        shape, g = tuple(shape), self.generator
        if dtype is torch.bool:
            return torch.rand(shape, generator=g) < self.rng.choice((0.1, 0.5, 0.9))
        if dtype.is_complex:
            part = torch.float32 if dtype is torch.complex64 else torch.float64
            return torch.complex(*(self._values(shape, part, axis, None, wild) for _ in range(2))).to(dtype)
        if not dtype.is_floating_point:
            return self._whole_numbers(shape, dtype, high, wild, low)
        x = torch.randn(shape, generator=g) * self.rng.choice((0.3, 1.0, 10.0))
        return (self._styled(x, axis) if wild and axis is not None else x).to(dtype)

    def _whole_numbers(self, shape: tuple[int, ...], dtype: torch.dtype, high: int | None, wild: bool, low: int) -> Tensor:
        """Places where they are some, small ones otherwise; where they are private also negative and extreme ones."""
        limits, g = torch.iinfo(dtype), self.generator
        top = max(1, min(10 if high is None else high, limits.max))
        x = torch.randint(min(low, top - 1), top, shape, generator=g)
        if wild:
            own = [int(n) for n in self.numbers.tolist() if limits.min <= n <= limits.max and n == n and abs(n) < 2**63]
            before = max(-1, limits.min)
            pool = torch.tensor([*own, 0, 1, before, limits.max, limits.min, top, 100])
            odd = torch.rand(shape, generator=g) < 0.15
            if self.step.kind.func is None:  # of one record: places may be anywhere in it, and most mistakes are one off
                pool, odd = torch.tensor([before, max(-2, limits.min), 0, 1, 2, top, 100]), torch.rand(shape, generator=g) < 0.5
            x = torch.where(odd, pool[torch.randint(len(pool), shape, generator=g)], x)
        return x.to(dtype)

    def _styled(self, x: Tensor, axis: int) -> Tensor:
        g = self.generator
        shape = [1] * x.dim()
        shape[axis] = x.shape[axis]
        style, pick = torch.rand(x.shape[axis], generator=g).reshape(shape), torch.rand(x.shape, generator=g)
        own = self.numbers.float()[torch.randint(len(self.numbers), x.shape, generator=g)]
        odd = torch.tensor(ODD)[torch.randint(len(ODD), x.shape, generator=g)]
        wide = torch.sign(x) * torch.pow(10.0, (torch.rand(x.shape, generator=g) - 0.5) * 20)
        x = torch.where((style > 0.6) & (style <= 0.75) & (pick < 0.7), own, x)
        x = torch.where((style > 0.75) & (style <= 0.85), wide, x)
        return torch.where((style > 0.85) & (pick < 0.5), odd, x)


def _whole(shape: Sequence[int], dtype: torch.dtype, value: float) -> Tensor:
    """All entries alike: the value, or what a type without it has nearest."""
    if dtype.is_floating_point or dtype.is_complex:
        return torch.full(shape, value, dtype=dtype)
    if dtype is torch.bool:
        return torch.full(shape, value > 0, dtype=torch.bool)
    limits = torch.iinfo(dtype)
    ends = {math.inf: limits.max, -math.inf: limits.min}
    number = ends[value] if value in ends else max(-1, limits.min) if value != value else int(value)
    return torch.full(shape, number, dtype=dtype)


def _plain_numbers(arg: Any) -> Iterator[float]:
    """The numbers that an operation is given as such."""
    if type(arg) in (int, float):
        if arg == arg and abs(arg) != math.inf:
            yield arg
    elif type(arg) is plans.Body:
        yield from _plain_numbers([node.args[1:] for node in arg.plan.nodes])
    elif type(arg) in (list, tuple):
        for each in arg:
            yield from _plain_numbers(each)


def _places(step: Step, specs: Sequence[Spec]) -> dict[int, int]:
    """Of each whole-number argument that is a place in another, the first that is out of range."""
    node, name = step.node, ops.packet(step.kind.op)
    at = 2 if name in gpu.ALONG else 1
    if name not in gpu.ALONG | gpu.AT | {"embedding", "take"} or len(node.args) <= at:
        return {}
    arg = node.args[at]
    refs = [a.number for a in (arg if isinstance(arg, list) else [arg]) if isinstance(a, plans.Ref)]
    of = specs[node.args[0].number].shape if isinstance(node.args[0], plans.Ref) else ()
    along: Any = node.args[1] if at == 2 else 0 if name == "embedding" else None
    high = of[along % len(of)] if type(along) is int and of else min(of, default=1)
    return dict.fromkeys(refs, high)


def antichain(count: int, rng: random.Random) -> list[Tensor]:
    """The fewest sets of records such that of each two records, in both orders, some set has the one and lacks the other.

    Each record is in half of the sets, no two in the same half (Sperner 1928): 6 sets for 16 records, 13 for 1 000, 23 for a
    million.
    """
    if count < 2:
        return [torch.zeros(count, dtype=torch.bool)]
    sets = 2
    while math.comb(sets, sets // 2) < count:
        sets += 1
    rank = torch.tensor(rng.sample(range(math.comb(sets, sets // 2)), count))
    left = torch.full((count,), sets // 2)
    keep = []
    for place in range(sets):  # of each record the rank-th half of the sets
        before = torch.tensor([math.comb(sets - place - 1, n - 1) if n else 0 for n in range(sets // 2 + 1)])[left]
        keep.append((left > 0) & (rank < before))
        rank, left = torch.where(keep[-1], rank, rank - before), left - keep[-1].long()
    return keep
