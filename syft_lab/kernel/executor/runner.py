"""Runs plans: the values of one analyst's session, by number. In a child of the owner's kernel, or within a virtual owner.

What a plan may do is decided here, by the table of `ops`, whatever the analyst's side thought. Each operation's sizes are
known before it runs (a run on meta tensors, cached) and held to quotas; each value has a label (`labels`), and remembers which
kinds of operations that label rests on: what leaves because of it has been tried before (`trial`).

An operation that fails on public values, or on types, says why. One that fails on private values must not show that to the
analyst, for whether it failed would be an exact answer about private data. Where rows are kept, no operation fails on values
(`total`); elsewhere its results are NaN, or 0, and *lost*: nothing but the owner, who sees why, can tell them from others.
"""

from __future__ import annotations

import hashlib
import math
import secrets
import time
import weakref
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from syft_lab import labels, ops, plans
from syft_lab.errors import (
    FailedError,
    LabError,
    PartnerError,
    PrivateValueError,
    StalePointerError,
    StateError,
    UsageError,
    WireError,
)
from syft_lab.kernel.executor import grid
from syft_lab.kernel.executor.compiled import Compiled, Kind, Step, compiled, laid_out, no_constant, text
from syft_lab.kernel.executor.provenance import Made, Ran, settle, story
from syft_lab.labels import PUBLIC, Label
from syft_lab.plans import Plan
from syft_lab.spec import DTYPES, Spec, as_bytes, decoded

MAX_VALUES, MAX_HISTORY, PLANS = 200_000, 20_000, 256
FLOPS_A_SECOND = {"cpu": 2e9, "cuda": 1e12}  # what the slowest do on large operations
LINES, COMPILED, RUNS, SETS = 400, 64, 1024, 4096
SMALL = 1 << 20
TYPES = "\0"  # begins what is told whatever values are
TRIAL = 1  # the version of what `trial` tries
NOTHING: frozenset[Kind] = frozenset()


@dataclass(slots=True)
class Held:
    """A value: a tensor, what is known of it, how it was made, and ``behind`` it the kinds of operations its label rests on.

    ``why`` says what went wrong where it has no true value: on public values, and there is no tensor, or on private ones, which
    only the owner may know. ``filled`` entries, its own or those of what it is made of, had no value of their own.
    """

    tensor: torch.Tensor | None
    spec: Spec
    made: Made
    grid: grid.Grid | None = None
    why: str = ""
    behind: frozenset[Kind] = NOTHING
    filled: int = 0


@dataclass
class Quota:
    """Bytes, seconds for one plan, and values that a session may hold."""

    memory: int = 4 << 30
    seconds: float = 600.0
    values: int = MAX_VALUES


@dataclass
class Partial:
    """A tensor that is coming in: its bytes, and how many are there."""

    memory: np.ndarray[Any, Any]
    at: int = 0


@dataclass
class Space:
    """The values of one session. ``same`` finds one that would be computed again, and ``runs`` those of a whole plan."""

    held: dict[int, Held] = field(default_factory=dict)
    same: dict[Any, int] = field(default_factory=dict)
    made: weakref.WeakValueDictionary[Any, Made] = field(default_factory=weakref.WeakValueDictionary)
    plans: OrderedDict[str, Plan] = field(default_factory=OrderedDict)
    compiled: OrderedDict[Any, Compiled] = field(default_factory=OrderedDict)
    runs: OrderedDict[Any, Sequence[tuple[int, float]]] = field(default_factory=OrderedDict)
    history: deque[tuple[weakref.ref[Made | Ran], int]] = field(default_factory=deque)
    steps: int = 0  # that the history holds
    partial: dict[int, Partial] = field(default_factory=dict)
    ran: int = 0
    counted: int = 0  # no fewer bytes than are held


class Runner:
    """Holds and computes values for one session. ``device`` is where."""

    def __init__(self, device: str = "cpu", quota: Quota | None = None) -> None:
        self.device, self.quota, self.space = torch.device(device), quota or Quota(), Space()
        self._flat: tuple[Held, torch.Tensor] | None = None  # what goes out just now
        self._sets: dict[frozenset[Kind], frozenset[Kind]] = {}  # what values have behind them, each set once
        self._tried: set[bytes] = set()  # claims that held
        self._refusals: OrderedDict[Any, str] = OrderedDict()
        self._rests: set[Kind] = set()  # kinds of operations that values of the plan which runs now may rest on
        if self.device.type == "cuda" and (self.device.index or 0) >= torch.cuda.device_count():
            raise StateError(f"this owner's machine has no {device} that torch can use")

    def close(self) -> None:
        """End what is open to others: nothing."""

    # What comes in

    def load(self, number: int, tensor: torch.Tensor, label: Mapping[str, Any], name: str) -> None:
        """Take in a published tensor, with the label that the owner gives it."""
        self._hold(number, tensor.to(self.device), Label.from_json(label), Made(f"dataset {name}"))

    def adopt(self, number: int, dtype: str, shape: Sequence[int], source: str, value: torch.Tensor | None) -> None:
        """Take in what another owner handed over: private, whatever it was there. None where it was lost there."""
        tensor = torch.zeros(tuple(shape), dtype=DTYPES[dtype]) if value is None else value
        self._hold(number, tensor.to(self.device), Label("private", (source,)), Made(f"{source} {list(shape)}"))
        if value is None:
            self.space.held[number].why = f"it could not be computed at {source.partition(',')[0]}"

    def place(self, number: int, dtype: str, shape: Sequence[int], start: int, size: int) -> memoryview | None:
        """Where bytes of a tensor belong that `put` is about to take in; None where they don't belong, which `put` will say."""
        try:
            found = self._partial(number, dtype, shape, start)
        except LabError:
            return None
        fits = found.at == start and 0 < size <= found.memory.nbytes - start
        return found.memory.data[start : start + size] if fits else None

    def put(self, number: int, dtype: str, shape: Sequence[int], start: int, data: bytes | memoryview) -> None:
        """Take in a part of a tensor from the analyst: bytes from ``start`` on, in order."""
        part, found = memoryview(data).cast("B"), self._partial(number, dtype, shape, start)
        kind, size = DTYPES[dtype], found.memory.nbytes
        if found.at != start or start + part.nbytes > size:
            raise WireError("a part of a tensor came out of order")
        held: object = part.obj
        if part.nbytes and held is not found.memory:
            found.memory[start : start + part.nbytes] = part
        found.at += part.nbytes
        if found.at == size:
            del self.space.partial[number]
            if kind is torch.bool and size and int(found.memory.max()) > 1:
                raise WireError("a boolean is neither true nor false")
            made = Made.given(f"constant {dtype}{list(shape)}", found.memory)
            if self.device.type != "cpu":
                made.text  # noqa: B018 - its bytes are not kept here as well
            whole = torch.from_numpy(found.memory).view(kind) if size else torch.empty(0, dtype=kind)
            self._hold(number, whole.reshape(tuple(shape)).to(self.device), PUBLIC, made)

    def _partial(self, number: int, dtype: str, shape: Sequence[int], start: int) -> Partial:
        """The tensor that a part belongs to; it begins with its first. Raises WireError, or FailedError: it is too large."""
        kind = DTYPES.get(dtype)
        if kind is None or len(shape) > 64 or not all(type(n) is int and n >= 0 for n in shape):
            raise WireError("a tensor that comes in has a dtype and a shape that pointers have")
        size, found = math.prod(shape) * kind.itemsize, self.space.partial.get(number)
        if start == 0 and (found is None or found.at or found.memory.nbytes != size):
            self._room(size)
            found = self.space.partial[number] = Partial(np.empty(size, np.uint8))  # of large pages
        if found is None or found.memory.nbytes != size:
            raise WireError("a part of a tensor came out of order")
        return found

    # Plans

    def run(self, found: Plan, run: Mapping[str, Any], digest: str, keep: bool = False) -> dict[str, Any]:
        """Run a plan on held values, and keep what is asked for. Where it is to be kept it stays ready for the next time.

        Gives what became of it: {"lost": why} for outputs that failed on public values alone.
        """
        inputs, outputs, seeds = run["inputs"], run["outputs"], tuple(run["seeds"])
        if len(inputs) != found.inputs or len(outputs) != len(found.outputs) or len({*outputs}) != len(outputs):
            raise WireError("a plan is run with as many inputs and outputs as it has")
        if any(type(o) is not int or o in self.space.held or o in self.space.partial for o in outputs):
            raise WireError("a value is made once")
        lost, key, values = "", None, None
        try:
            given = [self._get(number) for number in inputs]
            broken = next((held.why for held in given if held.tensor is None), "")
            if broken:
                raise FailedError(broken)
            key = (digest, seeds, *[held.made.at for held in given])
            values = self._found_again(key, found.outputs)
            if values is None:
                ready = self._compiled(digest if keep else "", found, [held.spec for held in given])
                if ready.seeds > len(seeds):
                    raise WireError("a run brings a seed for each operation of its plan that draws random numbers")
                values = (self._swift(ready, given, digest, seeds) if keep else None) or self._compute(ready, given, seeds)
                self._rest(ready, given, values)
        except (PartnerError, StalePointerError):
            raise
        except LabError as error:  # it tells nothing that the analyst does not know: sizes, times, and public values
            lost = str(error)
            broke = Held(None, _NOTHING, Made(f"a plan that failed {secrets.token_hex(16)}"), why=lost)
            values = dict.fromkeys(found.outputs, broke)
        for local, number in zip(found.outputs, outputs, strict=True):
            held = self.space.held[number] = values.get(local) or Held(
                None, _NOTHING, Made("nothing"), why="there is no such value"
            )
            if held.made.key is not None:
                self.space.same.setdefault(held.made.key, number)
        if not lost:
            self.space.runs[key] = [(n, self.space.held[n].made.at) for n in outputs]
            while len(self.space.runs) > RUNS:
                self.space.runs.popitem(last=False)
        self.free(run["free"])
        return {"lost": lost}

    def _rest(self, plan: Compiled, given: Sequence[Held], values: Mapping[int, Held]) -> None:
        """Note what the labels of a run's outputs rest on: operations of the plan, and what is behind its inputs."""
        for number, (kinds, inputs) in plan.behind.items():
            held, behind = values.get(number), kinds
            for i in inputs:
                more = given[i].behind
                if more is not behind and not more <= behind:
                    behind = more | behind
            if held is not None and behind and not held.behind >= behind:
                behind |= held.behind  # one that was computed before, in another way perhaps
                held.behind = self._sets.setdefault(behind, behind)
        if len(self._sets) > SETS:
            self._sets.clear()

    def _found_again(self, key: Any, locals: Sequence[int]) -> dict[int, Held] | None:
        """The outputs of the same run, where all of them are still held."""
        found: dict[int, Held] = {}
        for local, (number, at) in zip(locals, self.space.runs.get(key, ()), strict=False):
            held = self.space.held.get(number)
            if held is None or held.made.at != at:
                return None
            found[local] = held
        return found or None

    def free(self, numbers: Sequence[int]) -> None:
        """Forget values."""
        for number in numbers:
            self.space.partial.pop(number, None)
            held = self.space.held.pop(number, None)
            if held is None:
                continue
            if self.space.same.get(held.made.key) == number:
                del self.space.same[held.made.key]
            made = weakref.ref(held.made)
            del held
            settle(made)

    def run_all(self, runs: Sequence[Mapping[str, Any]], given: Sequence[bytes]) -> dict[str, Any]:
        """Run several plans in order. ``plan`` is ``#0`` for the first of those ``given``, or the digest of a kept one."""
        came = [(plans.parse(g), "sha256:" + hashlib.sha256(g).hexdigest()) for g in given]
        digests = {digest: plan for plan, digest in came}
        known, lost = self.space.plans, ""
        known.update({name: digests[name] for run in runs if (name := run["plan"]) in digests})  # whatever becomes of the runs
        for run in runs:
            name = run["plan"]
            keep = not name.startswith("#")
            if not keep and name[1:].isdecimal() and int(name[1:]) < len(came):
                plan, name = came[int(name[1:])]
            elif keep and name in known:
                plan = known[name]
                known.move_to_end(name)
            else:
                raise UsageError("this plan is not known here; send it whole")
            lost = self.run(plan, run, name, keep)["lost"] or lost
        while len(known) > PLANS:
            known.popitem(last=False)
        return {"lost": lost}

    def _compiled(self, digest: str, plan: Plan, specs: list[Spec]) -> Compiled:
        """A plan made ready for inputs that look so; most come again."""
        if not digest:
            return compiled(plan, specs, self.device)
        key, known = (digest, *[s.plain for s in specs]), self.space.compiled
        if key not in known:
            known[key] = compiled(plan, specs, self.device)
            while len(known) > COMPILED:
                known.popitem(last=False)
        return known[key]

    def _begin(self, plan: Compiled) -> float:
        """Hold a plan to the quotas; gives when it must be over. Raises FailedError."""
        if len(self.space.held) + plan.outputs > self.quota.values:
            raise FailedError(f"more than {self.quota.values} values would be held for you; let some pointers go")
        if plan.flops / FLOPS_A_SECOND[self.device.type] > self.quota.seconds:
            raise self._late()
        self._room(plan.bytes)
        return time.monotonic() + self.quota.seconds

    def _late(self) -> LabError:
        return FailedError(f"this plan takes longer than the {self.quota.seconds:g} s that you may use at a time; split it")

    def _swift(self, plan: Compiled, given: Sequence[Held], digest: str, seeds: tuple[int, ...]) -> dict[int, Held] | None:
        """Run the steps of a plan that comes again and again, with little but torch between them.

        Gives None where the plan needs more, whatever its values are: which way is taken would show in what is held.
        """
        if plan.grid or plan.total or any(held.why and held.spec.label.kind == "public" for held in given):
            return None
        deadline, late = self._begin(plan), False
        values: dict[int, Any] = dict(enumerate([held.tensor for held in given]))
        whys = {n: held.why for n, held in enumerate(given) if held.why}
        filled = {n: held.filled for n, held in enumerate(given) if held.filled}
        value = values.__getitem__
        with torch.no_grad():
            for step in plan.steps:
                kind = step.kind
                if kind.private and kind.refusal != "":
                    return None  # whether it is refused is found out first
                try:
                    found = kind.call(*step.arguments(value), None if step.seed is None else seeds[step.seed])
                except Exception as error:
                    if not kind.private:
                        return None  # what is told of it depends on more
                    found, why = self._failed(step, error)
                    whys.update((n, why) for n in step.outs if n is not None)
                for number, spec, tensor in zip(step.outs, kind.outs, found, strict=True):
                    if number is not None and spec is not None:
                        values[number] = self._fitted(kind, tensor, spec)
                if whys or filled:
                    _inherit(step, whys, filled)
                for number in step.last:
                    values.pop(number, None)
                late = time.monotonic() > deadline
                if late:
                    break
        if late:
            raise self._late()
        self.space.ran += len(plan.steps)
        ran = Ran(f"{digest} {seeds}", lambda: plan.texts(seeds), tuple([held.made for held in given]))
        self._remember(ran, len(plan.steps))
        made = {
            n: Held(values[n], spec, ran.out(n, place), why=whys.get(n, ""), filled=filled.get(n, 0))
            for n, (spec, place) in plan.made.items()
        }
        return {**dict(enumerate(given)), **made}

    @staticmethod
    def _fitted(kind: Kind, tensor: torch.Tensor | None, spec: Spec) -> torch.Tensor:
        """A result as both sides count on it: its shape and strides, in no more memory than that takes."""
        if tensor is None:  # some fused operations leave out what only their own gradient reads
            raise FailedError(f"{kind.op} gave one result less here than it should")
        if tensor.shape != spec.shape:  # labels are about the shape that it was thought to have
            if tensor.numel():
                raise FailedError(f"{kind.op} gave another shape here than it should")
            return spec.plain.filled(0, tensor.device)
        larger = kind.owns and tensor.untyped_storage().nbytes() > spec.span * spec.dtype.itemsize
        return laid_out(tensor, spec) if larger or (tensor.stride() != spec.stride and tensor.numel()) else tensor

    def _compute(self, plan: Compiled, given: Sequence[Held], seeds: Sequence[int]) -> dict[int, Held]:
        """Run the steps of a plan one by one; raises an error of public values, sizes or times."""
        values = dict(enumerate(given))
        deadline = self._begin(plan)
        lossy = any(v.why or v.filled for v in given)
        self._rests = set().union(*[held.behind for held in given])
        with torch.no_grad():
            for step in plan.steps:
                lossy = self._step(step, values, lossy, seeds)
                if step.kind.claims:
                    self._rests.add(step.kind)
                for n in step.last:
                    values.pop(n, None)
                if time.monotonic() > deadline:
                    raise self._late()
        self.space.ran += len(plan.steps)
        return values

    def _step(self, step: Step, values: dict[int, Held], lossy: bool, seeds: Sequence[int]) -> bool:
        """Run one step; gives whether some value is lost, or has entries that were filled."""
        kind, past = step.kind, tuple([values[n].made for n in step.reads])
        key = None if kind.random or len(kind.outs) > 1 else (step.skeleton, *[m.at for m in past])
        if key is not None:
            same = self.space.held.get(self.space.same.get(key, -1))
            if same is not None and step.outs[0] is not None:
                values[step.outs[0]] = same
                return lossy or bool(same.why or same.filled)
        why, filled, public = "", 0, ""
        if lossy:
            why = next((values[n].why for n in step.reads if values[n].why), "")
            public = next((v.why for v in map(values.__getitem__, step.reads) if v.why and v.spec.label.kind == "public"), "")
            filled = sum(values[n].filled for n in step.reads)
        found, failed = self._called(step, values, seeds)
        why, filled = why or failed, filled + getattr(found, "filled", 0)
        public = public or ("" if kind.private else failed)
        for i, (number, spec) in enumerate(zip(step.outs, kind.outs, strict=True)):
            if number is None or spec is None:
                continue
            made = None if key is None else self.space.made.get(key)
            if made is None:
                made = Made(text(step, seeds), past, i, len(kind.outs), key)
                self._remember(made)
                if key is not None:
                    self.space.made[key] = made
            tensor = self._fitted(kind, found[i], spec)
            companion = self._grid(step, values, spec) if kind.grid else None
            # What is public is made of no private value, whatever went wrong with one.
            told, count = (public, 0) if spec.label.kind == "public" else (why, filled)
            values[number] = Held(tensor, spec, made, companion, told, filled=count)
        return lossy or bool(why or filled)

    def _called(self, step: Step, values: Mapping[int, Held], seeds: Sequence[int]) -> tuple[Sequence[Any], str]:
        """Results of a step, and why they are none, which is the owner's to know; raises FailedError for public reasons."""
        if step.kind.private:
            there = {n: values[n] for n in step.reads}
            self._check_refusal(step, {n: v.tensor for n, v in there.items()}, {n: v.made.at for n, v in there.items()})
        try:
            seed = None if step.seed is None else seeds[step.seed]
            return step.kind.call(*step.arguments(lambda n: values[n].tensor), seed), ""
        except Exception as error:
            return self._failed(step, error)

    def _failed(self, step: Step, error: Exception) -> tuple[Sequence[Any], str]:
        """What stands for the results of a step that failed on private values, and why it did; raises other errors."""
        kind = step.kind
        if isinstance(error, torch.OutOfMemoryError):
            raise FailedError("the owner's device has not enough memory for this plan") from None
        if isinstance(error, MemoryError | torch.AcceleratorError):  # after the second no operation on that GPU works here
            raise error
        why = _failure(kind, error)  # whatever it is: that it failed may tell of values
        if not kind.private and (_of_types(error) or self._may_tell()):
            raise FailedError(why) from None
        return [None if spec is None else _nothing(spec, self.device) for spec in kind.outs], why

    def _check_refusal(self, step: Step, values: Mapping[int, Any], made: Mapping[int, Any]) -> None:
        """Raises FailedError where a step would fail whatever the private values are: before it meets them, and always.

        So what is told of it depends on types and public values alone; after this, no failure of the step is told.
        """
        kind = step.kind
        if not kind.looks:
            why = self._refusal(step, values) if kind.refusal is None else kind.refusal
            if not why or all(spec.label.kind != "public" for spec in kind.read):
                kind.refusal = why
        else:
            key: Any = (kind, *[made[n] for n, spec in zip(step.reads, kind.read, strict=True) if spec.label.kind == "public"])
            if key not in self._refusals:
                self._refusals[key] = self._refusal(step, values)
                while len(self._refusals) > SETS:
                    self._refusals.popitem(last=False)
            why = self._refusals[key]
        if why and (why[0] == TYPES or self._may_tell()):
            raise FailedError(why.removeprefix(TYPES))

    def _may_tell(self) -> bool:
        """Whether all has been tried that the labels of public values here rest on; before, a failure tells of no value.

        A value is only thought to be public until then, and what a failure says could hold what it is made of. So it is
        lost, which its owner and, once it was tried, who asks for it is told.
        """
        return all(kind.claim in self._tried for kind in self._rests)

    def _refusal(self, step: Step, values: Mapping[int, Any]) -> str:
        """Why a step fails on zeros and on ones in place of its private values; empty where it works, or need not fail.

        Where each record is computed by itself that is due to a type or a public value; elsewhere only types are taken for it.
        """
        kind, why = step.kind, ""
        apart = any(spec is not None and spec.label.kind in ("rows", "aggregate") for spec in kind.outs)
        for number in (0, 1):
            try:  # large ones of one number each: copies would take memory, and too little of it might be told
                tame: dict[int, Any] = {
                    n: values[n] if spec.label.kind == "public"
                    else spec.filled(number, self.device) if spec.nbytes <= SMALL
                    else torch.full((), number, dtype=spec.dtype, device=self.device).expand(spec.shape)
                    for n, spec in zip(step.reads, kind.read, strict=True)
                }  # fmt: skip
                kind.probe(*step.arguments(tame.__getitem__), 1)
                return ""
            except (MemoryError, torch.OutOfMemoryError):
                return ""
            except torch.AcceleratorError:
                raise
            except Exception as error:
                if not apart and not _of_types(error):
                    return ""  # of values, perhaps
                why = (TYPES if _of_types(error) else "") + _failure(kind, error)
        return why

    def _remember(self, made: Made | Ran, weight: int = 1) -> None:
        """Keep the history of what is held within bounds: the oldest operations are forgotten but for digests."""
        space = self.space
        space.history.append((weakref.ref(made), weight))
        space.steps += weight
        while space.steps > MAX_HISTORY and len(space.history) > 1:
            ref, gone = space.history.popleft()
            space.steps -= gone
            old = ref()
            if old is not None:
                old.cut()

    def _grid(self, step: Step, values: Mapping[int, Held], out: Spec) -> grid.Grid | None:
        """The exact companion of an aggregate, laid out in memory as it is: a view of one may be none of another."""
        made = self._companion(step, values) if out.label.kind == "aggregate" else None
        if made is None or made.ints.stride() == out.stride or made.ints.shape != out.shape:
            return made
        return made.shaped(lambda ints: laid_out(ints, out.typed(ints.dtype)))

    def _companion(self, step: Step, values: Mapping[int, Held]) -> grid.Grid | None:
        named = labels.bound(step.kind.op, step.node.args, step.node.kwargs)
        name = ops.packet(step.kind.op)
        held = next(values[n] for n in step.reads if values[n].spec.label.kind != "public")
        if held.spec.label.kind != "rows":
            return self._scaled(name, named, step, held.grid)
        x, label = held.tensor, held.spec.label
        bounds = (0.0, 1.0) if held.spec.boolean else label.bounds
        if x is None or bounds is None:
            return None
        dims = labels.reduced(named.get("dim"), x.dim())
        return grid.summed(x, bounds, dims, label.axis, label.k, name == "mean", bool(named.get("keepdim")))

    def _scaled(self, name: str, named: Mapping[str, Any], step: Step, of: grid.Grid | None) -> grid.Grid | None:
        """The companion of an aggregate after a linear step; None drops the promise, and with it the label's use."""
        if of is None:
            return None
        other: Any = named.get("other")
        if name in ("neg", "negative"):
            return of.scaled(-1, 0)
        if name in ("add", "sub"):
            return of.scaled(1, other if name == "add" else -other)
        if name == "rsub":
            return of.scaled(-1, other)
        if name in ("mul", "div"):
            return of.scaled(other if name == "mul" else 1 / other, 0)
        if name in ("clone", "detach", "alias", "positive", "lift_fresh"):
            return of
        whole = {k: decoded(v, lambda n: of.ints, self.device, no_constant) for k, v in named.items() if v is not None}
        return of.shaped(lambda ints: step.kind.func(**whole))

    # What is there, and what may go out

    def describe(self, number: int) -> dict[str, Any]:
        """What is known of a value, and how it was made; for the owner."""
        held = self._get(number)
        spec, digest = held.spec, held.made.digest.hex()
        return {"shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch."), "label": spec.label.to_json(),
                "said": str(spec.label), "digest": digest, "text": story(held.made, LINES),
                "code": f"# {spec.label}; {digest}\n{story(held.made, LINES, code=True)}", "lost": held.why,
                "filled": held.filled}  # fmt: skip

    def fetch(self, number: int, start: int, length: int, private: bool = False) -> memoryview:
        """Bytes of a value. Without ``private`` (the owner's decision) a public one only; raises PrivateValueError."""
        held = self._get(number)
        if not private and held.spec.label.kind != "public":
            raise PrivateValueError(ways_out(held.spec.label))
        if held.tensor is None or (private and held.why):
            raise FailedError(held.why)
        if not private:
            self._check_tried(number)
            if held.why:
                raise FailedError(held.why)
        if self._flat is None or self._flat[0] is not held:  # all its parts come from one copy, if one is needed
            self._flat = held, as_bytes(held.tensor.cpu())
        part = self._flat[1][start : start + length]
        if start + length >= self._flat[1].numel():
            self._flat = None
        return memoryview(part.numpy())

    def aggregate(self, number: int) -> dict[str, Any]:
        """The integers of an aggregate and what one person moves them by, for a release under noise."""
        held = self._get(number)
        if held.tensor is None:
            raise FailedError(held.why)
        if held.spec.label.kind != "aggregate" or held.grid is None:
            raise PrivateValueError(f"only an aggregate can be released under noise, and this is {held.spec.label}; clamp, "
                                    "then sum or mean over the records: x.clamp(0, 1).mean(0).release(epsilon=…)")  # fmt: skip
        self._check_tried(number)
        g = held.grid
        if not all(map(math.isfinite, (g.offset + g.step * 2.0**63, g.offset - g.step * 2.0**63))):
            raise UsageError("this aggregate was moved or scaled beyond what numbers hold; do that after its release")
        return {"ints": g.ints.cpu().reshape(-1).tolist(), "step": g.step, "offset": g.offset, "l1": g.l1, "l2": g.l2,
                "tried": self._trial(held), **self.describe(number)}  # fmt: skip

    def owed(self, number: int) -> list[bytes]:
        """Claims that a value's label rests on, and that were not tried yet; see `Kind.claim`."""
        claims = {kind.claim for kind in self._get(number).behind}
        return sorted(claims - self._tried)

    def tried(self, claims: Sequence[bytes]) -> None:
        """Take in that these claims were tried, and held."""
        self._tried.update(claims)

    def _trial(self, held: Held) -> str:
        """What was tried, for a receipt: kinds of operations, a digest of their claims, and by what."""
        claims = sorted(kind.claim for kind in held.behind)
        digest = hashlib.sha256(b"\n".join(claims)).hexdigest()
        where = f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
        return f"{len(claims)} kinds of operations tried on made-up values (sha256:{digest[:32]}; trial {TRIAL}, {where})"

    def _check_tried(self, number: int) -> None:
        """Raises StateError where a label that something would leave by was not tried."""
        if self.owed(number):
            raise StateError("what this value's label says was not tried yet, so it stays. A fault of Syft Lab: report it")

    def stats(self) -> dict[str, int]:
        """How much is held."""
        return {"values": len(self.space.held), "bytes": self.bytes(), "ran": self.space.ran}

    def bytes(self) -> int:
        """Bytes of memory that values hold; views count once."""
        seen: dict[int, int] = {}
        partial = sum(p.memory.nbytes for p in self.space.partial.values())
        for held in self.space.held.values():
            if held.tensor is not None:
                storage = held.tensor.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
        return sum(seen.values()) + partial

    def _room(self, size: int) -> None:
        """Raises FailedError where so much more would be too much. Memory is counted when it may be, for that takes time."""
        space, most = self.space, self.quota.memory
        if space.counted + size > most:
            space.counted = self.bytes()
            if space.counted + size > most:
                raise FailedError(f"this needs {size >> 20} MB more, you hold {space.counted >> 20} of {most >> 20} MB at this "
                                  "owner; let pointers go (del), or ask for more")  # fmt: skip
        space.counted += size

    def _get(self, number: int) -> Held:
        held = self.space.held.get(number)
        if held is None:
            raise UsageError("a value that this owner does not hold for you")
        return held

    def _hold(self, number: int, tensor: torch.Tensor, label: Label, made: Made) -> None:
        if type(number) is not int or number in self.space.held:
            raise WireError("a value is made once")
        if len(self.space.held) >= self.quota.values:
            raise FailedError(f"more than {self.quota.values} values are held for you; let some pointers go")
        self.space.held[number] = Held(tensor, Spec.of(tensor, label, 0), made)


def ways_out(label: Label) -> str:
    """Why a value does not come back, and what does."""
    noise = "x.release(epsilon=…) lets it leave under noise" if label.kind == "aggregate" else (
        "clamp it and sum or average over the records, then x.clamp(0, 1).mean(0).release(epsilon=…) leaves under noise"
    )  # fmt: skip
    return f"this value is {label}; {noise}, and x.request(reason=…) asks the owner for the exact value"


def _of_types(error: Exception) -> bool:
    """Whether torch has no such code for these types, whatever the values are."""
    return isinstance(error, NotImplementedError) or " not implemented for '" in str(error)


def _inherit(step: Step, whys: dict[int, str], filled: dict[int, int]) -> None:
    """Note of what a step makes, but for what is public, that what it reads is lost, or has entries that were filled."""
    why = next((whys[n] for n in step.reads if n in whys), "")
    count = sum(filled.get(n, 0) for n in step.reads)
    for number, spec in zip(step.outs, step.kind.outs, strict=True):
        if number is not None and spec is not None:
            if spec.label.kind == "public":
                whys.pop(number, None)
            elif why:
                whys.setdefault(number, why)
            if count and spec.label.kind != "public":
                filled[number] = count


def _failure(kind: Kind, error: Exception) -> str:
    return f"{kind.op} failed: {(str(error).splitlines() or [type(error).__name__])[0][:300]}"


def _nothing(spec: Spec, device: torch.device) -> torch.Tensor:
    """What stands for a value that there is none of: NaN, or 0 where a type has no NaN."""
    odd = spec.dtype.is_floating_point or spec.dtype.is_complex
    return spec.plain.filled(math.nan if odd else 0, device)


_NOTHING = Spec.of(torch.empty(0), PUBLIC)
