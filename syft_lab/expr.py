"""The typed expression tree of table queries: pure, and the same on both sides.

An analyst's frame builds a `Query` out of nodes; JSON carries it; the owner parses it again, trusting nothing, and
checks it against the published `Schema` alone. So every message about a query is made from public facts: it is the
same whatever the rows are. Lowering to OpenDP lives in `budget.queries`.

JSON of a node: ``{"column": name}``, ``{"literal": value}`` or ``{"op": name, "args": [node, …]}``.
JSON of a query: ``{"aggregate": "count" | "sum" | "mean", "value": node | null, "filter": node | null, "by": [name, …]}``.

Nulls behave as in pandas: a comparison with a null is false (``!=`` true), arithmetic with a null is null, an
aggregate skips nulls, NaN is a null. See `docs/privacy.md` for what each operation does to bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from syft_lab import canonical
from syft_lab.errors import QueryError, WireError
from syft_lab.schema import MAX_TEXT, Column, Kind, Scalar, Schema

MAX_DEPTH, MAX_NODES, MAX_KEYS, MAX_GROUPS = 32, 1000, 2, 10_000
MAX_WEIGHT = 5000
CONSTANT = "a part of this query is the same for every row: compute it in Python, and use the number"
NUMERIC = ("int", "float")


@dataclass(frozen=True)
class Col:
    """A column of the table."""

    name: str

    def to_json(self) -> dict[str, Any]:
        """JSON object of this node."""
        return {"column": self.name}


@dataclass(frozen=True)
class Lit:
    """A constant that the analyst wrote."""

    value: Scalar

    def to_json(self) -> dict[str, Any]:
        """JSON object of this node."""
        return {"literal": self.value}


@dataclass(frozen=True)
class Op:
    """An operation of `OPERATIONS` on nodes."""

    name: str
    args: tuple[Node, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON object of this node."""
        return {"op": self.name, "args": [a.to_json() for a in self.args]}


Node = Col | Lit | Op


@dataclass(frozen=True)
class Type:
    """What is known of a node's values from public facts: ``low`` and ``high`` are infinite where nothing is."""

    kind: Kind
    low: float = -math.inf
    high: float = math.inf
    categories: tuple[Scalar, ...] | None = None
    may_be_nan: bool = False

    @property
    def bounded(self) -> bool:
        """Whether both bounds are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True)
class Query:
    """One aggregate over the rows that pass ``filter``, in every declared combination of the ``by`` columns.

    ``count`` without a value counts rows, with one its non-null values.
    """

    aggregate: Literal["count", "sum", "mean"]
    value: Node | None = None
    filter: Node | None = None
    by: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON object of the query."""
        value, chosen = (None if n is None else n.to_json() for n in (self.value, self.filter))
        return {"aggregate": self.aggregate, "value": value, "filter": chosen, "by": list(self.by)}

    def canonical(self) -> bytes:
        """The one byte string of this query."""
        return canonical.dumps(self.to_json())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes, hexadecimal."""
        return sha256(self.canonical()).hexdigest()

    def check(self, schema: Schema) -> Type:
        """The type and bounds of what is aggregated, from public facts; raises QueryError naming the part at fault."""
        if sum(weight(n) for n in (self.value, self.filter) if n is not None) > MAX_WEIGHT:
            raise QueryError("the expression is too large to run; split it, or compare with fewer constants")
        if isinstance(self.value, Lit) or isinstance(self.filter, Lit):
            raise QueryError(CONSTANT)
        if self.filter is not None:
            check_filter(self.filter, schema)
        self._check_keys(schema)
        if self.value is None:
            if self.aggregate != "count":
                raise QueryError(f"a {self.aggregate} needs a column, such as frame['age'].{self.aggregate}()")
            return Type("int")
        found = infer(self.value, schema)
        if self.aggregate == "count":
            return found
        if found.kind == "text":
            raise QueryError(f"a {self.aggregate} of text has no meaning; count it, or group by it")
        if not found.bounded:
            names = [n for n in sorted(set(columns_of(self.value))) if not _bounded(schema.column(n))]
            raise QueryError(
                f"a {self.aggregate} needs bounds, and there are none for {', '.join(names) or 'this expression'}: "
                "write .clip(low, high), or ask the owner to publish bounds"
            )
        if found.low == found.high:
            raise QueryError("the bounds of this expression are equal: its value is a constant, not a question")
        return found

    def _check_keys(self, schema: Schema) -> None:
        if len(self.by) > MAX_KEYS or len(set(self.by)) != len(self.by):
            raise QueryError(f"group by one or two different columns, not {len(self.by)}")
        groups = 1
        for name in self.by:
            declared = schema.column(name).categories
            if declared is None:
                raise QueryError(f"to group by {name}, the owner must declare its categories; it has none declared")
            groups *= len(declared)
        if groups > MAX_GROUPS:
            raise QueryError(f"{groups} groups are more than {MAX_GROUPS}; group by fewer columns")


def parse_query(data: bytes) -> Query:
    """The query in JSON from a stranger; raises WireError for what is none. Types are checked by `Query.check`."""
    content = canonical.loads(data, limit=64 << 10)
    if not isinstance(content, dict) or set(content) != {"aggregate", "value", "filter", "by"}:
        raise WireError("a query has aggregate, value, filter and by")
    by = content["by"]
    if content["aggregate"] not in ("count", "sum", "mean"):
        raise WireError("the aggregate of a query is count, sum or mean")
    if not isinstance(by, list) or len(by) > 8 or not all(isinstance(n, str) and len(n) <= MAX_TEXT for n in by):
        raise WireError("a query groups by a short list of column names")
    left = [MAX_NODES]
    value, chosen = (None if content[k] is None else _parse(content[k], 0, left) for k in ("value", "filter"))
    return Query(content["aggregate"], value, chosen, tuple(by))


def fitted(node: Node) -> Node:
    """The expression as an owner takes it; raises QueryError where it has too many parts, or is too deep.

    In one that is too deep, chains of ``and`` and of ``or`` become trees, which have the same value for each row.
    """
    depth = _depth(node)
    if depth > MAX_DEPTH:
        depth = _depth(node := _balanced(node))
    if depth > MAX_DEPTH:
        raise QueryError(
            f"this expression joins more than {MAX_DEPTH} one in the other: write long sums in parts, for the order of "
            "additions matters to their last digits: (a + b + …) + (c + d + …)"
        )
    return node


def _depth(node: Node) -> int:
    """How many operations stand one in the other; raises QueryError where there are more parts than an owner takes."""
    left, depth, level = MAX_NODES, -1, [node]
    while level:
        left, depth = left - len(level), depth + 1
        if left < 0:
            raise QueryError(
                f"this expression has more than {MAX_NODES} parts: write up to 100 values as column.isin([…]), a range as "
                "column.between(low, high), rows without nulls as frame.dropna(['age', …]) of the columns you use"
            )
        level = [a for n in level if isinstance(n, Op) for a in n.args]
    return depth


def _balanced(node: Node) -> Node:
    """The same expression with each chain of ``and`` or of ``or`` as a tree, its conditions in the same order."""
    if not isinstance(node, Op):
        return node
    if node.name not in ("and", "or"):
        return Op(node.name, tuple(map(_balanced, node.args)))
    parts: list[Node] = []
    waiting: list[Node] = [node]
    while waiting:
        last = waiting.pop()
        if isinstance(last, Op) and last.name == node.name:
            waiting += last.args
        else:
            parts.insert(0, _balanced(last))
    while len(parts) > 1:
        pairs = [Op(node.name, tuple(parts[i : i + 2])) for i in range(0, len(parts) - 1, 2)]
        parts = [*pairs, *parts[2 * len(pairs) :]]
    return parts[0]


def parse_node(content: Any) -> Node:
    """The expression in a JSON object from a stranger; raises WireError."""
    return _parse(content, 0, [MAX_NODES])


def check_filter(node: Node, schema: Schema) -> None:
    """Raises QueryError where ``node`` is no filter of this table: true or false for each row, and not too large."""
    if weight(node) > MAX_WEIGHT:
        raise QueryError("the expression is too large to run; split it, or compare with fewer constants")
    if isinstance(node, Lit):
        raise QueryError(CONSTANT)
    if infer(node, schema).kind != "bool":
        raise QueryError("a filter must be true or false for each row, such as frame.age > 65")


def _parse(content: Any, depth: int, left: list[int]) -> Node:
    left[0] -= 1
    if depth > MAX_DEPTH or left[0] < 0 or not isinstance(content, dict):
        raise WireError(f"an expression is a tree of at most {MAX_NODES} nodes, {MAX_DEPTH} deep")
    if set(content) == {"column"} and isinstance(content["column"], str) and len(content["column"]) <= MAX_TEXT:
        return Col(content["column"])
    if set(content) == {"literal"}:
        return Lit(check_literal(content["literal"]))
    if set(content) == {"op", "args"} and isinstance(content["args"], list) and isinstance(content["op"], str):
        return Op(content["op"][:40], tuple(_parse(a, depth + 1, left) for a in content["args"]))
    raise WireError("a node of an expression is a column, a literal or an operation")


def check_literal(value: Any) -> Scalar:
    """``value`` if it can stand in an expression: bool, 64-bit int, finite float, text up to 1000 characters."""
    if type(value) is bool or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is str and len(value) <= MAX_TEXT:
        return value
    raise QueryError("a constant is a bool, a 64-bit integer, a finite float, or text of up to 1000 characters")


def columns_of(node: Node) -> Iterator[str]:
    """Names of the columns in an expression, in reading order."""
    if isinstance(node, Col):
        yield node.name
    elif isinstance(node, Op):
        for arg in node.args:
            yield from columns_of(arg)


def weight(node: Node) -> int:
    """How many operations the node becomes when it is lowered, at most: comparisons and remainders write operands twice."""
    if not isinstance(node, Op):
        return 1
    first, *others = (weight(a) for a in node.args) if node.args else (0,)
    twice = 2 if node.name in (*_COMPARISONS, "mod") else 1
    times = {"between": 4, "is_in": 2 * len(others)}.get(node.name, twice)
    own = {"truediv": 5, "floordiv": 6, "mod": 8}.get(node.name, 1)
    return min(own + times * first + twice * sum(others), MAX_WEIGHT + 1)


def infer(node: Node, schema: Schema) -> Type:
    """Type and bounds of a node from public facts; raises QueryError naming the part at fault."""
    if isinstance(node, Col):
        column = schema.column(node.name)
        if column.kind == "bool":
            return Type("bool", 0, 1, column.categories)
        low, high = column.bounds or (-math.inf, math.inf)
        return Type(column.kind, low, high, column.categories)
    if isinstance(node, Lit):
        return _literal_type(node.value)
    rule = OPERATIONS.get(node.name)
    if rule is None:
        raise QueryError(f"there is no operation {node.name!a}; there are: {', '.join(OPERATIONS)}")
    if all(isinstance(a, Lit) for a in node.args):
        raise QueryError(CONSTANT)
    return rule(node, tuple(infer(a, schema) for a in node.args))


def _literal_type(value: Scalar) -> Type:
    if isinstance(value, bool):
        return Type("bool", value, value)
    if isinstance(value, str):
        return Type("text")
    return Type("int" if isinstance(value, int) else "float", value, value)


def _bounded(column: Column) -> bool:
    return column.bounds is not None or column.kind == "bool"


Rule = Callable[[Op, tuple[Type, ...]], Type]


def _arity(node: Op, count: int) -> None:
    if len(node.args) != count:
        raise QueryError(f"the operation {node.name} takes {count} operands, not {len(node.args)}")


def _numeric(node: Op, *types: Type) -> None:
    for found in types:
        if found.kind not in NUMERIC:
            hint = ": write .astype('int64') to count True as 1" if found.kind == "bool" else ""
            raise QueryError(f"{node.name} needs numbers, and {_describe(node)} is {found.kind}{hint}")


def _describe(node: Op) -> str:
    names = sorted(set(columns_of(node)))
    return f"an operand ({', '.join(names)})" if names else "an operand"


def _comparison(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 2)
    left, right = types
    if left.kind in NUMERIC and right.kind in NUMERIC:
        return Type("bool", 0, 1)
    if left.kind != right.kind:
        raise QueryError(f"{_describe(node)} is {left.kind} and is compared with {right.kind}")
    if node.name not in ("eq", "ne"):
        raise QueryError(f"{left.kind} can be compared with == and != only")
    if left.kind == "text":
        _text_comparison(node, left)
    return Type("bool", 0, 1)


def _text_comparison(node: Op, left: Type) -> None:
    if not isinstance(node.args[0], Col) or not all(isinstance(a, Lit) for a in node.args[1:]):
        raise QueryError("text columns are compared with constants: write the column left and the text right")
    if left.categories is None:
        return
    for constant in node.args[1:]:
        if isinstance(constant, Lit) and constant.value not in left.categories:
            declared = ", ".join(str(c)[:40] for c in left.categories[:20])
            raise QueryError(f"{ascii(constant.value)[:80]} is no category of {node.args[0].name}; there are: {declared}")


def _logic(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 1 if node.name == "not" else 2)
    if any(t.kind != "bool" for t in types):
        raise QueryError(f"'{node.name}' joins conditions; put each comparison in brackets: (f.a > 1) & (f.b < 2)")
    return Type("bool", 0, 1)


def _is_null(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 1)
    return Type("bool", 0, 1)


def _fill_null(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 2)
    value, filler = types
    if not isinstance(node.args[1], Lit):
        raise QueryError("fillna takes a constant")
    if value.kind == "text" or (value.kind != filler.kind and not (value.kind == "float" and filler.kind == "int")):
        raise QueryError(f"fillna on a column of kind {value.kind} can't take a constant of kind {filler.kind}")
    return Type(value.kind, min(value.low, filler.low), max(value.high, filler.high))


def _is_in(node: Op, types: tuple[Type, ...]) -> Type:
    if not 2 <= len(types) <= 101 or not all(isinstance(a, Lit) for a in node.args[1:]):
        raise QueryError("is_in takes a list of 1 to 100 constants")
    for i, constant in enumerate(types[1:], 1):
        _comparison(Op("eq", (node.args[0], node.args[i])), (types[0], constant))
    return Type("bool", 0, 1)


def _between(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 4)
    side = node.args[3]
    if not isinstance(side, Lit) or side.value not in ("both", "neither", "left", "right"):
        raise QueryError("between takes inclusive='both', 'neither', 'left' or 'right'")
    _numeric(node, *types[:3])
    return Type("bool", 0, 1)


def _clip(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 3)
    _numeric(node, *types)
    value, low, high = types
    if not isinstance(node.args[1], Lit) or not isinstance(node.args[2], Lit) or not low.low < high.low:
        raise QueryError("clip takes two constants, the lower one first")
    if value.kind == "int" and (low.kind, high.kind) != ("int", "int"):
        raise QueryError("clip of an integer column takes integers; or write .astype('float64') first")
    inner = (max(value.low, low.low), min(value.high, high.low))
    if inner[0] >= inner[1]:  # the published bounds lie outside; rows may not
        inner = (low.low, high.low)
    return Type(value.kind, *inner, None, value.may_be_nan)


def _cast(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 2)
    target = node.args[1]
    if not isinstance(target, Lit) or target.value not in ("int", "float"):
        raise QueryError("astype takes 'int64' or 'float64'")
    if types[0].kind == "text":
        raise QueryError(
            f"astype on text ({_describe(node)}) could fail on a private row, and that would tell of it; "
            "ask the owner to publish the column as a number"
        )
    whole = target.value == "int"
    low, high = (math.trunc(b) if whole and math.isfinite(b) else b for b in (types[0].low, types[0].high))
    return Type("int" if whole else "float", low, high, None, types[0].may_be_nan and not whole)


def _arithmetic(node: Op, types: tuple[Type, ...]) -> Type:
    _arity(node, 2)
    _numeric(node, *types)
    kind: Kind = "int" if {t.kind for t in types} == {"int"} and node.name != "truediv" else "float"
    try:
        low, high = _INTERVALS[node.name](node, *types)
    except OverflowError:  # a constant beyond what a float holds
        low, high = -math.inf, math.inf
    if kind == "int" and any(math.isfinite(b) and abs(b) >= 2**53 for b in (low, high)):
        raise QueryError(f"{_describe(node)} could pass 2**53; write .astype('float64') first")
    return Type(kind, low, high, None, kind == "float")


Interval = tuple[float, float]


def _span(*corners: float) -> Interval:
    return (-math.inf, math.inf) if any(math.isnan(c) for c in corners) else (min(corners), max(corners))


def _truediv(node: Op, x: Type, y: Type) -> Interval:
    if y.low <= 0 <= y.high:
        return -math.inf, math.inf
    return _span(x.low / y.low, x.low / y.high, x.high / y.low, x.high / y.high)


def _constant_divisor(node: Op) -> float:
    divisor = node.args[1]
    if not isinstance(divisor, Lit) or isinstance(divisor.value, str) or divisor.value <= 0:
        raise QueryError("// and % take a positive constant on the right; use / for columns")
    return divisor.value


def _floordiv(node: Op, x: Type, y: Type) -> Interval:
    by = _constant_divisor(node)
    low, high = (math.floor(b) if math.isfinite(b) else b for b in (x.low / by, x.high / by))
    return low, high


def _mod(node: Op, x: Type, y: Type) -> Interval:
    return 0, _constant_divisor(node)


_INTERVALS: Mapping[str, Callable[[Op, Type, Type], Interval]] = {
    "add": lambda node, x, y: _span(x.low + y.low, x.high + y.high),
    "sub": lambda node, x, y: _span(x.low - y.high, x.high - y.low),
    "mul": lambda node, x, y: _span(x.low * y.low, x.low * y.high, x.high * y.low, x.high * y.high),
    "truediv": _truediv,
    "floordiv": _floordiv,
    "mod": _mod,
}

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "is_null", "xor")
OPERATIONS: Mapping[str, Rule] = {
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _comparison),
    **dict.fromkeys(("and", "or", "xor", "not"), _logic),
    **dict.fromkeys(_INTERVALS, _arithmetic),
    "is_null": _is_null,
    "fill_null": _fill_null,
    "is_in": _is_in,
    "between": _between,
    "clip": _clip,
    "cast": _cast,
}
