"""Plans: torch operations recorded as data, in static single assignment. Pure; the same on both sides; no torch here.

    plan    = {"inputs": n, "nodes": [[op, [arg, …], {name: arg}, [number, …]], …], "outputs": [number, …]}
    op      = "aten.name.overload"
    arg     = null | true | 7 | 0.5 | "word" | [arg, …] | {"v": number} | {"c": constant} | {"f": "nan|inf|-inf"}
            | {"z": [re, im]} | {"t": "float32"} | {"d": "owner"} | {"l": "strided"} | {"m": "contiguous_format"}
            | {"s": place} | {"p": plan}

Numbers name values: inputs first, then what the nodes make, in order, each once (null: an output nobody needs). Every
node is a function of its arguments: what torch would do in place is recorded as the operation that makes a new value.
``{"p": plan}`` is what "syft.each.default" runs for each record: a plan of one record, which has no such node itself.
Seeds of random numbers are no part of a plan: they come with each run, and a plan names them by their place among them.
The canonical form is `Plan.canonical` (numbers as they come, dead nodes gone, JSON without spaces); its SHA-256 is the
plan's digest.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Self

from syft_lab import canonical
from syft_lab.errors import WireError
from syft_lab.printable import printed

MAX_PLAN, MAX_NODES, MAX_DEPTH, MAX_LIST, MAX_TEXT = 16 << 20, 50_000, 4, 4096, 200
EACH = "syft.each.default"
_WORD = re.compile(r"[A-Za-z0-9_]*", re.ASCII)
_MARKS = ("t", "d", "l", "m")
_ODD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Ref(NamedTuple):
    """The value with this number, as an argument."""

    number: int


class Constant(NamedTuple):
    """The constant with this position among those that travel with a plan, as an argument."""

    position: int


class Seed(NamedTuple):
    """The seed with this position among those of a run, as the argument ``seed``."""

    position: int


class Mark(NamedTuple):
    """A dtype (``t``), device (``d``), layout (``l``) or memory format (``m``) by its name."""

    kind: str
    name: str


class Body(NamedTuple):
    """A plan of one record, as an argument of the node that runs it for each."""

    plan: Plan


class Node(NamedTuple):
    """One operation: ``outs`` are the numbers of what it makes."""

    op: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outs: tuple[int | None, ...]


_PLACES: Mapping[str, Callable[[int], Constant | Seed]] = {"c": Constant, "s": Seed}


def refs(node: Node) -> Iterator[int]:
    """Numbers of the values that a node reads."""
    for arg in (*node.args, *node.kwargs.values()):
        yield from _refs(arg)


def _refs(arg: Any) -> Iterator[int]:
    if type(arg) is Ref:
        yield arg.number
    elif type(arg) in (list, tuple):
        for each in arg:
            yield from _refs(each)


def alive(nodes: Sequence[Node], wanted: Iterable[int]) -> list[Node]:
    """The nodes that some wanted value needs, in order: dead code is left out."""
    needed, kept = set(wanted), []
    for node in reversed(nodes):
        if any(out in needed for out in node.outs):
            kept.append(node)
            needed.update(refs(node))
    return kept[::-1]


def renamed(node: Node, numbers: Mapping[int, int]) -> Node:
    """The node with other numbers for what it reads, where ``numbers`` has any."""
    if not any(n in numbers for n in refs(node)):
        return node

    def walk(arg: Any) -> Any:
        if type(arg) is Ref:
            return Ref(numbers.get(arg.number, arg.number))
        return [walk(a) for a in arg] if type(arg) in (list, tuple) else arg

    return node._replace(args=tuple(map(walk, node.args)), kwargs={k: walk(v) for k, v in node.kwargs.items()})


@dataclass(frozen=True)
class Plan:
    """Operations over numbered values: ``inputs`` of them come from outside, ``outputs`` are what is asked for.

    ``seeds`` are those that were drawn when it was recorded; they are no part of what it is.
    """

    inputs: int
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    seeds: tuple[int, ...] = field(default=(), compare=False)

    @classmethod
    def of(cls, nodes: Sequence[Node], inputs: Sequence[int], outputs: Sequence[int]) -> Self:
        """The canonical plan that computes ``outputs`` from ``inputs``, whatever numbers the nodes use."""
        numbers = {old: new for new, old in enumerate(inputs)}
        made = []
        seeds: list[int] = []
        for node in alive(nodes, outputs):
            args = tuple([_numbered(a, numbers) for a in node.args])
            kwargs = {k: _numbered(v, numbers) for k, v in sorted(node.kwargs.items())} if node.kwargs else {}
            if "seed" in kwargs:
                seeds.append(kwargs["seed"])
                kwargs["seed"] = Seed(len(seeds) - 1)
            for out in node.outs:
                if out is not None:
                    numbers[out] = len(numbers)
            made.append(Node(node.op, args, kwargs, tuple(None if o is None else numbers[o] for o in node.outs)))
        return cls(len(inputs), tuple(made), tuple(numbers[o] for o in outputs), tuple(seeds))

    @cached_property
    def canonical(self) -> bytes:
        """The canonical form."""
        return canonical.dumps(_content(self))

    @cached_property
    def digest(self) -> str:
        """``sha256:`` of the canonical form."""
        return "sha256:" + hashlib.sha256(self.canonical).hexdigest()

    @property
    def text(self) -> str:
        """One line an operation, for people."""
        lines = [f"inputs: {', '.join(f'%{i}' for i in range(self.inputs)) or 'none'}"]
        lines += [line(n) for n in self.nodes]
        return "\n".join([*lines, f"return {', '.join(f'%{o}' for o in self.outputs)}"])

    @printed
    def __repr__(self) -> str:
        return f"<Plan of {len(self.nodes)} operations, {self.inputs} inputs, {len(self.outputs)} outputs; {self.digest[:19]}…>"


def _content(plan: Plan) -> dict[str, Any]:
    nodes = [[n.op, [_out(a) for a in n.args], {k: _out(v) for k, v in n.kwargs.items()}, n.outs] for n in plan.nodes]
    return {"inputs": plan.inputs, "nodes": nodes, "outputs": plan.outputs}


def line(node: Node, name: Callable[[int], str] = lambda n: f"%{n}") -> str:
    """A node as people read it: ``%3 = aten.add.Tensor(%1, %2, alpha=2)``."""
    args = [*(said(a, name) for a in node.args), *(f"{k}={said(v, name)}" for k, v in node.kwargs.items())]
    outs = ", ".join("_" if o is None else name(o) for o in node.outs)
    return f"{outs} = {node.op}({', '.join(args)})"


def said(arg: Any, name: Callable[[int], str]) -> str:
    """An argument as people read it."""
    if type(arg) is Ref:
        return name(arg.number)
    if type(arg) is Constant:
        return f"constant {arg.position}"
    if type(arg) is Seed:
        return f"#{arg.position}"
    if type(arg) is Mark:
        return arg.name
    if type(arg) is Body:  # its values have other names than those around it; a text, where all of it is read as Python
        steps = "; ".join(line(n, lambda number: f"${number}") for n in arg.plan.nodes)
        return repr(f"{steps}; return {', '.join(f'${o}' for o in arg.plan.outputs)}")
    if type(arg) in (list, tuple):
        return f"[{', '.join(said(a, name) for a in arg)}]"
    return repr(arg)


def _numbered(arg: Any, numbers: Mapping[int, int]) -> Any:
    if type(arg) is Ref:
        return Ref(numbers[arg.number])
    return [_numbered(a, numbers) for a in arg] if type(arg) in (list, tuple) else arg


def _out(arg: Any) -> Any:
    kind = type(arg)
    if kind is Ref:
        return {"v": arg.number}
    if kind is float:
        return arg if math.isfinite(arg) else {"f": "nan" if arg != arg else "inf" if arg > 0 else "-inf"}
    if kind is Constant:
        return {"c": arg.position}
    if kind is Seed:
        return {"s": arg.position}
    if kind is Body:
        return {"p": _content(arg.plan)}
    if kind is Mark:
        return {arg.kind: arg.name}
    if kind is complex:
        return {"z": [_out(arg.real), _out(arg.imag)]}
    return [_out(a) for a in arg] if kind in (list, tuple) else arg


def parse(data: bytes) -> Plan:
    """A plan from a stranger: its form is checked, not what it does (see `ops`). Raises WireError."""
    return _plan(canonical.loads(data, limit=MAX_PLAN), inner=False)


def _plan(found: Any, inner: bool) -> Plan:
    """A plan from its JSON; an ``inner`` one holds no other."""
    if not isinstance(found, dict) or set(found) != {"inputs", "nodes", "outputs"}:
        raise WireError("a plan has inputs, nodes and outputs")
    inputs, nodes, outputs = found["inputs"], found["nodes"], found["outputs"]
    if type(inputs) is not int or not 0 <= inputs <= MAX_NODES or not isinstance(nodes, list) or len(nodes) > MAX_NODES:
        raise WireError(f"a plan has at most {MAX_NODES} inputs and as many nodes")
    made, known = [], inputs
    for item in nodes:
        node, known = _node(item, known, inner)
        made.append(node)
    if not isinstance(outputs, list) or not all(type(o) is int and 0 <= o < known for o in outputs):
        raise WireError("the outputs of a plan are numbers of its values")
    return Plan(inputs, tuple(made), tuple(outputs))


def _node(item: Any, known: int, inner: bool) -> tuple[Node, int]:
    if not isinstance(item, list) or len(item) != 4:
        raise WireError("a node of a plan is [op, arguments, named arguments, outputs]")
    op, args, kwargs, outs = item
    fits = isinstance(op, str) and len(op) <= MAX_TEXT and isinstance(args, list) and isinstance(kwargs, dict)
    if not fits or not isinstance(outs, list) or len(args) + len(kwargs) > 64 or len(outs) > MAX_LIST:
        raise WireError("a node of a plan is [op, arguments, named arguments, outputs]")
    body = None
    if op == EACH and not inner and args and isinstance(args[0], dict) and args[0].keys() == {"p"}:
        body, args = Body(_plan(args[0]["p"], inner=True)), args[1:]
    read = tuple(_in(a, known, 0) for a in args), {k: _in(v, known, 0) for k, v in kwargs.items()}
    for out in outs:
        if out is not None:
            if out != known or type(out) is not int:
                raise WireError("the values of a plan are numbered in order")
            known += 1
    return Node(op, read[0] if body is None else (body, *read[0]), read[1], tuple(outs)), known


def _only(marked: Any) -> tuple[str, Any]:
    ((kind, value),) = marked.items()
    return kind, value


def _in(arg: Any, known: int, depth: int) -> Any:
    if arg is None or type(arg) in (bool, float):
        return arg
    if type(arg) is int:
        if not -(2**63) <= arg < 2**63:
            raise WireError("a whole number in a plan has at most 64 bits")
        return arg
    if type(arg) is str:
        if len(arg) > MAX_TEXT or not _WORD.fullmatch(arg):  # names of modes; nothing that could pass for more in a listing
            raise WireError("a text in a plan is a word")
        return arg
    if type(arg) is list:
        if depth >= MAX_DEPTH or len(arg) > MAX_LIST:
            raise WireError("a list in a plan is too long or too deep")
        return [_in(a, known, depth + 1) for a in arg]
    if type(arg) is dict and len(arg) == 1:
        kind, value = _only(arg)
        if kind == "f" and value in _ODD:
            return _ODD[value]
        if kind == "z" and type(value) is list and len(value) == 2:
            return complex(*(float(_in(v, known, MAX_DEPTH)) for v in value))
        if kind == "v" and type(value) is int and 0 <= value < known:
            return Ref(value)
        if kind in _PLACES and type(value) is int and 0 <= value < MAX_NODES:
            return _PLACES[kind](value)
        if kind in _MARKS and type(value) is str and len(value) <= MAX_TEXT:
            return Mark(kind, value)
    raise WireError("an argument in a plan is malformed")
