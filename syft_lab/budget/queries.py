"""From a typed query to OpenDP on polars, by the fast path: build the mechanism once, with a scale that is computed.

`prepare` sees the published schema only (a plan over an empty frame), so that whatever it says is public; `run` is
given the data. Guarantee: ε-differential privacy under adding or removing one privacy unit with all its rows, by
OpenDP's `make_private_lazyframe` under the max-divergence measure; its privacy map at d_in = ``max_contributions`` is
checked against the price every time, before data is touched.

Traps kept out (docs/privacy.md): keys come from declared categories and a left join, never from the data; nulls and
NaN are filtered before an aggregate, not filled, so that they weigh nothing; a mean is a sum around the middle of the
bounds and a count, which needs less noise than a plain sum.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Any

os.environ.setdefault("RUST_BACKTRACE", "0")  # OpenDP resolves a backtrace for every internal miss: twice the time

import polars as pl

# Not opendp.prelude: it imports scikit-learn where that is installed, 1.4 s at the start of each kernel.
from opendp.accuracy import summarize_polars_measurement
from opendp.domains import atom_domain, lazyframe_domain, option_domain, series_domain, with_margin
from opendp.extras.polars import Margin, dp_len
from opendp.measurements import make_private_lazyframe
from opendp.measures import max_divergence
from opendp.metrics import symmetric_distance
from opendp.mod import Measurement, enable_features

from syft_lab.budget.accountant import MICRO, Cost
from syft_lab.budget.mechanisms import centred_mean, mean_error
from syft_lab.budget.tables import CODE, STORED, encode, stored_names, stored_type
from syft_lab.errors import FailedError, QueryError
from syft_lab.expr import Col, Lit, Node, Op, Query, Type, columns_of, infer
from syft_lab.schema import Kind, Scalar, Schema

enable_features("contrib")

_ATOMS = {"int": "i64", "float": "f64", "bool": "bool", "text": "String"}
CONFIDENCE = 0.95
VALUE = "value"
BROKEN = (Exception, pl.exceptions.PanicException)  # a panic of polars is no Exception to Python


@dataclass(frozen=True)
class Answer:
    """Noisy values, one a group in declared order (one in all without a group-by), and their 95 % error.

    ``keys`` holds a tuple of categories for each value. A value is None where the noisy count leaves a mean undefined.
    """

    keys: tuple[tuple[Scalar, ...], ...]
    values: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]


@dataclass(frozen=True)
class Prepared:
    """A query made private: the OpenDP measurement, and what it promises. ``errors`` by output: 95 %, or 97.5 % in a mean."""

    query: Query
    schema: Schema
    type: Type
    cost: Cost
    measurement: Measurement
    columns: tuple[str, ...]
    scales: Mapping[str, float]
    errors: Mapping[str, float]

    @property
    def accuracy(self) -> float | None:
        """The 95 % error as far as it is public; None for a mean, whose error depends on the group's size."""
        return None if self.query.aggregate == "mean" else next(iter(self.errors.values()))


def prepare(schema: Schema, query: Query, cost: Cost) -> Prepared:
    """Build the mechanism for ``query`` at ``cost``; raises QueryError, always from public facts alone."""
    found = query.check(schema)
    try:
        plan, columns = _plan(schema, query, found)
        scale = _build(schema, query, plan, columns, 1.0).map(schema.max_contributions) / (cost.epsilon / MICRO)
        measurement = _build(schema, query, plan, columns, scale)
        while not affordable(measurement, schema, cost):
            scale *= 1 + 1e-9
            measurement = _build(schema, query, plan, columns, scale)
        alpha = (1 - CONFIDENCE) / (2 if query.aggregate == "mean" else 1)
        summary = summarize_polars_measurement(measurement, alpha=alpha)
    except BROKEN:
        # Made from public facts alone; and whatever it was, an analyst's words are what the engine can't take.
        raise QueryError("OpenDP can't make this query private as it stands: write the expression more simply") from None
    scales, errors = (dict(zip(summary["column"], summary[k], strict=True)) for k in ("scale", "accuracy"))
    return Prepared(query, schema, found, cost, measurement, columns, scales, errors)


def affordable(measurement: Measurement, schema: Schema, cost: Cost) -> bool:
    """Whether the mechanism's privacy map, at the published contributions, stays within the price."""
    return bool(measurement.map(schema.max_contributions) <= cost.epsilon / MICRO)


def run(prepared: Prepared, table: pl.LazyFrame) -> Answer:
    """Release the query on the stored table. Any failure is FailedError with a constant text: no word about the data."""
    if not affordable(prepared.measurement, prepared.schema, prepared.cost):
        raise FailedError("the mechanism costs more than its price; nothing was computed. Tell the owner")
    try:
        noisy = prepared.measurement(table.select(prepared.columns)).collect()
        return _answer(prepared, noisy)
    except BROKEN:
        raise FailedError("the owner's kernel could not compute this query; its cost counts as spent") from None


def _build(schema: Schema, query: Query, plan: pl.LazyFrame, columns: tuple[str, ...], scale: float) -> Measurement:
    series = []
    for name in columns:
        atom = "u32" if name[0] == "g" else _ATOMS[schema.columns[int(name[1:])].kind]
        # Stored floats hold no NaN (publishing turns it to null), but inf stays.
        domain = atom_domain(T=atom, nan=False) if atom == "f64" else atom_domain(T=atom)
        series.append(series_domain(name, option_domain(domain)))
    frame = with_margin(lazyframe_domain(series), Margin(by=[], max_length=schema.max_rows))
    if query.by:
        by = [pl.col(f"g{schema.position(n)}") for n in query.by]
        frame = with_margin(frame, Margin(by=by, max_length=schema.max_rows))
    return make_private_lazyframe(frame, symmetric_distance(), max_divergence(), plan, global_scale=scale)


def _plan(schema: Schema, query: Query, found: Type) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """The plan over an empty frame with the columns that it needs, and their stored names."""
    columns = _needed(schema, query)
    frame = pl.LazyFrame(schema={n: stored_type(schema, n) for n in columns})
    frame = _chosen(frame, query, schema)
    if query.aggregate != "count" and query.value is not None:
        # Computed before grouping: polars is a third faster than with the same expression inside the aggregate.
        frame = frame.with_columns(_filled(query.value, schema, found).alias(VALUE))
    outputs = _outputs(query, found)
    if not query.by:
        return frame.select(outputs), columns
    names = [f"g{schema.position(n)}" for n in query.by]
    return _keys(schema, query).join(frame.group_by(names).agg(outputs), on=names, how="left"), columns


def _needed(schema: Schema, query: Query) -> tuple[str, ...]:
    used = [n for node in (query.value, query.filter) if node is not None for n in columns_of(node)]
    names = {stored_names(schema, schema.column(n))[0] for n in used}
    names |= {f"g{schema.position(n)}" for n in query.by}
    return tuple(sorted(names)) or stored_names(schema, schema.columns[0])[:1]


def _keys(schema: Schema, query: Query) -> pl.LazyFrame:
    names = [f"g{schema.position(n)}" for n in query.by]
    return pl.LazyFrame(_groups(query, schema)[0], schema=dict.fromkeys(names, CODE), orient="row")


def _outputs(query: Query, found: Type) -> list[pl.Expr]:
    count = dp_len(signed=False).alias("n")  # never below zero: post-processing
    if query.aggregate == "count":
        return [count]
    low, high = _bounds(found)
    if query.aggregate == "sum":
        return [_sum(pl.col(VALUE), low, high)]
    middle = middle_of(found)
    return [_sum(pl.col(VALUE) - middle, low - middle, high - middle), count]


def _bounds(found: Type) -> tuple[float, float]:
    number = float if found.kind == "float" else int
    return number(found.low), number(found.high)


def middle_of(found: Type) -> float:
    """The middle of the bounds, an integer for integers: sums around it have half the range to hide."""
    return (found.low + found.high) / 2 if found.kind == "float" else int(found.low + found.high) // 2


def _sum(value: pl.Expr, low: float, high: float) -> pl.Expr:
    noisy: pl.Expr = value.dp.sum((low, high)).alias("s")  # type: ignore[attr-defined]
    return noisy


def _filled(node: Node, schema: Schema, found: Type) -> pl.Expr:
    # Nulls and NaN were filtered out; the filler only tells OpenDP so, and lies within the bounds.
    value, low = _numbers(node, schema, found.kind), _bounds(found)[0]
    if found.kind == "float":
        return value.fill_null(low).fill_nan(low)
    return value.fill_null(low).clip(low, _bounds(found)[1])  # before anything is subtracted, which could wrap around


def _numbers(node: Node, schema: Schema, kind: Kind) -> pl.Expr:
    value = lower(node, schema)
    return value.cast(pl.Int64, strict=False) if kind == "bool" else value


def _answer(prepared: Prepared, noisy: pl.DataFrame) -> Answer:
    query, schema = prepared.query, prepared.schema
    names = [f"g{schema.position(n)}" for n in query.by]
    rows = {tuple(row[n] for n in names): row for row in noisy.iter_rows(named=True)}
    codes, keys = _groups(query, schema)
    results = [_value(prepared, rows[code]) for code in codes]
    return Answer(keys, tuple(v for v, _ in results), tuple(a for _, a in results))


def _value(prepared: Prepared, row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    if prepared.query.aggregate != "mean":
        value = row["n" if prepared.query.aggregate == "count" else "s"]
        return value, prepared.accuracy
    found, errors = prepared.type, prepared.errors
    value = centred_mean(row["s"], row["n"], middle_of(found), found.low, found.high)
    return value, mean_error(row["s"], row["n"], errors["s"], errors["n"], found.high - found.low)


# Lowering: one function a kind of node. Comparisons and logic give true or false, never null, as in pandas.


def lower(node: Node, schema: Schema) -> pl.Expr:
    """The polars expression of a checked node over the stored columns."""
    if isinstance(node, Col):
        return pl.col(stored_names(schema, schema.column(node.name))[0])
    if isinstance(node, Lit):
        return pl.lit(node.value)
    return _LOWER[node.name](node, schema)


def _present(node: Node, schema: Schema) -> pl.Expr:
    """True where the value is neither null nor NaN."""
    value = lower(node, schema)
    return value.is_not_null() & value.is_not_nan() if infer(node, schema).may_be_nan else value.is_not_null()


def _truth(node: Node, schema: Schema) -> pl.Expr:
    value = lower(node, schema)
    return value.fill_null(False) if isinstance(node, Col) or (isinstance(node, Op) and node.name == "fill_null") else value


def _pair(node: Op, schema: Schema) -> tuple[Any, Any]:
    """Both operands as expressions (constants as they are), with an integer made a float where they differ."""
    kinds = [infer(n, schema).kind for n in node.args]
    mixed = "float" in kinds and "int" in kinds
    left, right = (_operand(n, schema, mixed) for n in node.args)
    return left, right


def _operand(node: Node, schema: Schema, as_float: bool) -> Any:
    if isinstance(node, Lit):
        return float(node.value) if as_float else node.value
    value = lower(node, schema)
    return value.cast(pl.Float64, strict=False) if as_float and infer(node, schema).kind == "int" else value


def _compare(node: Op, schema: Schema) -> pl.Expr:
    if node.name == "ne":
        return ~_compare(Op("eq", node.args), schema)
    left, right = _pair(node, schema)
    column = node.args[0]
    if isinstance(column, Col) and infer(column, schema).kind == "text" and schema.column(column.name).categories:
        right = (schema.column(column.name).categories or ()).index(right)
    if not isinstance(left, pl.Expr):
        left = pl.lit(left)
    found: pl.Expr = getattr(left, f"__{node.name}__")(right)
    for operand in node.args:  # polars ranks NaN above all numbers; pandas compares it false
        if infer(operand, schema).may_be_nan:
            found = found & lower(operand, schema).is_not_nan()
    return found.fill_null(False)


def _logic(node: Op, schema: Schema) -> pl.Expr:
    operands = [_truth(a, schema) for a in node.args]
    if node.name == "not":
        return ~operands[0]
    if node.name == "xor":
        return (operands[0] | operands[1]) & ~(operands[0] & operands[1])
    return reduce(and_ if node.name == "and" else or_, operands)


def _arith(node: Op, schema: Schema) -> pl.Expr:
    left, right = _pair(node, schema)
    if node.name == "truediv":
        left, right = (_operand(a, schema, True) for a in node.args)
    base: Any = left if isinstance(left, pl.Expr) else pl.lit(left)
    found: pl.Expr = getattr(base, f"__{node.name}__")(right)
    return found


def _is_null(node: Op, schema: Schema) -> pl.Expr:
    return ~_present(node.args[0], schema)


def _fill(node: Op, schema: Schema) -> pl.Expr:
    value, filler = _pair(node, schema)
    filled: pl.Expr = value.fill_nan(filler) if infer(node.args[0], schema).may_be_nan else value
    return filled.fill_null(filler)


def _is_in(node: Op, schema: Schema) -> pl.Expr:
    return reduce(or_, (_compare(Op("eq", (node.args[0], a)), schema) for a in node.args[1:]))


def _between(node: Op, schema: Schema) -> pl.Expr:
    value, low, high, side = node.args
    inclusive = side.value if isinstance(side, Lit) else "both"
    above = Op("ge" if inclusive in ("both", "left") else "gt", (value, low))
    below = Op("le" if inclusive in ("both", "right") else "lt", (value, high))
    return _compare(above, schema) & _compare(below, schema)


def _clip(node: Op, schema: Schema) -> pl.Expr:
    value, low, high = node.args
    number = float if infer(value, schema).kind == "float" else int
    bounds = [number(a.value) if isinstance(a, Lit) else number(0) for a in (low, high)]
    return lower(value, schema).clip(*bounds)


def _cast(node: Op, schema: Schema) -> pl.Expr:
    target = node.args[1]
    # Never strict: a strict cast raises on a private row. What can't be cast becomes null.
    return lower(node.args[0], schema).cast(STORED["int" if target == Lit("int") else "float"], strict=False)


_LOWER: Mapping[str, Callable[[Op, Schema], pl.Expr]] = {
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), _compare),
    **dict.fromkeys(("and", "or", "xor", "not"), _logic),
    **dict.fromkeys(("add", "sub", "mul", "truediv", "floordiv", "mod"), _arith),
    "is_null": _is_null,
    "fill_null": _fill,
    "is_in": _is_in,
    "between": _between,
    "clip": _clip,
    "cast": _cast,
}


def exact(schema: Schema, query: Query, mock: pl.DataFrame) -> Answer:
    """The query without noise, for a *mock* under its own column names: lowered alike, so it answers as the table would.

    ``accuracy`` holds the sizes of the groups, which is what the error of a mean depends on.
    """
    found = query.check(schema)
    frame = _chosen(encode(schema, mock.lazy()), query, schema)
    outputs = [pl.len().alias("n")]
    if query.aggregate != "count" and query.value is not None:
        outputs.append(_numbers(query.value, schema, found.kind).clip(found.low, found.high).sum().alias("s"))
    names = [f"g{schema.position(n)}" for n in query.by]
    grouped = frame.group_by(names).agg(outputs) if names else frame.select(outputs)
    rows = {tuple(row[n] for n in names): row for row in grouped.collect().iter_rows(named=True)}
    codes, keys = _groups(query, schema)
    found_rows = [rows.get(code, {"n": 0, "s": 0}) for code in codes]
    of: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "count": lambda row: row["n"],
        "sum": lambda row: row["s"],
        "mean": lambda row: row["s"] / row["n"] if row["n"] else None,
    }
    return Answer(keys, tuple(of[query.aggregate](r) for r in found_rows), tuple(float(r["n"]) for r in found_rows))


def evaluate(schema: Schema, columns: Mapping[str, Node], chosen: Node | None, mock: pl.DataFrame) -> pl.DataFrame:
    """Columns computed on the rows of a *mock* that pass ``chosen``; text with categories as text again."""
    frame = _chosen(encode(schema, mock.lazy()), Query("count", None, chosen), schema)
    return frame.select(_shown(node, schema).alias(name) for name, node in columns.items()).collect()


def passing(schema: Schema, chosen: Node, stored: pl.LazyFrame) -> pl.Series:
    """Which rows of a stored table pass a filter: one boolean a row, in order. For cells and footprints, never an answer."""
    try:
        return stored.select(_truth(chosen, schema).alias("chosen")).collect().get_column("chosen")
    except BROKEN:
        raise QueryError("this filter can't be run as it stands: write the expression more simply") from None


def _shown(node: Node, schema: Schema) -> pl.Expr:
    value = lower(node, schema)
    declared = schema.column(node.name).categories if isinstance(node, Col) else None
    if declared is None or infer(node, schema).kind != "text":
        return value
    return value.replace_strict(pl.Series(range(len(declared)), dtype=CODE), pl.Series(declared), default=None)


def _chosen(frame: pl.LazyFrame, query: Query, schema: Schema) -> pl.LazyFrame:
    """The rows that pass the filter and have a value to aggregate."""
    conditions = [] if query.filter is None else [_truth(query.filter, schema)]
    if query.value is not None:
        conditions.append(_present(query.value, schema))
    return frame.filter(reduce(and_, conditions)) if conditions else frame


def _groups(query: Query, schema: Schema) -> tuple[list[tuple[int, ...]], tuple[tuple[Scalar, ...], ...]]:
    """Codes and categories of every declared group, in declared order; one empty tuple without a group-by."""
    declared = [schema.column(n).categories or () for n in query.by]
    codes = list(itertools.product(*(range(len(c)) for c in declared)))
    return codes, tuple(tuple(c[i] for c, i in zip(declared, code, strict=True)) for code in codes)
