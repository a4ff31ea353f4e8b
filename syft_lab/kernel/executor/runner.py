"""Runs plans: the values of one analyst's session, by number. In a child of the owner's kernel, or within a virtual owner.

What a plan may do is decided here, by the table of `ops`, whatever the analyst's side thought. Each operation's sizes are
known before it runs (a run on meta tensors, cached) and held to quotas; each value has a label (`labels`). An operation that
fails on public values says why. One that fails on private values must not show that to the analyst, for whether it
failed would be an exact answer about private data: its results are *lost* in silence, and the owner sees why.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from syft_lab import ops, plans, record
from syft_lab.errors import FailedError, LabError, PrivateValueError, RefusedOpError, UsageError, WireError
from syft_lab.kernel.executor import grid
from syft_lab.labels import PUBLIC, Label
from syft_lab.plans import Node, Plan
from syft_lab.record import Spec

MAX_VALUES, MAX_HISTORY, PLANS, FLOPS_A_SECOND = 200_000, 20_000, 64, 2e9
LINES = 400
_EMPTY = {"empty": "zeros", "empty_like": "zeros_like", "new_empty": "new_zeros"}


@dataclass(slots=True)
class Made:
    """How a value came to be; cut off from its past when the past grows long."""

    op: str
    line: Node | None
    past: tuple[Made, ...]
    digest: bytes
    out: int = 0
    at: int = field(default_factory=itertools.count().__next__)


@dataclass(slots=True)
class Held:
    """A value: a tensor (None where it was lost, then ``why``), what is known of it, and how it was made."""

    tensor: torch.Tensor | None
    spec: Spec
    made: Made
    grid: grid.Grid | None = None
    why: str = ""


@dataclass
class Quota:
    """Bytes, seconds for one plan, and values that a session may hold."""

    memory: int = 4 << 30
    seconds: float = 600.0
    values: int = MAX_VALUES


@dataclass
class Space:
    """The values of one session."""

    held: dict[int, Held] = field(default_factory=dict)
    by_digest: dict[bytes, int] = field(default_factory=dict)
    plans: OrderedDict[str, Plan] = field(default_factory=OrderedDict)
    history: deque[Made] = field(default_factory=deque)
    partial: dict[int, tuple[torch.Tensor, int]] = field(default_factory=dict)
    ran: int = 0


class Runner:
    """Holds and computes values for one session. ``device`` is where."""

    def __init__(self, device: str = "cpu", quota: Quota | None = None) -> None:
        self.device, self.quota, self.space = torch.device(device), quota or Quota(), Space()

    # What comes in

    def load(self, number: int, tensor: torch.Tensor, label: Mapping[str, Any], name: str) -> None:
        """Take in a published tensor, with the label that the owner gives it."""
        bounds = label["bounds"]
        known = Label(
            label["kind"],
            tuple(label["sources"]),
            label["axis"],
            label["k"],
            None if bounds is None else (bounds[0], bounds[1]),
        )
        self._hold(number, tensor.to(self.device), known, Made(f"dataset {name}", None, (), _digest(f"dataset {name}")))

    def put(self, number: int, dtype: str, shape: Sequence[int], start: int, data: bytes | memoryview) -> None:
        """Take in a part of a tensor from the analyst: bytes from ``start`` on, in order."""
        kind = record.DTYPES.get(dtype)
        if kind is None or len(shape) > 64 or not all(type(n) is int and n >= 0 for n in shape):
            raise WireError("a tensor that comes in has a dtype and a shape that pointers have")
        size, part = math.prod(shape) * kind.itemsize, memoryview(data).cast("B")
        if start == 0:
            self._room(size)
            self.space.partial[number] = (torch.empty(size, dtype=torch.uint8), 0)
        whole, at = self.space.partial.get(number, (None, -1))
        if whole is None or at != start or start + part.nbytes > size or whole.numel() != size:
            raise WireError("a part of a tensor came out of order")
        if part.nbytes:
            whole.numpy()[start : start + part.nbytes] = np.frombuffer(part, np.uint8)
        self.space.partial[number] = (whole, start + part.nbytes)
        if start + part.nbytes == size:
            del self.space.partial[number]
            if kind is torch.bool and size and int(whole.max()) > 1:
                raise WireError("a boolean is neither true nor false")
            digest = hashlib.sha256(whole.numpy().tobytes() if size < 1 << 16 else memoryview(whole.numpy())).hexdigest()[:32]
            about = f"constant {dtype}{list(shape)} {digest}"
            tensor = whole.view(kind).reshape(tuple(shape)) if size else torch.empty(tuple(shape), dtype=kind)
            self._hold(number, tensor.to(self.device), PUBLIC, Made(about, None, (), _digest(about)))

    # Plans

    def run(self, given: bytes | str, inputs: Sequence[int], outputs: Sequence[int], free: Sequence[int]) -> dict[str, Any]:
        """Run a plan (its canonical form, or the digest of one that came before) on held values; keep what is asked for.

        Gives what became of it: {"lost": why} for outputs that failed on public values alone.
        """
        found = self._plan(given)
        if len(inputs) != found.inputs or len(outputs) != len(found.outputs) or len({*outputs}) != len(outputs):
            raise WireError("a plan is run with as many inputs and outputs as it has")
        if any(type(o) is not int or o in self.space.held or o in self.space.partial for o in outputs):
            raise WireError("a value is made once")
        values: dict[int, Held] = {}
        for local, number in enumerate(inputs):
            values[local] = self._get(number)
        last = {}
        for i, node in enumerate(found.nodes):
            for n in plans.refs(node):
                last[n] = i
        lost = ""
        try:
            made = self._compute(found, values)
        except LabError as error:  # it tells nothing that the analyst does not know: sizes, times, and public values
            lost = str(error)
            broke = Made("a plan that failed", None, (), _digest(f"failed {secrets.token_hex(16)}"))
            made = {n: Held(None, _NOTHING, broke, why=lost) for n in found.outputs}
        for local, number in zip(found.outputs, outputs, strict=True):
            self.space.held[number] = made[local]
            self.space.by_digest[made[local].made.digest] = number
        self.free(free)
        return {"lost": lost}

    def _compute(self, found: Plan, values: dict[int, Held]) -> dict[int, Held]:
        """The outputs of a plan; raises an error of public values, sizes or times."""
        if len(self.space.held) + len(found.outputs) > self.quota.values:
            raise FailedError(f"more than {self.quota.values} values would be held for you; let some pointers go")
        keep, last = set(found.outputs), {}
        for i, node in enumerate(found.nodes):
            for n in plans.refs(node):
                last[n] = i
        spent, deadline = 0.0, time.monotonic() + self.quota.seconds
        for i, node in enumerate(found.nodes):
            made, flops = self._step(node, values)
            spent += flops
            if spent / FLOPS_A_SECOND > self.quota.seconds or time.monotonic() > deadline:
                raise FailedError(
                    f"this plan takes longer than the {self.quota.seconds:g} s that you may use at a time; split it"
                )
            for out, held in zip(node.outs, made, strict=True):
                if out is not None:
                    values[out] = held
            for n in {*plans.refs(node)}:
                if last[n] == i and n not in keep:
                    values.pop(n, None)
        self.space.ran += len(found.nodes)
        return values

    def free(self, numbers: Sequence[int]) -> None:
        """Forget values."""
        for number in numbers:
            held = self.space.held.pop(number, None)
            if held is not None and self.space.by_digest.get(held.made.digest) == number:
                del self.space.by_digest[held.made.digest]
            self.space.partial.pop(number, None)

    def _plan(self, given: bytes | str) -> Plan:
        known = self.space.plans
        if isinstance(given, str):
            if given not in known:
                raise UsageError("this plan is not known here; send it whole")
            known.move_to_end(given)
            return known[given]
        digest = "sha256:" + hashlib.sha256(given).hexdigest()
        if digest not in known:
            known[digest] = plans.parse(given)
            while len(known) > PLANS:
                known.popitem(last=False)
        return known[digest]

    def _step(self, node: Node, values: Mapping[int, Held]) -> tuple[list[Held], float]:
        """Check and run one node."""
        func = ops.find(node.op)
        read = [values[n] for n in plans.refs(node)]
        kwargs = dict(node.kwargs)
        seed = kwargs.pop("seed", None)
        random = ops.is_random(node.op)
        if random and type(seed) is not int:
            raise WireError("an operation that draws random numbers has a seed in its plan")
        lost = next((h for h in read if h.tensor is None), None)

        def spec(n: int) -> Spec:
            return values[n].spec

        specs = [record.decoded(a, spec, torch.device("meta"), _no_constant) for a in node.args]
        named = {k: record.decoded(v, spec, torch.device("meta"), _no_constant) for k, v in kwargs.items()}
        outs = self._known(node.op, func, specs, named)
        if len(outs) != len(node.outs):
            raise WireError(f"{node.op} makes {len(outs)} values")
        private = any(h.spec.label.kind != "public" for h in read)
        nodes = self._made(node, [h.made for h in read], len(outs))
        if lost is not None:  # and silently so, where it was in private data
            return [Held(None, o or _NOTHING, m, why=lost.why) for o, m in zip(outs, nodes, strict=True)], 0.0
        if not random and len(outs) == 1 and outs[0] is not None:
            same = self.space.by_digest.get(nodes[0].digest)
            if same is not None:
                return [self.space.held[same]], 0.0
        size = sum(o.nbytes for o in outs if o is not None)
        if size > 1 << 20:
            self._room(size)
        flops = _flops(node.op, read, outs)

        def tensor(n: int) -> torch.Tensor:
            found = values[n].tensor
            assert found is not None  # noqa: S101 - `lost` above
            return found

        args = [record.decoded(a, tensor, self.device, _no_constant) for a in node.args]
        given = {k: record.decoded(v, tensor, self.device, _no_constant) for k, v in kwargs.items()}
        try:
            result = self._call(node.op, func, args, given, seed)
        except torch.OutOfMemoryError:
            raise FailedError("the owner's device has not enough memory for this plan") from None
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            if not private:
                raise FailedError(f"{node.op}: {str(error).splitlines()[0][:300]}") from None
            why = f"{node.op} failed: {str(error).splitlines()[0][:300]}"
            return [Held(None, o or _NOTHING, m, why=why) for o, m in zip(outs, nodes, strict=True)], flops
        flat = list(record._flat(result))
        held = [
            Held(
                None if o is None else _laid_out(t, o),
                o or _NOTHING,
                m,
                None if o is None else self._grid(node, values, o, read),
            )
            for t, o, m in zip(flat, outs, nodes, strict=True)
        ]
        return held, flops

    def _known(self, op: str, func: Any, specs: Sequence[Any], named: Mapping[str, Any]) -> list[Spec | None]:
        known = record.How(op, func, False, False, False, None)
        try:
            key: Any = (func, *map(record._key, specs), *((k, record._key(v)) for k, v in named.items()))
            found = record._CACHE.get(key)
        except TypeError:
            key = found = None
        if found is None:
            try:
                found = record._known(known, specs, named)
            except LabError:
                raise
            except Exception as error:
                raise UsageError(f"{op}: {str(error).splitlines()[0][:300] if str(error) else type(error).__name__}") from None
            if key is not None:
                record._CACHE[key] = found
        return found[0]

    def _call(self, op: str, func: Any, args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Any:
        name = ops.packet(op)
        with torch.no_grad():
            if seed is not None:
                state = torch.get_rng_state()
                torch.manual_seed(seed)
                try:
                    return func(*args, **kwargs)
                finally:
                    torch.set_rng_state(state)
            if name.startswith(("empty", "new_empty")):
                return func(*args, **kwargs).zero_()  # what lay in memory is nobody's business
            return func(*args, **kwargs)

    def _grid(self, node: Node, values: Mapping[int, Held], out: Spec, read: Sequence[Held]) -> grid.Grid | None:
        """The exact companion of an aggregate."""
        if out.label.kind != "aggregate":
            return None
        name = ops.packet(node.op)
        held = next(h for h in read if h.spec.label.kind != "public")
        if held.spec.label.kind == "rows":
            x, label = held.tensor, held.spec.label
            bounds = (0.0, 1.0) if held.spec.boolean else label.bounds
            if x is None or bounds is None:
                return None
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            dims = (
                list(range(x.dim()))
                if dims is None or dims == []
                else [d % x.dim() for d in (dims if isinstance(dims, list) else [dims])]
            )
            keep = bool(node.args[2] if len(node.args) > 2 else node.kwargs.get("keepdim", False))
            return grid.summed(x, bounds, dims, label.axis, label.k, name == "mean", keep)
        return self._scaled(name, node, held.grid, values)

    def _scaled(self, name: str, node: Node, of: grid.Grid | None, values: Mapping[int, Held]) -> grid.Grid | None:
        """The companion of an aggregate after a linear step; None drops the promise, and with it the label's use."""
        if of is None:
            return None
        other: Any = node.args[1] if len(node.args) > 1 else None
        if name in ("neg", "negative"):
            return of.scaled(-1, 0)
        if name in ("add", "sub"):
            return of.scaled(1, other if name == "add" else -other)
        if name in ("mul", "div"):
            return of.scaled(other if name == "mul" else 1 / other, 0)
        if name in ("clone", "detach", "alias", "positive", "lift_fresh"):
            return of
        func = ops.find(node.op)
        args = [record.decoded(a, lambda n: of.ints, self.device, _no_constant) for a in node.args]
        return of.shaped(lambda ints: func(*args))

    # What is there, and what may go out

    def describe(self, number: int) -> dict[str, Any]:
        """What is known of a value, and how it was made; for the owner."""
        held = self._get(number)
        spec = held.spec
        return {"shape": list(spec.shape), "dtype": str(spec.dtype).removeprefix("torch."), "label": spec.label.to_json(),
                "said": str(spec.label), "digest": held.made.digest.hex(), "text": self.story(number),
                "code": self.story(number, code=True), "lost": held.why}  # fmt: skip

    def fetch(self, number: int, start: int, length: int, private: bool = False) -> bytes:
        """Bytes of a value. Without ``private`` (the owner's decision) a public one only; raises PrivateValueError."""
        held = self._get(number)
        if not private and held.spec.label.kind != "public":
            raise PrivateValueError(ways_out(held.spec.label))
        if held.tensor is None:
            raise FailedError(held.why if held.spec.label.kind == "public" or private else "this value could not be computed")
        flat = held.tensor.detach().resolve_conj().resolve_neg().contiguous().cpu().reshape(-1).view(torch.uint8)
        return bytes(memoryview(flat[start : start + length].numpy()))

    def aggregate(self, number: int) -> dict[str, Any]:
        """The integers of an aggregate and what one person moves them by, for a release under noise."""
        held = self._get(number)
        if held.spec.label.kind != "aggregate" or held.grid is None:
            raise PrivateValueError(f"only an aggregate can be released under noise, and this is {held.spec.label}; clamp, "
                                    "then sum or mean over the records: x.clamp(0, 1).mean(0).release(epsilon=…)")  # fmt: skip
        g = held.grid
        return {"ints": g.ints.cpu().reshape(-1).tolist(), "step": g.step, "offset": g.offset, "l1": g.l1, "l2": g.l2,
                **self.describe(number)}  # fmt: skip

    def story(self, number: int, code: bool = False) -> str:
        """The operations that a value came from, oldest first, as far back as is kept; as Python where it is ``code``."""
        order: dict[int, Made] = {}
        todo, seen = [self._get(number).made], set()
        while todo and len(order) < LINES:
            each = todo.pop()
            if id(each) not in seen:
                seen.add(id(each))
                order[id(each)] = each
                todo += each.past
        made = sorted(order.values(), key=lambda m: m.at)
        names = {id(m): f"v{i}" if code else f"%{i}" for i, m in enumerate(made)}
        lines = []
        for m in made:
            if m.line is None:
                lines.append(f"{names[id(m)]} = given({m.op!r})" if code else f"{names[id(m)]} = {m.op}")
                continue
            told = iter([names.get(id(p), "earlier") for p in m.past])
            args = plans.line(m.line, lambda n: "%").partition(" = ")[2]
            text = "".join(next(told, "earlier") if c == "%" else c for c in args)
            lines.append(f"{names[id(m)]} = {text}{f'[{m.out}]' if len(m.line.outs) > 1 else ''}")
        return "\n".join([*lines, f"value = {names[id(made[-1])]}"] if code else lines)

    def stats(self) -> dict[str, int]:
        """How much is held."""
        return {"values": len(self.space.held), "bytes": self.bytes(), "ran": self.space.ran}

    def bytes(self) -> int:
        """Bytes of memory that values hold; views count once."""
        seen: dict[int, int] = {}
        partial = sum(int(w.nbytes) for w, _ in self.space.partial.values())
        for held in self.space.held.values():
            if held.tensor is not None:
                storage = held.tensor.untyped_storage()
                seen[storage.data_ptr()] = storage.nbytes()
        return sum(seen.values()) + partial

    def _room(self, size: int) -> None:
        if self.bytes() + size > self.quota.memory:
            raise FailedError(f"this needs {size >> 20} MB more, you hold {self.bytes() >> 20} of {self.quota.memory >> 20} "
                              "MB at this owner; let pointers go (del), or ask for more")  # fmt: skip

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

    def _made(self, node: Node, past: Sequence[Made], count: int) -> list[Made]:
        told = iter([m.digest.hex() for m in past])
        text = "".join(next(told, "?") if c == "%" else c for c in plans.line(node._replace(outs=()), lambda n: "%"))
        made = []
        for i in range(count):
            each = Made(node.op, node, tuple(past), _digest(f"{text} #{i}"), i)
            self.space.history.append(each)
            made.append(each)
        while len(self.space.history) > MAX_HISTORY:
            old = self.space.history.popleft()
            old.past, old.line, old.op = (), None, f"earlier steps, {old.digest.hex()[:16]}"
        return made


def ways_out(label: Label) -> str:
    """Why a value does not come back, and what does."""
    noise = "x.release(epsilon=…) lets it leave under noise" if label.kind == "aggregate" else (
        "clamp it and sum or average over the records, then x.clamp(0, 1).mean(0).release(epsilon=…) leaves under noise"
    )  # fmt: skip
    return f"this value is {label}; {noise}, and x.request(reason=…) asks the owner for the exact value"


def _no_constant(position: int) -> Any:
    raise RefusedOpError("constants travel as values")


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _laid_out(t: torch.Tensor, spec: Spec) -> torch.Tensor:
    """With the strides that both sides count on; kernels of some devices choose others."""
    if t.stride() == spec.stride or t.numel() == 0:
        return t
    return torch.empty_strided(spec.shape, spec.stride, dtype=t.dtype, device=t.device).copy_(t)


_NOTHING = Spec.of(torch.empty(0), PUBLIC)


def _flops(op: str, read: Sequence[Held], outs: Sequence[Spec | None]) -> float:
    """A rough count of operations: products for matrices and convolutions, entries for everything else."""
    out = sum(math.prod(o.shape) for o in outs if o is not None)
    name = ops.packet(op)
    if name in ops.LINEAR and read:
        return 2.0 * out * max(h.spec.shape[-1] if h.spec.shape else 1 for h in read)
    if name.startswith("convolution") and len(read) > 1:
        weight = read[-1].spec.shape if name == "convolution_backward" else read[1].spec.shape
        return 2.0 * out * math.prod(weight[1:])
    return float(out)
