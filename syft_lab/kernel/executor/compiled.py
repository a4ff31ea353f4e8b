"""A plan made ready to run on inputs of known look: every operation found in the table, its results' shapes and labels known,
its size and time estimated, and when each value is used for the last time."""  # noqa: D209

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch

from syft_lab import canonical, ops, plans
from syft_lab.errors import LabError, RefusedOpError, UsageError, WireError
from syft_lab.kernel.executor import each, gpu, provenance, total, unchecked
from syft_lab.plans import EACH, Body, Node, Plan, Ref, Seed
from syft_lab.spec import META, Spec, decoded, flattened, looks, of_each, of_one

MAX_KINDS = 8_192


@dataclass(eq=False)
class Kind:
    """What is known of an operation on arguments that look so (``read``). ``skeleton`` is its text, with ``%`` for values.

    It is empty where arguments may be other floats too. ``total``: torch fails on some values, where the owner does not.
    ``looks``: some of its public arguments may make it fail whatever the private ones are; ``probe`` finds that out, at less
    cost than ``call`` where there is a way. ``refusal`` says why it can't work for values of these types, once that is known.
    """

    op: str
    func: Any
    outs: tuple[Spec | None, ...]
    flops: float
    size: int  # bytes of what it makes
    random: bool
    private: bool
    grid: bool
    skeleton: str
    call: Callable[..., Sequence[Any]]
    node: Node
    read: tuple[Spec, ...]
    total: bool
    looks: bool
    probe: Callable[..., Sequence[Any]]
    refusal: str | None = None

    @cached_property
    def owns(self) -> bool:
        """Whether its results have memory of their own, which may be larger than they are: then that could tell of values."""
        views = self.func is not None and any(r.alias_info is not None for r in self.func._schema.returns)
        return self.private and not views and ops.packet(self.op) not in ops.POINTWISE

    @cached_property
    def claims(self) -> bool:
        """Whether what it makes may leave because of a label, so that this is tried before (`trial`).

        Of public values alone, what works entry by entry writes each entry, and a view none: that need not be tried.
        """
        if all(s is None or s.label.kind == "private" for s in self.outs):
            return False
        if self.func is None:
            return True
        views = any(r.alias_info is not None for r in self.func._schema.returns)
        return self.private or not (ops.packet(self.op) in ops.POINTWISE or views)

    @cached_property
    def claim(self) -> bytes:
        """What it says, as data: the operation, how its arguments look, each a value of its own, and what it makes."""
        count = iter(range(len(self.read)))

        def apart(arg: Any) -> Any:
            if type(arg) is Ref:
                return Ref(next(count))
            return [apart(a) for a in arg] if type(arg) is list else arg

        args = tuple([apart(a) for a in self.node.args])  # first: `plans.refs` counts them first
        kwargs = {k: Seed(0) if type(v) is Seed else apart(v) for k, v in self.node.kwargs.items()}
        start = len(self.read)
        numbers = iter(range(start, start + len(self.outs)))
        outs = tuple([None if spec is None else next(numbers) for spec in self.outs])
        node = Node(self.op, args, kwargs, outs)
        whole = Plan(start, (node,), tuple([n for n in outs if n is not None]))
        plan = canonical.loads(whole.canonical, limit=plans.MAX_PLAN)
        reads, made = [s.to_json() for s in self.read], [None if s is None else s.to_json() for s in self.outs]
        return canonical.dumps({"plan": plan, "reads": reads, "outs": made})


@dataclass(slots=True)
class Step:
    """One operation of a plan: where its arguments come from, and which values are used for the last time (``last``).

    ``seed`` is the place of its seed among those of a run.
    """

    kind: Kind
    node: Node
    reads: tuple[int, ...]
    outs: tuple[int | None, ...]
    fixed: list[Any]
    slots: list[tuple[int, int]]
    nested: list[tuple[int, Any]]
    named: dict[str, Any]
    seed: int | None
    skeleton: str
    last: tuple[int, ...] = ()

    def arguments(self, value: Callable[[int], Any]) -> tuple[list[Any], dict[str, Any]]:
        """Arguments as torch wants them; ``value`` gives the tensor with a number."""
        args = self.fixed.copy()
        for i, n in self.slots:
            args[i] = value(n)
        for i, template in self.nested:
            args[i] = filled(template, value)
        return args, {k: filled(v, value) for k, v in self.named.items()} if self.named else {}


@dataclass(frozen=True)
class Compiled:
    """Steps, with the most bytes and operations that they take, how many values are kept, and how many there are in all.

    ``grid`` is whether some result is an aggregate, which has a companion; ``total`` whether some operation fills in what has
    no value. ``made`` says of each output that is no input how it looks, and where in the plan it is made; ``behind`` on which
    kinds of operations, and which inputs, its label rests.
    """

    steps: tuple[Step, ...]
    bytes: int
    flops: float
    outputs: int
    values: int
    seeds: int
    grid: bool
    total: bool
    made: Mapping[int, tuple[Spec, float]]
    behind: Mapping[int, tuple[frozenset[Kind], tuple[int, ...]]]

    def texts(self, seeds: Sequence[int]) -> Iterator[tuple[str, tuple[int, ...], tuple[int | None, ...]]]:
        """Each step as `provenance.Made` has it, the values that it reads, and those that it makes."""
        for step in self.steps:
            yield text(step, seeds), step.reads, step.outs


def text(step: Step, seeds: Sequence[int]) -> str:
    """The operation of a step, with ``%`` for each value, and its seed."""
    said = step.skeleton
    return said if step.seed is None else f"{said[:-1]}, seed={seeds[step.seed]})"


def compiled(plan: Plan, specs: Sequence[Spec], device: torch.device, inside: bool = False) -> Compiled:
    """Check a plan and make it ready; raises RefusedOpError, PrivateValueError, UsageError or WireError.

    Its inputs are taken to begin where their memory does; not where it is a part of a plan, cut out from ``inside`` it.
    """
    known: dict[int, Spec] = {i: spec if inside else spec.plain for i, spec in enumerate(specs)}
    steps: list[Step] = []
    flops = 0.0
    for node in plan.nodes:
        try:
            step = _step(node, known, device)
        except KeyError:
            raise WireError(f"{node.op} reads a value that nothing makes") from None
        flops += step.kind.flops
        for number, spec in zip(step.outs, step.kind.outs, strict=True):
            if number is not None and spec is not None:
                known[number] = spec
        steps.append(step)
    wanted, used, now, peak = set(plan.outputs), set(plan.outputs), 0, 0
    for step in reversed(steps):
        made = {o for o in step.outs if o is not None}
        step.last = tuple({n for n in (*step.reads, *made) if n not in used})
        used.update(step.reads)
    sizes = {o: s.kind.size // max(1, len(s.outs)) for s in steps for o in s.outs if o is not None}
    for step in steps:
        now += step.kind.size
        peak = max(peak, now)
        now -= sum(sizes.get(n, 0) for n in step.last)
    seeds = 1 + max((s.seed for s in steps if s.seed is not None), default=-1)
    count = 1 + max((*range(plan.inputs), *(o for s in steps for o in s.outs if o is not None)), default=-1)
    placed = {
        o: (known[o], provenance.within(i, j, len(step.outs), len(steps)))
        for i, step in enumerate(steps) for j, o in enumerate(step.outs) if o is not None and o in wanted
    }  # fmt: skip
    return Compiled(
        tuple(steps), peak, flops, len(wanted), count, seeds, any(s.kind.grid for s in steps),
        any(s.kind.total or s.kind.looks for s in steps),
        placed, _behind(steps, specs, placed),
    )  # fmt: skip


def _behind(
    steps: Sequence[Step], specs: Sequence[Spec], wanted: Mapping[int, Any]
) -> dict[int, tuple[frozenset[Kind], tuple[int, ...]]]:
    """What the labels of outputs rest on (see `Compiled`). A private one rests on nothing."""
    kinds: dict[Kind, int] = {}
    rests = {i: (0, 1 << i if spec.label.kind != "private" else 0) for i, spec in enumerate(specs)}
    for step in steps:
        bits, inputs = 0, 0
        for n in step.reads:
            bits, inputs = bits | rests[n][0], inputs | rests[n][1]
        if step.kind.claims:
            bits |= 1 << kinds.setdefault(step.kind, len(kinds))
        for number, spec in zip(step.outs, step.kind.outs, strict=True):
            if number is not None and spec is not None:
                rests[number] = (0, 0) if spec.label.kind == "private" else (bits, inputs)
    order, known = list(kinds), dict[tuple[int, int], tuple[frozenset[Kind], tuple[int, ...]]]()
    for number in wanted:
        bits, inputs = rests[number]
        if rests[number] not in known:
            chosen = frozenset([kind for i, kind in enumerate(order) if bits >> i & 1])
            known[bits, inputs] = chosen, tuple([i for i in range(len(specs)) if inputs >> i & 1])
    return {number: known[rests[number]] for number in wanted}


_KINDS: dict[Any, Kind] = {}


def _step(node: Node, known: Mapping[int, Spec], device: torch.device) -> Step:
    kwargs = node.kwargs
    found = kwargs.get("seed")
    seed = found.position if type(found) is Seed else None
    loose = ops.packet(node.op) in ops.POINTWISE and all(known[n].label.kind == "public" for n in plans.refs(node))
    placed = _placed(node.op)

    def seen(number: int) -> Spec:
        return known[number] if placed else known[number].plain

    key: Any = (
        device.type,
        node.op,
        *[_key(a, seen, loose) for a in node.args],
        *[(k, _key(v, seen, loose)) for k, v in kwargs.items() if k != "seed"],
    )
    kind = _KINDS.get(key)
    if kind is None:
        if len(_KINDS) > MAX_KINDS:
            _KINDS.clear()
        kind = _KINDS[key] = _kind(node, seen, loose, device)
    if kind.random != (seed is not None):
        raise WireError("an operation that draws random numbers has a seed in its plan, and no other has")
    if len(kind.outs) != len(node.outs):
        raise WireError(f"{node.op} makes {len(kind.outs)} values")
    fixed: list[Any] = []
    slots: list[tuple[int, int]] = []
    nested: list[tuple[int, Any]] = []
    for i, arg in enumerate(node.args):
        if type(arg) is Ref:
            slots.append((i, arg.number))
            fixed.append(None)
        elif type(arg) is list and any(type(a) is Ref for a in arg):
            nested.append((i, _template(arg, device)))
            fixed.append(None)
        else:
            fixed.append(_template(arg, device))
    named = {k: _template(v, device) for k, v in kwargs.items() if k != "seed"} if kwargs else {}
    return Step(
        kind, node, tuple(plans.refs(node)), node.outs, fixed, slots, nested, named, seed, kind.skeleton or _skeleton(node)
    )


def _template(arg: Any, device: torch.device) -> Any:
    kind = type(arg)
    if kind in (int, float, bool, str, Body) or arg is None or kind is Ref:
        return arg
    return decoded(arg, Ref, device, no_constant)


def filled(arg: Any, value: Callable[[int], Any]) -> Any:
    """An argument with values in place of their numbers."""
    if type(arg) is Ref:
        return value(arg.number)
    return [filled(a, value) for a in arg] if type(arg) is list else arg


def _skeleton(node: Node) -> str:
    plain = node._replace(outs=(), kwargs={k: v for k, v in node.kwargs.items() if k != "seed"})
    return plans.line(plain, lambda n: "%").partition(" = ")[2]


@cache
def _placed(op: str) -> bool:
    return op != EACH and ops.is_placed(ops.find(op))


def _key(arg: Any, known: Callable[[int], Spec], loose: bool) -> Any:
    kind = type(arg)
    if kind is Ref:
        return known(arg.number)
    if kind is list:
        return tuple([_key(a, known, loose) for a in arg])
    if loose and kind is float:
        return float
    if kind is Body:
        return kind, arg.plan.digest
    return (kind, repr(arg)) if kind in (float, complex) else (kind, arg)  # repr tells 0.0 from -0.0, and NaN is NaN


def _kind(node: Node, known: Callable[[int], Spec], loose: bool, device: torch.device) -> Kind:
    """What an operation makes of arguments that look so, by a run on meta tensors; how it is called on ``device``."""
    if node.op == EACH:
        return _each(node, known, device)
    func = ops.find(node.op)
    _check_places(node, func)
    specs = [decoded(a, known, META, no_constant) for a in node.args]
    named = {k: decoded(v, known, META, no_constant) for k, v in node.kwargs.items() if k != "seed"}
    arguments = [a.name for a in func._schema.arguments]
    defaults = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
    try:
        unchecked.sizes(ops.packet(node.op), {**defaults, **dict(zip(arguments, specs, strict=False)), **named})
        outs, _ = looks(func, specs, named)
    except LabError:
        raise
    except Exception as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UsageError(f"{node.op}: {said[0][:300]}") from None
    read = [known(n) for n in plans.refs(node)]
    views = any(r.alias_info is not None for r in func._schema.returns)
    size = 0 if views else sum(o.nbytes for o in outs if o is not None)
    random = ops.is_random(node.op)
    floats = any(type(a) is float for a in (*node.args, *node.kwargs.values()))
    call = _caller(node.op, func, random, specs, outs, device)
    if ops.packet(node.op) == "gather":
        call = unchecked.long_places(arguments, call)
    if ops.packet(node.op) in unchecked.PLACES:
        call = unchecked.looked(ops.packet(node.op), arguments, call)
    if device.type == "cuda":
        call = gpu.fitted(node.op, func, call, device)
    if ops.packet(node.op) in total.INFO:
        call = total.informed(ops.packet(node.op), arguments, call)
    if ops.packet(node.op) == "linalg_eig":
        call = total.tamed(arguments, call)
    given = {**dict(zip(arguments, specs, strict=False)), **named}
    made_total = total.is_made(node.op, given)
    if made_total:
        call = total.made(node.op, call, arguments, frozenset(n for n, s in given.items() if _private(s)))
    return Kind(
        node.op, func, tuple(outs), _flops(node.op, read, outs), size, random, any(s.label.kind != "public" for s in read),
        any(o is not None and o.label.kind == "aggregate" for o in outs),
        "" if loose and floats else _skeleton(node), call, node, tuple(read), made_total, _looks(node.op, read, outs), call,
    )  # fmt: skip


def _each(node: Node, known: Callable[[int], Spec], device: torch.device) -> Kind:
    """A program of one record, for each; see `each`. Raises WireError, or RefusedOpError for what can't be mapped."""
    try:
        body, flags, refs = node.args
        read = [known(ref.number) for ref in refs]
        fits = type(body) is Body and {*map(type, flags)} <= {int} and {*flags} <= {0, -1}
    except (TypeError, ValueError, AttributeError):
        fits = False
    if not fits or node.kwargs or len(flags) != len(refs) or body.plan.inputs != len(refs) or 0 not in flags:
        raise WireError("what is run for each record is a plan, which of its inputs are mapped (0, or -1), and as many values")
    of_each(read, flags, ())  # as many records in each
    inner = [of_one(spec) if flag == 0 else spec.plain for spec, flag in zip(read, flags, strict=True)]
    ready = compiled(body.plan, inner, device)
    for step in ready.steps:
        if step.kind.random:
            raise RefusedOpError(f"{step.kind.op} draws random numbers, for which no record has a seed of its own; draw before")
        if _placed(step.kind.op) and "as_strided" in step.kind.op:
            raise RefusedOpError(f"{step.kind.op} goes by places in memory, and a record has none of its own")
    looks_of = {**dict(enumerate(inner)), **{number: spec for number, (spec, _) in ready.made.items()}}
    outs = of_each(read, flags, [looks_of[number] for number in body.plan.outputs])
    count = next(spec.shape[0] for spec, flag in zip(read, flags, strict=True) if flag == 0)

    names = [[a.name for a in step.kind.func._schema.arguments] for step in ready.steps]
    calls = [total.guarded(step.kind.op, names[i], step.kind.call) for i, step in enumerate(ready.steps)]

    def program(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The results, and whether torch would have failed on a value."""
        failures: list[torch.Tensor] = []
        held = dict(enumerate(values))
        for step, call in zip(ready.steps, calls, strict=True):
            for number, value in zip(step.outs, call(*step.arguments(held.__getitem__), failures), strict=True):
                if number is not None:
                    held[number] = value
        failed = functools.reduce(torch.logical_or, failures, values[0].new_zeros((), dtype=torch.bool))
        return (*[held[number] for number in body.plan.outputs], failed)

    run, one = each.mapped(program, flags)

    def call(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        return run(*args[2])

    def probe(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        return one(*args[2])

    size = sum(o.nbytes for o in outs) + count * ready.bytes
    private = any(s.label.kind != "public" for s in read)
    return Kind(
        node.op,
        None,
        tuple(outs),
        count * ready.flops,
        size,
        False,
        private,
        False,
        _skeleton(node),
        call,
        node,
        tuple(read),
        True,
        private,
        probe,
    )


def _looks(op: str, read: Sequence[Spec], outs: Sequence[Spec | None]) -> bool:
    """Whether a record's result exists or not by the public arguments alone, which torch looks at."""
    kept = any(s is not None and s.label.kind in ("rows", "aggregate") for s in outs)
    both = {s.label.kind == "public" for s in read} == {True, False}
    return kept and both and ops.packet(op) in total.LOOKED_AT


def _private(arg: Any) -> bool:
    return type(arg) is Spec and arg.label.kind != "public"


def _check_places(node: Node, func: Any) -> None:
    """Raises RefusedOpError where a value stands for a number, which torch would take out of the tensor, or a truth for a
    whole number, which torch would count: labels are about what is written."""  # noqa: D209
    places = {a.name: str(a.type) for a in func._schema.arguments}
    given = [*zip(places.values(), node.args, strict=False), *((places.get(k, ""), v) for k, v in node.kwargs.items())]
    for kind, arg in given:
        if "Tensor" not in kind and any(True for _ in plans._refs(arg)):
            raise RefusedOpError(f"{node.op} takes a number there, and a value is none; use the form that takes tensors")
        if "int" in kind.lower() and (arg is True or arg is False or (type(arg) is list and any(type(a) is bool for a in arg))):
            raise RefusedOpError(f"{node.op} takes a whole number there, not true or false")


def _caller(
    op: str, func: Any, random: bool, specs: Sequence[Any], outs: Sequence[Spec | None], device: torch.device
) -> Callable[..., Sequence[Any]]:
    """How to call it: with its seed, memory that nobody filled as zeros, also between entries, and places in memory counted
    from where a value is thought to begin. Gives its results in a row."""  # noqa: D209
    name = ops.packet(op)

    def plainly(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        found = func(*args, **kwargs)
        return (found,) if isinstance(found, torch.Tensor) else list(flattened(found))

    def shifted(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        by = args[0].storage_offset() - specs[0].offset
        if len(args) > at and args[at] is not None:
            args[at] += by
        elif kwargs.get("storage_offset") is not None:
            kwargs["storage_offset"] += by
        return plainly(args, kwargs, seed)

    at = 4 if "scatter" in name else 3  # of as_strided's place
    if name.startswith("as_strided") and "backward" not in name:
        return shifted

    def zeroed(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        return [None if spec is None else spec.filled(0, device) for spec in outs]

    def closed(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        found = call(args, kwargs, seed)
        return [t if s is None or not s.gaps else laid_out(t, s) for t, s in zip(found, outs, strict=True)]

    def seeded(args: list[Any], kwargs: dict[str, Any], seed: int | None) -> Sequence[Any]:
        state = torch.get_rng_state()
        torch.manual_seed(seed or 0)
        try:
            return plainly(args, kwargs, seed)
        finally:
            torch.set_rng_state(state)

    if name.startswith(("empty", "new_empty")):
        return zeroed
    views = any(r.alias_info is not None for r in func._schema.returns)
    call = seeded if random else plainly
    return closed if not views and any(spec is not None and spec.gaps for spec in outs) else call


def laid_out(tensor: torch.Tensor, spec: Spec) -> torch.Tensor:
    """A tensor as ``spec`` says, in memory of its own that holds zeros where no entry is."""
    found = spec.plain.filled(0, tensor.device)
    found[tuple([slice(0, 1) if s == 0 else slice(None) for s in spec.stride])] = tensor[
        tuple([slice(0, 1) if s == 0 else slice(None) for s in spec.stride])
    ]
    return found


def _flops(op: str, read: Sequence[Spec], outs: Sequence[Spec | None]) -> float:
    """A rough count of operations: products for matrices and convolutions, entries for everything else."""
    out = sum(math.prod(o.shape) for o in outs if o is not None)
    name = ops.packet(op)
    if name in ops.LINEAR and read:
        return 2.0 * out * max(s.shape[-1] if s.shape else 1 for s in read)
    if name.startswith("convolution") and len(read) > 1:
        weight = read[-1].shape if name == "convolution_backward" else read[1].shape
        return 2.0 * out * math.prod(weight[1:])
    return float(out)


def no_constant(position: int) -> Any:
    """Constants travel as values."""
    raise RefusedOpError("constants travel as values")
