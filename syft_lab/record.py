"""The recorder under pointers and shares: a tensor subclass that runs nothing, and writes what torch asks of it to a tape.

    torch calls __torch_dispatch__ → known shapes and labels (a run on meta tensors, cached) → a node on the tape → a pointer

`Recorded` has the shape, strides and dtype that the value has at its owner, and a number that names it there. Below
autograd, vmap and the modules of torch there are only aten operations, so all of torch works unmodified; its downside is
that what looks at values (print, bool, item) must be refused, and that a shape that depends on values is not to be had.

In-place operations are recorded as functions that make a new value, and the pointer takes its number (`Storage` tells its
views and what it is a view of). Nothing that an owner holds is ever written to.

What is recorded for a plan (`Capture`), and what is noted in a block (`watch`), is what the thread does that began it.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch

from syft_lab import fused, labels, ops
from syft_lab.errors import LabError, OtherOwnerError, RefusedOpError, UsageError
from syft_lab.labels import PUBLIC, Label
from syft_lab.plans import Mark, Node, Ref
from syft_lab.spec import DTYPES, MAX_CACHE, Spec, check_dense, looks

LARGE_CONSTANT, _CPU = 10 << 20, torch.device("cpu")
aten = torch.ops.aten


class Value:
    """A number on a tape, for as long as somebody holds it; then the tape hears that it is free."""

    __slots__ = ("number", "ref", "tape")

    def __init__(self, number: int, tape: Tape) -> None:
        self.number, self.tape = number, tape
        self.ref = tuple.__new__(Ref, (number,))

    def __del__(self) -> None:
        self.tape.freed.append(self.number)


class Storage:
    """What a tensor and its views share: the newest value of the whole, and how often it was written to."""

    __slots__ = ("spec", "value", "version")

    def __init__(self, value: Value, spec: Spec) -> None:
        self.value, self.spec, self.version = value, spec, 0


class Tape:
    """Nodes that wait to be sent, and the numbers that they use. ``kind`` is the pointer class that it makes."""

    def __init__(self, kind: type[Recorded]) -> None:
        self.kind = kind
        self.dead: LabError | None = None
        self.nodes: list[Node] = []
        self.freed: list[int] = []
        self.lock = threading.RLock()
        self.next = 1
        self.recorded = 0
        self._constants: dict[int, tuple[weakref.ref[torch.Tensor], int, Value, Spec]] = {}

    def new(self) -> Value:
        """A fresh number."""
        if self.dead is not None:
            self.check()
        with self.lock:
            number, self.next = self.next, self.next + 1
        return Value(number, self)

    def append(self, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], count: int) -> list[Value]:
        """Record a node that makes ``count`` values."""
        if self.dead is not None:
            self.check()
        with self.lock:
            start = self.next
            self.next = start + count
            numbers = (start,) if count == 1 else tuple(range(start, start + count))
            node = tuple.__new__(Node, (op, tuple(args), kwargs, numbers))
            self.nodes.append(node)
            self.recorded += 1
        for hear in _watches.get():
            hear(self, node)
        made = [Value(start, self)] if count == 1 else [Value(n, self) for n in numbers]
        self.grown()
        return made

    def check(self) -> None:
        """Raises what it died of; a tape that is ``dead`` records nothing more."""
        if self.dead is not None:
            raise self.dead

    def grown(self) -> None:
        """Called after each node: a session sends when there is enough."""

    def put(self, tensor: torch.Tensor) -> Value:
        """Take in a tensor that travels as it is: a constant, or something sent."""
        raise NotImplementedError

    def make(self, spec: Spec, value: Value) -> Recorded:
        """A pointer to a value."""
        return self.kind.__new__(self.kind, spec, value)  # as a call would, but for an empty __init__

    def constant(self, tensor: torch.Tensor) -> tuple[Value, Spec]:
        """The value of a local tensor that meets a pointer; the same tensor, unchanged, travels once."""
        known = self._constants.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1] == getattr(tensor, "_version", 0):
            return known[2], known[3]
        check_dense(tensor)
        if tensor.nbytes > LARGE_CONSTANT:
            warnings.warn(f"a local tensor of {tensor.nbytes >> 20} MB travels to the owner as a constant; "
                          "send it once with t.send(owner), and use the pointer", stacklevel=6)  # fmt: skip
        value, spec = self.put(tensor.detach()), Spec.of(tensor.detach().contiguous(), PUBLIC, 0)
        place, constants = id(tensor), self._constants
        self._constants[place] = (weakref.ref(tensor, lambda _: constants.pop(place, None)), tensor._version, value, spec)
        return value, spec


class Capture(Tape):
    """The tape of a function that is being recorded: what its own thread does meanwhile goes there, and nothing else.

    A pointer that is met stays as it is, for other threads use it too: `inner` stands for it on this tape.
    """

    thread = 0  # who records; 0 before and after

    def inner(self, pointer: Recorded) -> Recorded:
        """What stands for a pointer here; raises OtherOwnerError for one of another owner than those before."""
        raise NotImplementedError

    def met(self, pointer: Recorded) -> Recorded | None:
        """What stands for a pointer here, if it was met."""
        raise NotImplementedError

    def record(self, known: How, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Record an operation of this thread."""
        raise NotImplementedError

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what this thread does in the block. Who watches its session hears the plan's numbers nowhere."""
        capture, watches = _capture.set(self), _watches.set(())
        self.thread = threading.get_ident()
        try:
            yield
        finally:
            self.thread = 0
            _watches.reset(watches)
            _capture.reset(capture)


# A context is a thread's, or a task's in it. One that was copied (a task that began in the block, `asyncio.to_thread`) may
# outlive the block or be in another thread: so who reads these asks for the thread too.
_capture: ContextVar[Capture | None] = ContextVar("syft_lab.capture", default=None)
_watches: ContextVar[tuple[Callable[[Tape, Node], None], ...]] = ContextVar("syft_lab.watches", default=())


def capture() -> Capture | None:
    """The recording that this thread makes just now."""
    found = _capture.get()
    return found if found is not None and found.thread == threading.get_ident() else None


def watch(hear: Callable[[Tape, Node], None]) -> None:
    """Have ``hear`` told of each node that this context records, after it is on its tape."""
    _watches.set((*_watches.get(), hear))


def unwatch(hear: Callable[[Tape, Node], None]) -> None:
    """Tell it no more."""
    _watches.set(tuple(h for h in _watches.get() if h != hear))


class How(NamedTuple):
    """How an overload is recorded: ``op`` as plans name it, whether it writes, which results share memory with arguments.

    ``loose``: of public arguments the look of its results does not depend on the values of floats. ``placed``: it depends on
    where in their memory its arguments begin.
    """

    op: str
    func: Any
    writes: bool
    views: bool
    random: bool
    special: Callable[..., Any] | None
    loose: bool = False
    placed: bool = True


def how(func: Any) -> How:
    """See `How`; raises the refusal for what the table does not have."""
    found = _HOW.get(id(func))  # torch keeps its overloads for ever, and hashes them in Python
    if found is None:
        found = _HOW[id(func)] = _how(func)
    return found


_HOW: dict[int, How] = {}


def _how(func: Any) -> How:
    special = _SPECIAL.get(func)
    if special is not None:
        return How(str(func), func, False, False, False, special)
    schema = func._schema
    writes = schema.is_mutable
    if func.namespace != "aten" or ops.packet(str(func)) in ops.REASONS:
        raise ops.refusal(str(func))
    if not writes and ops.packet(str(func)) not in ops.ALLOWED and _composite(func):
        return How(str(func), func, False, False, False, lambda tape, args, kwargs: func.decompose(*args, **kwargs))
    if writes and (plain := ops.without_out(func)) is not None:
        return How(str(func), func, False, False, False, lambda tape, args, kwargs: _write_out(tape, how(plain), args, kwargs))
    pure = ops.functional(func) if writes else ops.find(str(func))
    views = not writes and any(r.alias_info is not None for r in schema.returns)
    name = ops.packet(str(pure))
    return How(str(pure), pure, writes, views, ops.is_random(str(pure)), None, name in ops.POINTWISE, ops.is_placed(pure))


def _composite(func: Any) -> bool:
    """Whether torch itself has it as a composition of others."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


class Recorded(torch.Tensor):
    """A tensor that is elsewhere. Made by a `Tape`."""

    _spec: Spec
    _value: Value
    _storage: Storage | None
    _seen: int
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls: type[Recorded], spec: Spec, value: Value, requires_grad: bool = False) -> Recorded:
        """A wrapper with the look of ``spec``."""
        made: Recorded = torch.Tensor._make_wrapper_subclass(
            cls, spec.shape, spec.stride, spec.offset, dtype=spec.dtype, device=_CPU, requires_grad=requires_grad
        )
        made._spec, made._value, made._storage, made._seen = spec, value, None, 0
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """What `__new__` did."""

    @property
    def data(self) -> Any:
        """The same value, of which gradients know nothing. Setting it writes another value of the same shape and dtype."""
        return super().data

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        if value.shape != self.shape or value.dtype != self.dtype:
            raise UsageError(f"x.data = y takes a tensor as x is, {self.dtype} of {list(self.shape)}, not {value.dtype} of "
                             f"{list(value.shape)}; make a new one, such as torch.nn.Parameter(y)")  # fmt: skip
        with torch.no_grad():
            self.data.copy_(value)

    @property
    def tape(self) -> Tape:
        """Where it is recorded: in a recording that met it, that."""
        recording = capture()
        inner = None if recording is None else recording.met(self)
        return self._value.tape if inner is None else inner._value.tape

    @property
    def current(self) -> Value:
        """Its value, after what was written to what it is a view of."""
        storage = self._storage
        if storage is not None and self._seen != storage.version:
            spec, whole = self._spec, storage.spec
            _check_dtype(spec, whole)
            if _place(spec) == _place(whole):
                self._value = storage.value
            else:
                args = (Ref(storage.value.number), list(spec.shape), list(spec.stride), spec.offset)
                (self._value,) = storage.value.tape.append("aten.as_strided.default", args, {}, 1)
            label = whole.label
            if label.kind != "public" and _place(spec) != _place(whole):
                label = Label("private", label.sources)
            self._spec, self._seen = _labelled(spec, label), storage.version
        return self._value

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = _HOW.get(id(func)) or how(func)
        if _capture.get() is not None and (recording := capture()) is not None:
            return recording.record(known, args, kwargs or {})
        return record(known, args, kwargs)


def record(known: How, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Any:
    """Record an operation on the tape of its arguments; gives pointers to its results."""
    tape = _tape_of(args, kwargs)
    if known.special is not None:
        return known.special(tape, args, kwargs or {})
    if known.writes:
        return _write(tape, known, args, kwargs or {})
    specs, values, result = run(tape, known, args, kwargs or {})
    if result is None and not known.views:
        return tape.make(specs[0], values[0])
    made = [None if s is None else tape.make(s, v) for s, v in zip(specs, values, strict=True)]
    if known.views:
        base = args[0]
        for each in made:
            _share(base, each)
    return made[0] if result is None else _nested(result, iter(made))


def _tape_of(args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Tape:
    if not kwargs and args:  # most operations
        first = args[0]
        if isinstance(first, Recorded):
            tape, kind = first._value.tape, type(first)
            for arg in args:
                if type(arg) is kind:
                    if arg._value.tape is not tape:
                        break
                elif type(arg) not in _SIMPLE:
                    break
            else:
                return tape
    found: Tape | None = None
    for arg in labels.tensors(args, kwargs or {}, Recorded):
        tape = arg._value.tape
        if found is None:
            found = tape
        elif tape is not found:
            raise apart(found, tape)
    if found is None:
        raise RefusedOpError("a pointer is hidden in an argument of another kind; pass it directly, or in a list")
    return found


def apart(one: Tape, other: Tape, what: str = "one operation reads") -> OtherOwnerError:
    """The error of values on two tapes; raises what one of them died of, if it did."""
    for each in (one, other):
        each.check()  # of an owner's old session and its new one: why the old one ended
    return OtherOwnerError(f"{what} values at {_where(one)} and at {_where(other)}; move one of them to "
                           "the other's owner, or compute on shares in a federation")  # fmt: skip


def _where(tape: Tape) -> str:
    return str(getattr(tape, "owner", "a recording"))


_CACHE: dict[Any, tuple[list[Spec | None], Any]] = {}


def run(tape: Tape, known: How, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], list[Any], Any]:
    """Record a function: specs and values of its results, and their nesting (None for one tensor)."""
    specs: list[Any] = []
    sent: list[Any] = []
    loose = known.loose
    key: list[Any] = [id(known.func)]  # then what each argument looks like: a spec, or a type and a value
    for arg in args:
        kind = type(arg)
        if kind in _SIMPLE:
            specs.append(arg)
            sent.append(arg)
            key.append(kind)
            key.append(None if loose and kind is float else arg)
            continue
        if kind is tape.kind and arg._storage is None and arg._value.tape is tape:  # as `_taken` has it
            spec, out = arg._spec, arg._value.ref
        else:
            spec, out = _taken(tape, arg)
        if type(spec) is Spec and not known.placed:
            spec = spec.plain
        specs.append(spec)
        sent.append(out)
        if type(spec) is Spec:
            key.append(spec)
            loose = loose and spec.label.kind == "public"
        else:
            key.append(_key(spec))
    named: dict[str, Any] = {}
    sent_named: dict[str, Any] = {}
    for name, arg in kwargs.items():
        if name == "pin_memory" or (name == "layout" and arg in (None, torch.strided)) or arg is None:
            continue
        named[name], sent_named[name] = _taken(tape, arg)
        key += (name, float if loose and type(arg) is float else _key(named[name]))
    if known.loose and not loose:  # something is private, and its label may tell of numbers
        key = [known.func, *map(_key, specs), *((k, _key(v)) for k, v in named.items())]
    look = tuple(key)
    try:
        found = _CACHE.get(look)
    except TypeError:  # something in it has no hash
        found, look = None, ()
    if found is None:
        found = looks(known.func, specs, named)
        if look:
            if len(_CACHE) > MAX_CACHE:
                _CACHE.clear()
            _CACHE[look] = found
    outs, result = found
    if known.random:
        sent_named["seed"] = draw()
    values = tape.append(known.op, sent, sent_named, len(outs))
    return outs, values, result


_SIMPLE = frozenset((int, float, bool, str, type(None)))


def draw() -> int:
    """A seed for an operation that draws random numbers; it follows torch's own here."""
    return int(torch.randint(0, 2**62, ()).item())


def _key(arg: Any) -> Any:
    kind = type(arg)
    if kind in (int, float, bool):
        return kind, arg
    return (list, *map(_key, arg)) if kind in (list, tuple) else arg


def _taken(tape: Tape, arg: Any) -> tuple[Any, Any]:
    """An argument as the run on meta tensors wants it (specs for tensors), and as the plan does."""
    if isinstance(arg, Recorded):
        value = arg.current  # first: what was written to what it is a view of may change its label
        if value.tape is not tape:  # a plan is of numbers, which would name another value there
            raise apart(tape, value.tape)
        return arg._spec, value.ref
    kind = type(arg)
    if kind in _SIMPLE:
        return arg, arg
    if isinstance(arg, torch.Tensor):
        value, spec = tape.constant(arg)
        return spec, value.ref
    if kind in (list, tuple, torch.Size):
        both = [_taken(tape, a) for a in arg]
        return [a for a, _ in both], [b for _, b in both]
    if kind is torch.dtype:
        if str(arg).removeprefix("torch.") not in DTYPES:
            raise RefusedOpError(f"pointers have no {arg}; they have {', '.join(DTYPES)}")
        return arg, Mark("t", str(arg).removeprefix("torch."))
    if kind is torch.device:
        return torch.device("meta"), Mark("d", "owner")
    if kind is torch.memory_format:
        return arg, Mark("m", str(arg).removeprefix("torch."))
    if kind is torch.layout:
        return arg, Mark("l", str(arg).removeprefix("torch."))
    if kind is complex:
        return arg, arg
    if isinstance(arg, int | float | torch.SymInt):
        return int(arg), int(arg)
    raise RefusedOpError(f"a plan has no argument of type {kind.__name__}")


def _nested(like: Any, flat: Iterator[Any]) -> Any:
    if isinstance(like, list | tuple):
        return type(like)(_nested(each, flat) for each in like)
    return next(flat)


def _share(base: Any, view: Any) -> None:
    """Note that a result lies in the memory of an argument."""
    if not isinstance(base, Recorded):
        return
    if base._storage is None:
        base._storage = Storage(base._value, base._spec)
    view._storage, view._seen = base._storage, base._storage.version


def _write(tape: Tape, known: How, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An in-place operation: its first argument gets the value that the function makes, and so do those that share memory."""
    target = args[0]
    if not isinstance(target, Recorded):
        raise UsageError(f"{known.op} would write what is at the owner into a local tensor; send that first: t.send(owner)")
    if known.func is aten.copy.default and args[1] is target:
        return target
    masked = _masked_fill(known, args)
    if masked is not None:
        known, args = masked
    (out, *_), (value, *_), _ = run(tape, known, args, kwargs)
    write(tape, target, out, value)
    return target


def _write_out(tape: Tape, known: How, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """An operation with ``out=``, which must have the shape of the result."""
    target = kwargs["out"]
    if not isinstance(target, Recorded):
        raise UsageError(f"{known.op} would write what is at the owner into a local tensor; send that first: t.send(owner)")
    (out, *_), (value, *_), _ = run(tape, known, args, {k: v for k, v in kwargs.items() if k != "out"})
    write(tape, target, out, value)
    return target


def write(tape: Tape, target: Recorded, out: Spec, value: Value) -> None:
    """Give ``target`` a new value, which is as ``out`` says."""
    spec = target._spec
    if out.shape != spec.shape:
        raise RuntimeError(f"output with shape {list(spec.shape)} doesn't match the broadcast shape {list(out.shape)}")
    if out.dtype is not spec.dtype:
        if not torch.can_cast(out.dtype, spec.dtype):
            raise RuntimeError(f"result type {out.dtype} can't be cast to the desired output type {spec.dtype}")
        (value,) = tape.append("aten._to_copy.default", (Ref(value.number),), {"dtype": _mark(spec.dtype)}, 1)
    if out.stride != spec.stride or out.offset:
        (value,) = tape.append("aten.copy.default", (Ref(target.current.number), Ref(value.number)), {}, 1)
    label = out.label
    storage = target._storage
    if storage is not None:
        base = storage.spec
        _check_dtype(spec, base)
        if _place(base) == _place(spec):
            storage.value = value
        else:
            place = (list(spec.shape), list(spec.stride), spec.offset)
            target.current  # noqa: B018 - what was written before comes first
            (storage.value,) = tape.append(
                "aten.as_strided_scatter.default", (Ref(storage.value.number), Ref(value.number), *place), {}, 1
            )
            label = _either(label, base.label)
        storage.spec = _labelled(storage.spec, label)
        storage.version += 1
        target._seen = storage.version
    target._value = value
    target._spec = _labelled(spec, label)


def _place(spec: Spec) -> tuple[Any, ...]:
    return spec.shape, spec.stride, spec.offset


def _check_dtype(view: Spec, whole: Spec) -> None:
    """Raises RefusedOpError where memory is written, or was since, as another dtype than it is read."""
    if view.dtype != whole.dtype:
        raise RefusedOpError(f"a view as {view.dtype} of {whole.dtype} can't be written to, nor read once the other was "
                             "written to: clone the view, and write the whole")  # fmt: skip


def _mark(dtype: torch.dtype) -> Mark:
    return Mark("t", str(dtype).removeprefix("torch."))


def _either(a: Label, b: Label) -> Label:
    if a.kind == b.kind == "public":
        return PUBLIC
    return a if a == b else Label("private", labels.joined((a, b)))


def _labelled(spec: Spec, label: Label) -> Spec:
    return spec if spec.label == label else Spec.of(spec.meta(), label)


def _masked_fill(known: How, args: Sequence[Any]) -> tuple[How, Sequence[Any]] | None:
    """``x[mask] = number``, where the mask is at the owner: no shape depends on it, if it is written as `where`."""
    if known.op != "aten.index_put.default" or (len(args) > 3 and args[3]):
        return None
    target, index, value = args[:3]
    masks = [i for i in index if isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8)]
    if len(index) != 1 or len(masks) != 1 or not isinstance(masks[0], Recorded) or value.numel() != 1:
        return None
    mask = masks[0]
    mask = mask.reshape(*mask.shape, *[1] * (target.dim() - mask.dim()))
    return how(aten.where.self), (
        mask,
        value.reshape(()).to(target.dtype) if value.dtype != target.dtype else value.reshape(()),
        target,
    )


# What needs more than its schema says


def _batch_norm(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """`native_batch_norm` writes the running statistics, which its schema does not say."""
    x, weight, bias, mean, var, training, momentum, eps = args
    if not training:
        specs, values, _ = run(
            tape, how(aten._native_batch_norm_legit_no_training.default), (x, weight, bias, mean, var, momentum, eps), {}
        )
        return tuple(tape.make(s, v) for s, v in zip(specs, values, strict=True))
    if mean is None:
        specs, values, _ = run(tape, how(aten._native_batch_norm_legit.no_stats), (x, weight, bias, True, momentum, eps), {})
        return tuple(tape.make(s, v) for s, v in zip(specs, values, strict=True))
    given = (x, weight, bias, mean, var, True, momentum, eps)
    specs, values, _ = run(tape, how(aten._native_batch_norm_legit_functional.default), given, {})
    for target, spec, value in zip((mean, var), specs[3:], values[3:], strict=True):
        if not isinstance(target, Recorded):
            raise UsageError(
                "the running statistics of a batch norm are local, and would become private: model.send(owner) first"
            )
        write(tape, target, spec, value)
    return tuple(tape.make(s, v) for s, v in zip(specs[:3], values[:3], strict=True))


def _index(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``x[index]``: a local mask becomes positions, so that the shape is known; a mask at the owner is refused."""
    x, index = args[:2]
    found: list[Any] = []
    for each in index:
        if isinstance(each, torch.Tensor) and each.dtype in (torch.bool, torch.uint8):
            if isinstance(each, Recorded):
                raise ops.refusal("aten.masked_select.default")
            found += each.nonzero(as_tuple=True)
        else:
            found.append(each)
    specs, values, _ = run(tape, _INDEX, (x, found), {})
    return tape.make(specs[0], values[0])


def _nothing(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """A check of values that would raise: whether it does is private. What it checks holds NaN or infinity instead."""


def _bernoulli(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """``x.bernoulli_(p)``: its function wants the probability that it may leave out."""
    given = {k: v for k, v in kwargs.items() if k != "p"}
    return _write(tape, how(aten.bernoulli.p), (args[0], args[1] if len(args) > 1 else kwargs.get("p", 0.5)), given)


def _conjugate(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Torch's conjugate is a view that remembers to conjugate; a plan has the conjugate itself."""
    specs, values, _ = run(tape, how(aten._conj_physical.default), args, {})
    return tape.make(specs[0], values[0])


def _reshaped(plain: Any, place: str) -> Callable[..., Any]:
    """``x.squeeze_()`` and its like: the same values under another shape, which the wrapper takes too."""

    def change(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        target = args[0]
        specs, values, _ = run(tape, how(plain), args, kwargs)
        if target._storage is None:
            target._storage = Storage(target._value, target._spec)
        target._spec, target._value, target._seen = specs[0], values[0], target._storage.version
        in_place = getattr(getattr(aten, f"{plain._schema.name.partition('::')[2]}_"), place)
        with torch._C._DisableTorchDispatch():
            in_place(target, *args[1:], **kwargs)
        return target

    return change


def _as_strided(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Positions count from the beginning of the memory, so it is recorded on the whole."""
    x, size, stride, *offset = args
    place = offset[0] if offset else kwargs.get("storage_offset")
    place = x._spec.offset if place is None else place
    if x._storage is None:
        x._storage = Storage(x._value, x._spec)
    whole = tape.make(x._storage.spec, x._storage.value)
    specs, values, _ = run(tape, _STRIDED, (whole, list(size), list(stride), place), {})
    made = tape.make(specs[0], values[0])
    made._storage, made._seen = x._storage, x._storage.version
    return made


_SPECIAL: dict[Any, Callable[..., Any]] = {
    aten.native_batch_norm.default: _batch_norm,
    aten.index.Tensor: _index,
    aten._linalg_check_errors.default: _nothing,
    aten._assert_async.default: _nothing,
    aten.as_strided.default: _as_strided,
    aten._conj.default: _conjugate,
    aten.bernoulli_.float: _bernoulli,
    aten._transformer_encoder_layer_fwd.default: lambda tape, args, kwargs: fused.encoder_layer(*args, **kwargs),
    aten._native_multi_head_attention.default: lambda tape, args, kwargs: fused.multi_head_attention(*args, **kwargs),
    aten.mkldnn_rnn_layer.default: lambda tape, args, kwargs: fused.mkldnn_lstm(*args, **kwargs),
    aten.mkldnn_rnn_layer_backward.default: lambda tape, args, kwargs: fused.mkldnn_lstm_backward(*args, **kwargs),
    aten.squeeze_.default: _reshaped(aten.squeeze.default, "default"),
    aten.squeeze_.dim: _reshaped(aten.squeeze.dim, "dim"),
    aten.squeeze_.dims: _reshaped(aten.squeeze.dims, "dims"),
    aten.unsqueeze_.default: _reshaped(aten.unsqueeze.default, "default"),
    aten.t_.default: _reshaped(aten.t.default, "default"),
    aten.transpose_.default: _reshaped(aten.transpose.int, "default"),
}
_INDEX = How("aten.index.Tensor", aten.index.Tensor, False, False, False, None)
_STRIDED = How("aten.as_strided.default", aten.as_strided.default, False, True, False, None)
