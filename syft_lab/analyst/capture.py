"""`lab.plan`: record a function once, send it once, run it many times with new inputs.

    @lab.plan
    def step(x, y): …               # the first call records; later ones send numbers of values, and nothing else
    step.plan.show()

What the function meets beside its arguments (a model's parameters, local tensors) is an input of the plan too, taken as it
is at each call; what it writes into (``optimizer.step()``, ``buffer.add_``) and gradients that it leaves behind are outputs.
Random numbers are drawn anew at each call. Python's numbers are constants: a function that writes is recorded twice, and if its
plan is another one then (an `Adam` counts its steps in Python: leave ``optimizer.step()`` outside), at each call, with a
warning. A function that leaves other new tensors behind, such as the momentum of its first step, is recorded again
at its next call; so is one that is given, or would meet, other things than it did (`around`).

A plan is one owner's: what is another's raises OtherOwnerError, when it is met, or when the plan runs. A recording takes what
its own thread does, and changes nothing that others see.
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from syft_lab import plans, record
from syft_lab.analyst import around
from syft_lab.analyst.pointer import PointerTensor
from syft_lab.analyst.tape import SessionTape
from syft_lab.errors import RefusedOpError, UsageError
from syft_lab.ops import find, is_random, packet
from syft_lab.plans import Mark, Node, Ref
from syft_lab.printable import printable
from syft_lab.record import Capture, How, Recorded, Storage, Tape, Value
from syft_lab.spec import Spec

KEPT = 64  # recordings of a function: of each look of its arguments one


class Plan(plans.Plan):
    """A recorded computation: ``nodes`` over ``inputs`` values, giving ``outputs``. Its digest names it."""

    def show(self) -> str:
        """The operations, one a line; in a notebook the plan itself draws them as a graph."""
        print(printable(self.text, lines=True))
        return self.digest

    def _repr_html_(self) -> str:
        from syft_lab.widgets.graph import svg

        return svg(self.inputs, self._steps(), self.outputs, self.text)

    def figure(self) -> Any:
        """The graph as a figure of Plotly, to zoom into: for large plans."""
        from syft_lab.widgets.graph import figure

        return figure(self.inputs, self._steps(), self.outputs)

    def _steps(self) -> list[tuple[str, list[int], list[int], str]]:
        return [(packet(n.op), list(plans.refs(n)), [o for o in n.outs if o is not None], plans.line(n)) for n in self.nodes]

    @classmethod
    def from_graph(cls, graph: Any) -> Plan:
        """The plan of what ``make_fx`` gives: a GraphModule of aten operations. Raises RefusedOpError for others."""
        numbers: dict[Any, Any] = {}
        inputs: list[int] = []
        nodes: list[Node] = []
        outputs: list[int] = []
        count = 0
        for node in graph.graph.nodes:
            if node.op == "placeholder":
                numbers[node] = Ref(count)
                inputs.append(count)
                count += 1
            elif node.op == "output":
                flat, _ = tree_flatten(node.args[0])
                outputs = [numbers[n].number for n in flat if n is not None]
            elif node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
                numbers[node] = numbers[node.args[0]][node.args[1]]
            elif node.op == "call_function":
                find(str(node.target))
                args = [_argument(a, numbers) for a in node.args]
                kwargs = {
                    k: _argument(v, numbers)
                    for k, v in node.kwargs.items()
                    if v is not None and k not in ("pin_memory", "layout")
                }
                if is_random(str(node.target)):
                    kwargs["seed"] = record.draw()
                value = node.meta.get("val")
                many = len(value) if isinstance(value, list | tuple) else 0
                outs = tuple(range(count, count + (many or 1)))
                count += len(outs)
                nodes.append(Node(str(node.target), tuple(args), kwargs, outs))
                numbers[node] = [Ref(o) for o in outs] if many else Ref(outs[0])
            else:
                raise RefusedOpError(f"a graph with {node.op} {node.target} holds values of its own; pass them as arguments")
        return cls.of(nodes, inputs, outputs)


def _argument(arg: Any, numbers: dict[Any, Any]) -> Any:
    if isinstance(arg, torch.fx.Node):
        return numbers[arg]
    if isinstance(arg, list | tuple):
        return [_argument(a, numbers) for a in arg]
    for kind, mark in ((torch.dtype, "t"), (torch.memory_format, "m"), (torch.layout, "l")):
        if isinstance(arg, kind):
            return Mark(mark, str(arg).removeprefix("torch."))
    return Mark("d", "owner") if isinstance(arg, torch.device) else arg


class _Met(NamedTuple):
    """A pointer of the session, what stands for it in the recording, its value there at first, and its gradient then."""

    outer: Recorded
    inner: Recorded
    first: Value | None
    grad: torch.Tensor | None


class _MetStorage(NamedTuple):
    outer: Storage
    inner: Storage
    first: Value


class Recorder(Capture):
    """See `record.Capture`. What it meets is an input of the plan; nothing of it is changed before the plan runs."""

    def __init__(self) -> None:
        super().__init__(PointerTensor)
        self.owner = "a plan"
        self.inputs: list[int] = []
        self.sources: list[tuple[str, Any]] = []  # what each input is at a call: see `_Recording._input`
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self.pointers: dict[int, _Met] = {}
        self.storages: dict[int, _MetStorage] = {}
        self._outer: dict[int, Recorded] = {}
        self.session: SessionTape | None = None

    def make(self, spec: Spec, value: Value) -> Recorded:
        """See `Tape`."""
        made = super().make(spec, value)
        self.alive.add(_ById(made))
        return made

    def given(self, kind: str, source: Any) -> Value:
        """A new input."""
        value = self.new()
        self.inputs.append(value.number)
        self.sources.append((kind, source))
        return value

    def put(self, tensor: torch.Tensor) -> Value:
        """A local tensor: it travels with each call where it changed, and once where it did not."""
        return self.given("local", tensor)

    def constant(self, tensor: torch.Tensor) -> tuple[Value, Spec]:
        """See `Tape`. The tensor itself is the source: one detached below autograd would not hear that it was written to."""
        known = len(self.sources)
        value, spec = super().constant(tensor)
        if len(self.sources) > known:
            self.sources[-1] = ("local", tensor)
        return value, spec

    def at(self, tape: Tape) -> None:
        """Note whose values the plan reads; raises OtherOwnerError for a second owner, or another session of one."""
        if not isinstance(tape, SessionTape):
            raise UsageError("this pointer belongs to another recording, which has no values")
        if self.session is None:
            self.session = tape
        elif tape is not self.session:
            raise record.apart(self.session, tape, "one plan reads")

    def argument(self, place: int, given: Recorded) -> Recorded:
        """What the function gets for an argument, with the gradient that it has."""
        self.at(given._value.tape)
        inner = self.make(given._spec.plain, self.given("argument", place))
        inner.requires_grad_(given.requires_grad)
        grad = _grad(given)
        if isinstance(grad, Recorded):
            self.at(grad._value.tape)
            inner.grad = self.make(grad._spec.plain, self.given("gradient", place))
        return inner

    def met(self, pointer: Recorded) -> Recorded | None:
        """See `Capture`."""
        known = self.pointers.get(id(pointer))
        return None if known is None else known.inner

    def inner(self, pointer: Recorded) -> Recorded:
        """See `Capture`."""
        if pointer._value.tape is self:
            return pointer
        known = self.pointers.get(id(pointer))
        if known is None:
            known = self.pointers[id(pointer)] = self._meet(pointer)
            self._outer[id(known.inner)] = pointer
        return known.inner

    def _meet(self, pointer: Recorded) -> _Met:
        self.at(pointer._value.tape)
        storage = pointer._storage
        if storage is None:
            first = self.given("pointer", pointer)
            return _Met(pointer, super().make(pointer._spec, first), first, _grad(pointer))
        known = self.storages.get(id(storage))
        if known is None:
            first = self.given("storage", storage)
            known = self.storages[id(storage)] = _MetStorage(storage, Storage(first, storage.spec), first)
        inner = super().make(pointer._spec, known.inner.value)
        inner._storage, inner._seen = known.inner, -1  # its value and its label are the storage's
        return _Met(pointer, inner, None, _grad(pointer))

    def record(self, known: How, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """See `Capture`. An operation that gives back an argument gives back the pointer that was met."""
        inner = {name: self._inside(arg) for name, arg in kwargs.items()}
        return self._outside(record.record(known, self._inside(tuple(args)), inner))

    def _inside(self, arg: Any) -> Any:
        if isinstance(arg, Recorded):
            return self.inner(arg)
        return type(arg)(self._inside(a) for a in arg) if type(arg) in (list, tuple) else arg

    def _outside(self, result: Any) -> Any:
        if isinstance(result, Recorded):
            return self._outer.get(id(result), result)
        return type(result)(self._outside(r) for r in result) if type(result) in (list, tuple) else result

    def wrote(self) -> bool:
        """Whether what it met was written to."""
        met = any(s.inner.value is not s.first for s in self.storages.values())
        return met or any(p.first is not None and p.inner.current is not p.first for p in self.pointers.values())

    def give_back(self) -> None:
        """Let pointers have the gradients again that they had: those of the recording have no values."""
        for outer, _, _, grad in self.pointers.values():
            new = _grad(outer)
            if isinstance(new, Recorded) and new._value.tape is self:
                outer.grad = grad
        self.pointers, self.storages, self._outer = {}, {}, {}


def _grad(tensor: torch.Tensor) -> torch.Tensor | None:
    """Its gradient; torch warns where one is asked of what is no leaf."""
    return tensor.grad if tensor.is_leaf else None


class _ById:
    """Tensors compare entry by entry; a set wants them by who they are."""

    def __init__(self, tensor: Recorded) -> None:
        self.tensor = weakref.ref(tensor)
        tensor._by_id = self

    def __hash__(self) -> int:
        return id(self)


_LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Captured(around.Wrapper):
    """A function under `plan`. Call it as the function; ``plan`` is its newest recording."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if any(runs_later(function) for runs_later in _LATER):
            raise UsageError("a plan is recorded while its function runs, and an async function or a generator runs after its "
                             "call; make it a plain function")  # fmt: skip
        self._function = function
        self._known: dict[Any, _Recording] = {}
        self.plan: Plan | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it at the owner of its arguments; record it first where its arguments look new. In a plan it is a part of that.

        Raises OtherOwnerError where it reads values of two owners.
        """
        if record.capture() is not None:
            return self._function(*args, **kwargs)
        flat, tree = tree_flatten((args, kwargs))
        key = (tree, torch.is_grad_enabled(), *map(around.look, flat))
        known = self._known.pop(key, None)
        near = around.near(self._function, flat)
        same = known is not None and known.fits(flat, near)
        if known is None or not same or not known.sure:
            before, known = known, _Recording(self._function, flat, tree, near, known)
            if known.stable and before is not None and before.takes(flat):
                known.sure = known.sure or (before.plan == known.plan and not known.hidden)
                if same and not known.sure and before.plan != known.plan:
                    self._changes(before.plan, known.plan)
            self.plan = known.plan
        if known.stable:
            self._known[key] = known  # the newest last
            while len(self._known) > KEPT:
                self._known.pop(next(iter(self._known)), None)
        return known.run(flat)

    def _changes(self, before: Plan, now: Plan) -> None:
        """Say that the function is another one at each call, and so is recorded each time."""
        pairs = zip(before.nodes, now.nodes, strict=False)
        changed = next((f"{plans.line(a)} became {plans.line(b)}" for a, b in pairs if a != b), "operations were added")
        name = getattr(self._function, "__name__", "this function")
        told = f"{name} records another plan at each call ({changed}), so it is recorded and sent each time"
        way = "give numbers that change as tensors, and leave optimizers that count in Python (Adam) outside"
        warnings.warn(f"{told}; {way}", stacklevel=3)

    def show(self) -> str:
        """The operations of the newest recording."""
        if self.plan is None:
            raise UsageError("nothing is recorded yet: call it once")
        return self.plan.show()


class Watch:
    """``with lab.plan() as p:`` notes what is recorded in the block, which runs as always, as ``p.plan``; ``p.show()``.

    A plan is one owner's: of a block that computes at two, ``p.plan`` raises OtherOwnerError.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._tapes: list[Tape] = []
        self._thread = 0
        self._plan: Plan | None = None

    def __call__(self, function: Callable[..., Any]) -> Captured:
        """``@lab.plan()`` is ``@lab.plan``."""
        return Captured(function)

    def __enter__(self) -> Watch:
        self._thread = threading.get_ident()
        record.watch(self._hear)
        return self

    def _hear(self, tape: Tape, node: Node) -> None:
        if self._thread != threading.get_ident():  # the block is over, or another thread has a copy of its context
            return
        if tape not in self._tapes:
            self._tapes.append(tape)
        self._nodes.append(node)

    def __exit__(self, *_: object) -> None:
        self._thread = 0
        record.unwatch(self._hear)
        if len(self._tapes) > 1:
            return
        made = {o for n in self._nodes for o in n.outs if o is not None}
        inputs = sorted({n for node in self._nodes for n in plans.refs(node)} - made)
        gone = {n for tape in self._tapes for n in tape.freed}
        self._plan = Plan.of(self._nodes, inputs, sorted(made - gone))

    @property
    def plan(self) -> Plan | None:
        """The plan of the block, once it is over. Raises OtherOwnerError where the block computed at two owners."""
        if self._thread == 0 and len(self._tapes) > 1:
            raise record.apart(self._tapes[0], self._tapes[1], "this block, which ran, is no plan: it computes")
        return self._plan

    def show(self) -> str:
        """The operations of the block, one a line."""
        if self.plan is None:
            raise UsageError("the block is not over yet")
        return self.plan.show()


def plan(function: Callable[..., Any] | None = None) -> Any:
    """Record a function of pointers once, send it once, run it many times: ``@lab.plan``; or ``with lab.plan() as p:``."""
    return Watch() if function is None else Captured(function)


class _Recording:
    """One recording of a function: the plan, where its inputs come from at each call, and where its outputs go."""

    def __init__(
        self, function: Callable[..., Any], flat: Sequence[Any], tree: Any, near: Sequence[Any],
        before: _Recording | None = None,
    ) -> None:  # fmt: skip
        tape = Recorder()
        targets = [] if before is None else [target for target, *_ in before._grad_outs]
        had = {id(t) for t in (*near, *targets) if isinstance(t, torch.Tensor) and _grad(t) is not None}
        self._surroundings = around.Surroundings(flat, near)
        arguments = [tape.argument(i, arg) if isinstance(arg, Recorded) else arg for i, arg in enumerate(flat)]
        holders = list(arguments)
        try:
            with tape.recording():
                args, kwargs = tree_unflatten(arguments, tree)
                result = function(*args, **kwargs)
                outs, self._tree = tree_flatten(result)
                own = {id(h): i for i, h in enumerate(holders) if isinstance(h, Recorded)}
                self._outs = [self._out(tape, own, out) for out in outs]
                wanted = [o[1] for o in self._outs if o[0] == "value"]
                self._args_written, self._written = self._writes(tape, holders)
                grads = self._gradients(tape, holders)
                del result, arguments, args, kwargs
                known = {id(o) for o in outs} | {id(h) for h in holders} | {id(g) for _, g in grads}
                left = [t for by in list(tape.alive) if (t := by.tensor()) is not None and id(t) not in known]
                self.stable = not left
                self._left = [(t, t.current.number) for t in left]
                self._grad_outs: list[tuple[Any, int | None, Spec | None]] = [
                    (target, None, None) if g is None else (target, g.current.number, g._spec) for target, g in grads
                ]
                # It holds while gradients that it added to are those, and while those that it found missing are missing; what
                # it took away itself, as zero_grad() does, may be there.
                met, left_on = tape.pointers.values(), {id(target) for target, _ in grads}
                self._grads_met = [(m.outer, m.grad) for m in met if m.grad is not None and id(m.grad) in tape.pointers]
                self._grads_met += [(m.outer, None) for m in met if m.grad is None and id(m.outer) in left_on - had]
                seen = {id(t) for t in near if isinstance(t, torch.Tensor)}
                seen |= {id(m.grad) for m in tape.pointers.values() if id(m.outer) in seen}
                # What it reached in a way that nobody looks into may be another pointer at the next call.
                self.hidden = any(id(m.outer) not in seen for m in tape.pointers.values())
        finally:
            tape.give_back()
        changed = [*self._written, *self._args_written, *self._grad_outs]
        wanted += [n for _, n, _ in changed if n is not None] + [n for _, n in self._left]
        self._wanted = list(dict.fromkeys(wanted))
        self.plan = Plan.of(tape.nodes, tape.inputs, self._wanted)
        self._sources = tape.sources
        if tape.session is None:
            raise UsageError("a plan computes on pointers: give it one")
        self._session: SessionTape = tape.session
        self.sure = not changed and not self.hidden  # whether it is known to be the same at each call
        self._surroundings.read([source for kind, source in self._sources if kind == "local"])

    @staticmethod
    def _out(tape: Recorder, own: Mapping[int, int], out: Any) -> tuple[str, Any, Spec | None]:
        """What an output is: an argument, a value, or what is here and stays the same."""
        if id(out) in own:
            return "argument", own[id(out)], None
        if not isinstance(out, Recorded):
            return "local", out, None
        inner = tape.inner(out)
        return "value", inner.current.number, inner._spec

    @staticmethod
    def _writes(tape: Recorder, holders: Sequence[Any]) -> tuple[list[tuple[int, int, Spec]], list[tuple[Any, int, Spec]]]:
        """What it wrote into: arguments by their place, and storages or pointers that it met, with numbers of new values."""
        first_of = {what: n for n, (kind, what) in zip(tape.inputs, tape.sources, strict=True) if kind == "argument"}
        arguments = [
            (i, h.current.number, h._spec)
            for i, h in enumerate(holders) if isinstance(h, Recorded) and h.current.number != first_of[i]
        ]  # fmt: skip
        met: list[tuple[Any, int, Spec]] = [
            (outer, inner.value.number, inner.spec)
            for outer, inner, first in tape.storages.values() if inner.value is not first
        ]  # fmt: skip
        for outer, inner, first, _ in tape.pointers.values():
            if first is not None and inner.current is not first:
                met.append((outer, inner.current.number, inner._spec.plain))
        return arguments, met

    @staticmethod
    def _gradients(tape: Recorder, holders: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Gradients that it left on what it met, and on its arguments (by their place); None where it took one away."""
        found: list[tuple[Any, Any]] = []
        for outer, *_ in tape.pointers.values():
            grad = _grad(outer)
            if isinstance(grad, Recorded) and grad._value.tape is tape:
                found.append((outer, grad))
        first_of = {what: n for n, (kind, what) in zip(tape.inputs, tape.sources, strict=True) if kind == "gradient"}
        for place, inner in enumerate(holders):
            grad = _grad(inner) if isinstance(inner, Recorded) else None
            if grad is None and place in first_of:
                found.append((place, None))
            elif isinstance(grad, Recorded):
                made = tape.inner(grad)
                if made.current.number != first_of.get(place):
                    found.append((place, made))
        return found

    def takes(self, flat: Sequence[Any]) -> bool:
        """Whether these are arguments for it: at the same live session, and the same objects where they are no pointers."""
        session = self._session
        if session.dead is not None or any(isinstance(a, Recorded) and a._value.tape is not session for a in flat):
            return False
        return self._surroundings.given(flat)

    def fits(self, flat: Sequence[Any], near: Sequence[Any]) -> bool:
        """Whether it can run now: on such arguments, and what the function would meet is what it met."""
        same = self.takes(flat) and self._surroundings.same(near)
        return same and all(_grad(target) is grad for target, grad in self._grads_met)

    def run(self, flat: Sequence[Any]) -> Any:
        """Run it, and put values where the function would have put them. Raises UsageError where that can't be said."""
        session = self._session
        self._check_memory(flat)
        inputs = [self._input(source, flat, session) for source in self._sources]
        values = dict(zip(self._wanted, session.run(self.plan, inputs), strict=True))
        for thing, number, spec in self._written:
            if isinstance(thing, Storage):
                thing.value, thing.spec = values[number], spec
                thing.version += 1
            else:
                record.write(session, thing, spec, values[number])
        for i, number, spec in self._args_written:
            record.write(session, flat[i], spec, values[number])
        for target, made, look in self._grad_outs:
            holder = flat[target] if isinstance(target, int) else target
            holder.grad = None if made is None or look is None else session.make(look, values[made])
        for tensor, number in self._left:
            tensor._value, tensor._storage, tensor._seen = values[number], None, 0
        self._left = []
        outs = [
            flat[what] if kind == "argument" else what if spec is None else session.make(spec, values[what])
            for kind, what, spec in self._outs
        ]
        return tree_unflatten(outs, self._tree)

    def _check_memory(self, flat: Sequence[Any]) -> None:
        """Raises UsageError where it writes into memory that it knows as two inputs, of which only one would change."""
        if not (self._args_written or self._written or self._grad_outs):
            return
        pointers = {i: a for i, a in enumerate(flat) if isinstance(a, Recorded)}
        memory = {i: id(a._storage or a) for i, a in pointers.items()}
        met = {id(getattr(what, "_storage", None) or what) for kind, what in self._sources if kind in ("pointer", "storage")}
        twice = len({*memory.values()}) < len(memory) or not met.isdisjoint(memory.values())
        if self._args_written and twice:
            raise UsageError("this plan writes into its arguments, and two of them share memory, or one with what the function "
                             "meets beside them; pass one, or a clone()")  # fmt: skip
        written = {id(getattr(thing, "_storage", None) or thing) for thing, _, _ in self._written}
        if not written.isdisjoint(memory.values()):
            raise UsageError("this plan writes into what shares memory with an argument; pass a clone(), or give both as one "
                             "argument")  # fmt: skip
        targets = [id(flat[t] if isinstance(t, int) else t) for t, _, _ in self._grad_outs]
        if len({*targets}) < len(targets):
            raise UsageError("this plan leaves two gradients on one tensor, which is there twice, as two arguments or as one "
                             "and beside them; pass it once")  # fmt: skip

    @staticmethod
    def _input(source: tuple[str, Any], flat: Sequence[Any], session: SessionTape) -> Value:
        """The value of an input at a call; whose it is, `SessionTape.run` compares."""
        kind, what = source
        if kind == "argument":
            return flat[what].current  # type: ignore[no-any-return]
        if kind == "gradient":
            return flat[what].grad.current  # type: ignore[no-any-return]
        if kind == "local":
            return session.constant(what)[0]
        return what.value if kind == "storage" else what.current  # type: ignore[no-any-return]
