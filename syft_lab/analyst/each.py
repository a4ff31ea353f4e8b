"""`lab.each`: one record's program, run at the owner for each record.

    risk = lab.each(lambda record: torch.linalg.svdvals(record.reshape(4, 4))[0])(x)      # one number a record

Its results are rows by construction, whatever the function is made of: sorting, a matrix decomposition, a statistic over a
record's own entries. So they can be clamped, summed over the records and released, where the same operation on all records at
once would be private. The owner runs it under `torch.func.vmap`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_unflatten

from syft_lab import record
from syft_lab.analyst.capture import Recorder
from syft_lab.analyst.tape import SessionTape
from syft_lab.errors import RefusedOpError, UsageError
from syft_lab.plans import EACH, Body, Plan
from syft_lab.record import Recorded, Value
from syft_lab.spec import Spec, of_each, of_one


def each(function: Callable[..., Any], in_dims: int | tuple[int | None, ...] | None = 0) -> Callable[..., Any]:
    """A function that runs ``function``, of one record, for each record of its arguments.

    ``in_dims`` is as `torch.func.vmap` has it: 0 for an argument whose first axis is the records', None for one that is the
    same for all; one for all arguments, or one for each. What it meets beside its arguments is the same for all records.
    Results have the records along their first axis: rows where all that is private is mapped, and of the same people. Entries
    of a record on which the function fails are NaN (whole numbers: 0).

    Raises UsageError where arguments have other numbers of records, gradients would be lost, or the function writes into what
    it meets; RefusedOpError where it draws random numbers.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        dims = in_dims if isinstance(in_dims, tuple) else (in_dims,) * len(args)
        if len(dims) != len(args) or any(d not in (0, None) or d is False for d in dims):
            raise UsageError("in_dims has a 0 (records along the first axis) or None (the same for all) for each argument")
        return _run(functools.partial(function, **kwargs) if kwargs else function, args, dims)

    return run


def _run(function: Callable[..., Any], args: Sequence[Any], dims: Sequence[int | None]) -> Any:
    if record.capture() is not None:
        raise UsageError("lab.each is no part of a plan yet: call it outside of the function that is recorded")
    flat, tree = tree_flatten(tuple(args))
    leaves = [len(tree_flatten(arg)[0]) for arg in args]
    flags = [dim for dim, count in zip(dims, leaves, strict=True) for _ in range(count)]
    session = _session(flat)
    whole = {i: _pointer(session, a) for i, (a, dim) in enumerate(zip(flat, flags, strict=True))
             if dim == 0 and isinstance(a, torch.Tensor)}  # fmt: skip
    for pointer in whole.values():
        _check(pointer)
    recorder = Recorder()
    try:
        with recorder.recording():
            # One record stands for all while the function is recorded: its number is that of the whole, which is never read.
            given = [recorder.argument(i, session.make(of_one(whole[i]._spec), whole[i].current)) if i in whole
                     else recorder.argument(i, a) if isinstance(a, Recorded) else a for i, a in enumerate(flat)]  # fmt: skip
            results, shape = tree_flatten(function(*tree_unflatten(given, tree)))
            outs = [recorder.inner(r) if isinstance(r, Recorded) else r for r in results]
            if recorder.wrote() or any(isinstance(r, torch.Tensor) and r.requires_grad for r in outs):
                raise UsageError("what runs for each record gives back new values, without gradients, and writes into nothing "
                                 "that it meets; use torch.no_grad() around it, or torch.func.grad within")  # fmt: skip
            numbers = [r.current.number for r in outs if isinstance(r, Recorded)]
            made = [r._spec for r in outs if isinstance(r, Recorded)]
    finally:
        recorder.give_back()
    body = Plan.of(recorder.nodes, recorder.inputs, numbers)
    inputs = [_input(session, whole, flat, *source) for source in recorder.sources]
    places = [0 if kind == "argument" and what in whole else -1 for kind, what in recorder.sources]
    if any(value.tape is not session for value, _ in inputs):
        raise record.apart(session, next(value.tape for value, _ in inputs if value.tape is not session))
    if 0 not in places or any(isinstance(r, torch.Tensor) and not isinstance(r, Recorded) for r in outs):
        raise UsageError("a result does not depend on a record, so it is the same for each: compute it once, outside")
    if body.seeds:
        raise RefusedOpError(
            "what runs for each record draws random numbers, for which none has a seed; draw before, and pass it"
        )
    if any("as_strided" in node.op for node in body.nodes):
        raise RefusedOpError("what runs for each record goes by places in memory (it writes into a part of a tensor, or uses "
                             "as_strided), and a record has none; build the result with torch.stack, cat or where")  # fmt: skip
    specs = of_each([spec for _, spec in inputs], places, made)
    values = session.append(EACH, [Body(body), places, [value.ref for value, _ in inputs]], {}, len(specs))
    told = iter([session.make(spec, value) for spec, value in zip(specs, values, strict=True)])
    return tree_unflatten([next(told) if isinstance(r, Recorded) else r for r in outs], shape)


def _session(flat: Sequence[Any]) -> SessionTape:
    """The tape of the first pointer; raises UsageError where there is none."""
    for arg in flat:
        if isinstance(arg, Recorded) and isinstance(arg.tape, SessionTape):
            return arg.tape
    raise UsageError("lab.each computes on pointers: give it one (here, torch.func.vmap does the same)")


def _pointer(session: SessionTape, tensor: torch.Tensor) -> Recorded:
    """A pointer as it is, or to a local tensor, which travels."""
    if isinstance(tensor, Recorded):
        return tensor
    value, spec = session.constant(tensor)
    return session.make(spec, value)


def _check(pointer: Recorded) -> None:
    """Raises UsageError for what can't be mapped."""
    pointer.current  # noqa: B018 - its label, after what was written to what it is a view of
    label = pointer._spec.label
    if not pointer.dim() or (label.kind == "rows" and label.axis != 0):
        raise UsageError("the records of what is mapped lie along its first axis; x.movedim(axis, 0) puts them there")
    if pointer.requires_grad and torch.is_grad_enabled():
        raise UsageError(
            "lab.each gives no gradients to its arguments; use torch.no_grad() around it, or torch.func.grad within"
        )


def _input(session: SessionTape, whole: dict[int, Recorded], flat: Sequence[Any], kind: str, what: Any) -> tuple[Value, Spec]:
    """The value of an input of what was recorded, and how it looks: of what is mapped, the whole."""
    if kind == "local":
        return session.constant(what)
    if kind == "storage":
        return what.value, what.spec.plain
    pointer = whole.get(what, flat[what]) if kind == "argument" else what
    return pointer.current, pointer._spec.plain
