"""`lab.plan`: record a function once, send it once, run it many times with new inputs.

    @lab.plan
    def step(x, y): …               # the first call records; later ones send numbers of values, and nothing else
    step.plan.show()

What the function meets beside its arguments (a model's parameters, local tensors) is an input of the plan too, taken as it
is at each call; what it writes into (``optimizer.step()``, ``buffer.add_``) and gradients that it leaves behind are outputs.
Random numbers are drawn anew at each call. Python's numbers are constants: a function that writes is recorded twice, and if its
plan is another one then (an `Adam` counts its steps in Python: leave ``optimizer.step()`` outside), at each call, with a
warning. A function that leaves other new tensors behind, such as the momentum of its first step, is recorded again
at its next call.
"""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from syft_lab import plans, record
from syft_lab.analyst.pointer import PointerTensor
from syft_lab.analyst.tape import SessionTape
from syft_lab.errors import RefusedOpError, UsageError
from syft_lab.ops import find, is_random, packet
from syft_lab.plans import Mark, Node, Ref
from syft_lab.record import Recorded, Storage, Tape, Value
from syft_lab.spec import Spec


class Plan(plans.Plan):
    """A recorded computation: ``nodes`` over ``inputs`` values, giving ``outputs``. Its digest names it."""

    def show(self) -> str:
        """The operations, one a line; in a notebook the plan itself draws them as a graph."""
        print(self.text)
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


class _Capture(Tape):
    """The tape of a function that is recorded. What it meets is lifted: it becomes an input, until the recording ends."""

    def __init__(self) -> None:
        super().__init__(PointerTensor)
        self.owner = "a plan"
        self.inputs: list[int] = []
        self.sources: list[
            Any
        ] = []  # what each input is at a call: an argument's position, a storage, a pointer, a local tensor
        self.alive: weakref.WeakSet[Any] = weakref.WeakSet()
        self._undo: list[tuple[Any, str, Any]] = []
        self._storages: dict[int, Storage] = {}
        self.lifted: list[tuple[Any, Value]] = []  # storage or pointer, and its value at the beginning
        self.session: SessionTape | None = None

    def make(self, spec: Spec, value: Value) -> Recorded:
        made = super().make(spec, value)
        self.alive.add(_ById(made))
        return made

    def given(self, source: Any) -> Value:
        """A new input."""
        value = self.new()
        self.inputs.append(value.number)
        self.sources.append(source)
        return value

    def put(self, tensor: torch.Tensor) -> Value:
        """A local tensor: it travels with each call where it changed, and once where it did not."""
        return self.given(("local", tensor))

    def lift(self, pointer: Recorded) -> None:
        """Take in a pointer of a session."""
        tape = pointer._value.tape
        if not isinstance(tape, SessionTape) or (self.session is not None and tape is not self.session):
            record._tape_of([pointer, *(s[1] for s in self.sources[:1] if isinstance(s[1], Recorded))], {})
            raise UsageError("a plan computes at one owner; this pointer is at another, or of an earlier session")
        self.session = tape
        pointer.current  # noqa: B018 - what waits to be read from its storage is recorded on its own tape
        storage = pointer._storage
        self._undo += [
            (pointer, "_value", pointer._value),
            (pointer, "_seen", pointer._seen),
            (pointer, "_spec", pointer._spec),
        ]
        if storage is None:
            self.lifted.append((pointer, self.given(("pointer", pointer))))
            pointer._value = self.lifted[-1][1]
            return
        if id(storage) not in self._storages:
            self._storages[id(storage)] = storage
            self._undo += [
                (storage, "value", storage.value),
                (storage, "version", storage.version),
                (storage, "spec", storage.spec),
            ]
            self.lifted.append((storage, self.given(("storage", storage))))
            storage.value = self.lifted[-1][1]
        whole = storage.spec
        if (whole.shape, whole.stride, whole.offset) == (pointer._spec.shape, pointer._spec.stride, pointer._spec.offset):
            pointer._value = storage.value
        else:
            pointer._value, pointer._seen = storage.value, -1
            pointer.current  # noqa: B018

    def undo(self) -> None:
        """Put back what was lifted, as it was."""
        for thing, name, old in reversed(self._undo):
            setattr(thing, name, old)


class _ById:
    """Tensors compare entry by entry; a set wants them by who they are."""

    def __init__(self, tensor: Recorded) -> None:
        self.tensor = weakref.ref(tensor)
        tensor._by_id = self

    def __hash__(self) -> int:
        return id(self)


class Captured:
    """A function under `plan`. Call it as the function; ``plan`` is its newest recording."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._known: dict[Any, _Recording] = {}
        self.plan: Plan | None = None
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it at the owner of its arguments; record it first where its arguments look new."""
        flat, tree = tree_flatten((args, kwargs))
        key = (
            tree,
            *(
                (a._spec.plain, a.requires_grad)
                if isinstance(a, Recorded)
                else a
                if isinstance(a, int | float | str | bool)
                else type(a)
                for a in flat
            ),
        )
        known = self._known.get(key)
        if known is None or not known.fits(flat) or not known.sure:
            before, known = known, _Recording(self._function, flat, tree)
            if known.stable:
                self._known[key] = known
                if before is not None and before.fits(flat):
                    known.sure = before.plan == known.plan
                    if not known.sure:
                        self._changes(before.plan, known.plan)
            self.plan = known.plan
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
    """``with lab.plan() as p:`` notes what is recorded in the block, which runs as always, as ``p.plan``; ``p.show()``."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._tape: Tape | None = None
        self.plan: Plan | None = None

    def __call__(self, function: Callable[..., Any]) -> Captured:
        """``@lab.plan()`` is ``@lab.plan``."""
        return Captured(function)

    def __enter__(self) -> Watch:
        record.watching.append(self._hear)
        return self

    def _hear(self, tape: Tape, node: Node) -> None:
        if self._tape is None:
            self._tape = tape
        if tape is self._tape:
            self._nodes.append(node)

    def __exit__(self, *_: object) -> None:
        record.watching.remove(self._hear)
        made = {o for n in self._nodes for o in n.outs if o is not None}
        inputs = sorted({n for node in self._nodes for n in plans.refs(node)} - made)
        gone = set(self._tape.freed) if self._tape is not None else set()
        self.plan = Plan.of(self._nodes, inputs, sorted(made - gone))

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

    def __init__(self, function: Callable[..., Any], flat: Sequence[Any], tree: Any) -> None:
        tape = _Capture()
        arguments: list[Any] = []
        for i, arg in enumerate(flat):
            if isinstance(arg, Recorded):
                if tape.session is None and isinstance(arg._value.tape, SessionTape):
                    tape.session = arg._value.tape
                inner = tape.make(arg._spec.plain, tape.given(("argument", i))).requires_grad_(arg.requires_grad)
                arguments.append(inner)
            else:
                arguments.append(arg)
        holders = list(arguments)
        record._capturing.append(tape)
        try:
            args, kwargs = tree_unflatten(arguments, tree)
            result = function(*args, **kwargs)
            outs, self._tree = tree_flatten(result)
            for out in outs:
                if isinstance(out, Recorded) and out._value.tape is not tape:
                    tape.lift(out)
            own = {id(h): i for i, h in enumerate(holders) if isinstance(h, Recorded)}
            self._outs = [
                ("argument", own[id(o)], None) if id(o) in own
                else ("value", o.current.number, o._spec) if isinstance(o, Recorded) else ("local", o, None) for o in outs
            ]  # fmt: skip
            wanted = [o[1] for o in self._outs if o[0] == "value"]
            self._args_written, self._written = self._writes(tape, holders)
            self._grads = self._gradients(tape, flat, holders)
            del result, arguments, args, kwargs
            known = {id(o) for o in outs} | {id(h) for h in holders} | {id(g) for _, g in self._grads}
            left = [t for by in list(tape.alive) if (t := by.tensor()) is not None and id(t) not in known]
            self.stable = not left
            self._left = [(t, t.current.number) for t in left]
            self._grad_outs = [(target, g.current.number, g._spec) for target, g in self._grads]
        finally:
            record._capturing.pop()
            tape.undo()
        changed: list[tuple[Any, int, Spec]] = [*self._written, *self._args_written, *self._grad_outs]
        wanted += [n for _, n, _ in changed] + [n for _, n in self._left]
        self._wanted = list(dict.fromkeys(wanted))
        self.plan = Plan.of(tape.nodes, tape.inputs, self._wanted)
        self._sources = tape.sources
        self._tape = tape
        if tape.session is None:
            raise UsageError("a plan computes on pointers: give it one")
        self._session: SessionTape = tape.session
        self.sure = not changed  # whether it is known to be the same at each call
        self._grads = []

    @staticmethod
    def _writes(tape: _Capture, holders: Sequence[Any]) -> tuple[list[tuple[int, int, Spec]], list[tuple[Any, int, Spec]]]:
        """What it wrote into: arguments by their place, and storages or pointers that it met, with numbers of new values."""
        first_of = {source[1]: n for n, source in zip(tape.inputs, tape.sources, strict=True) if source[0] == "argument"}
        arguments = [
            (i, h.current.number, h._spec)
            for i, h in enumerate(holders) if isinstance(h, Recorded) and h.current.number != first_of[i]
        ]  # fmt: skip
        met: list[tuple[Any, int, Spec]] = []
        for thing, first in tape.lifted:
            now = thing.value if isinstance(thing, Storage) else thing._value
            if now is not first and now.tape is tape:
                met.append((thing, now.number, thing.spec if isinstance(thing, Storage) else thing._spec))
        return arguments, met

    def _gradients(self, tape: _Capture, flat: Sequence[Any], holders: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Gradients that it left on what it met, and on its arguments."""
        found = []
        met = [s[1] for s in self._pointers(tape)]
        for target in met:
            grad = getattr(target, "grad", None) if isinstance(target, torch.Tensor) and target.is_leaf else None
            if isinstance(grad, Recorded) and grad._value.tape is tape:
                found.append((target, grad))
        for outer, inner in zip(flat, holders, strict=True):
            if isinstance(outer, Recorded) and isinstance(inner, Recorded) and inner.is_leaf and inner.grad is not None:
                found.append((outer, inner.grad))
        return found

    @staticmethod
    def _pointers(tape: _Capture) -> list[tuple[str, Any]]:
        return [("pointer", thing) for thing, name, _ in tape._undo if name == "_value" and isinstance(thing, Recorded)]

    def fits(self, flat: Sequence[Any]) -> bool:
        """Whether it can run now: at the same live session, on what still looks the same."""
        session = self._session
        return (
            session is not None
            and session.dead is None
            and all(a._value.tape is session for a in flat if isinstance(a, Recorded))
        )

    def run(self, flat: Sequence[Any]) -> Any:
        """Run it, and put values where the function would have put them. Raises UsageError where that can't be said."""
        session = self._session
        if self._args_written:
            memory = [id(a._storage or a) for a in flat if isinstance(a, Recorded)]
            if len({*memory}) < len(memory):
                raise UsageError("this plan writes into its arguments, and two of them share memory; pass one, or a clone()")
        inputs = [self._input(source, flat, session) for source in self._sources]
        values = dict(zip(self._wanted, session.run(self.plan, [v.number for v in inputs]), strict=True))
        for thing, number, spec in self._written:
            if isinstance(thing, Storage):
                thing.value, thing.spec = values[number], spec
                thing.version += 1
            else:
                thing._value, thing._spec = values[number], spec
        for i, number, spec in self._args_written:
            record.write(session, flat[i], spec, values[number])
        for target, number, spec in self._grad_outs:
            target.grad = session.make(spec, values[number])
        for tensor, number in self._left:
            tensor._value, tensor._storage, tensor._seen = values[number], None, 0
        self._left = []
        outs = [
            flat[what] if kind == "argument" else what if spec is None else session.make(spec, values[what])
            for kind, what, spec in self._outs
        ]
        return tree_unflatten(outs, self._tree)

    @staticmethod
    def _input(source: tuple[str, Any], flat: Sequence[Any], session: SessionTape) -> Value:
        kind, what = source
        if kind == "argument":
            return flat[what].current  # type: ignore[no-any-return]
        if kind == "local":
            return session.constant(what)[0]
        return what.value if kind == "storage" else what.current  # type: ignore[no-any-return]
