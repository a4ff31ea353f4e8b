"""From a typed query to noisy numbers: polars computes a vector of integers, and OpenDP adds noise to that vector.

`prepare` sees the published schema only, so that whatever it says is public; `run` is given the data. The vector has the same
length and order whatever the rows are: one entry for each declared group, or two for a mean. Guarantee, for neighbours that
differ by one privacy unit with its at most k = ``max_contributions`` rows:

1. a row that passes the filter adds integers to the entries of one group, computed from that row alone (`lowering`), each
   clamped to what its `Grid` says; a row that does not, or that has no value, adds nothing;
2. so one row moves the vector by at most ``Grid.most`` in L1, and a unit by at most k · ``Grid.most``;
3. discrete Laplace noise of scale k · most / ε on a vector of that L1 sensitivity is ε-differentially private (Ghosh,
   Roughgarden, Sundararajan 2009); OpenDP draws it, and its privacy map is held against the price before data is touched;
4. counts, means and errors are computed from the noisy integers: post-processing.

A mean of values in [lo, hi] comes from two sums, of g = G·(x − lo)/(hi − lo) and of G − g: a row moves the pair by exactly G in
L1, as much as either alone, so both have the noise of the whole price. `tests/attacks/test_distance.py` holds 1 and 2 to be
true, on random questions and hostile neighbours. Keys come from declared categories, never from the data.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import polars as pl

from syft_lab.budget import noise
from syft_lab.budget.accountant import MICRO, Cost
from syft_lab.budget.lowering import lower, numbers, present, truth
from syft_lab.budget.mechanisms import mean_interval
from syft_lab.budget.tables import CODE, encode, stored_names, stored_type
from syft_lab.errors import FailedError, QueryError
from syft_lab.expr import Col, Node, Query, Type, infer
from syft_lab.schema import Scalar, Schema

MOST_BITS, SUM_BITS = 30, 61  # of what a row adds, and of what all rows add
WIDEST = 2.0**900  # of a value's bounds, so that no noisy sum passes what floats hold (2**1024)
ENTRY, REST = "entry", "rest"
Keys = tuple[tuple[Scalar, ...], ...]
BROKEN = (Exception, pl.exceptions.PanicException)  # a panic of polars is no Exception to Python


@dataclass(frozen=True)
class Grid:
    """How a value becomes an integer: ``round((x − offset) · scale)``, kept within ``low`` to ``high``.

    ``most`` is what a row adds to the entries of its group, at most, in L1. ``exact`` where no value is rounded.
    """

    offset: float
    scale: float
    low: int
    high: int
    exact: bool

    @property
    def most(self) -> int:
        """See above."""
        return max(abs(self.low), abs(self.high))

    @property
    def step(self) -> float:
        """What one unit is worth."""
        return 1 / self.scale

    def units(self, value: pl.Expr, low: float, high: float) -> pl.Expr:
        """The integer of each row; infinities are at the bounds, and where there is no value there is no integer."""
        scaled = (value.clip(low, high).cast(pl.Float64, strict=False) - self.offset) * self.scale
        return scaled.round().cast(pl.Int64, strict=False).clip(self.low, self.high)


@dataclass(frozen=True)
class Answer:
    """Noisy values, one a group in declared order (one in all without a group-by), their 95 % error, and 95 % intervals.

    ``keys`` holds a tuple of categories for each value. A value is None where the noisy count leaves a mean undefined.
    """

    keys: Keys
    values: tuple[float | None, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Prepared:
    """A query made private: how its rows become integers, and the noise that they get."""

    query: Query
    schema: Schema
    type: Type
    cost: Cost
    grid: Grid
    noise: noise.Noise

    @property
    def scales(self) -> dict[str, float]:
        """Scale of the noise on each kind of sum, in its own units."""
        scale = self.noise.scale * self.grid.step
        return {"mean": self.noise.scale / self.grid.most} if self.query.aggregate == "mean" else {self.query.aggregate: scale}

    @property
    def accuracy(self) -> float | None:
        """The 95 % error as far as it is public; None for a mean, whose error depends on the group's size."""
        return None if self.query.aggregate == "mean" else self.noise.error * self.grid.step + self.rounding

    @property
    def rounding(self) -> float:
        """What the grid can be off by: of a sum, of all rows together; of a mean, of each."""
        rows = self.schema.max_rows if self.query.aggregate == "sum" else 1
        return 0.0 if self.grid.exact else rows * self.grid.step / 2


def prepare(schema: Schema, query: Query, cost: Cost) -> Prepared:
    """The noise for ``query`` at ``cost``; raises QueryError, always from public facts alone."""
    found = query.check(schema)
    grid = _grid(schema, query, found)
    try:
        _vector(schema, query, found, grid, _empty(schema))
    except BROKEN:
        # Made from public facts alone; and whatever it was, an analyst's words are what the engine can't take.
        raise QueryError("polars can't compute this expression as it stands: write it more simply") from None
    l1 = schema.max_contributions * grid.most
    return Prepared(query, schema, found, cost, grid, noise.prepare(l1, float(l1), Cost(cost.epsilon)))


def affordable(prepared: Prepared) -> bool:
    """Whether OpenDP's privacy map stays within the price, for one unit with all its rows."""
    return bool(prepared.noise.spends(prepared.schema.max_contributions * prepared.grid.most) <= prepared.cost.epsilon / MICRO)


def run(prepared: Prepared, table: pl.LazyFrame) -> Answer:
    """Release the query on the stored table. Any failure is FailedError with a constant text: no word about the data."""
    if not affordable(prepared):
        raise FailedError("the mechanism costs more than its price; nothing was computed. Tell the owner")
    try:
        sums = _vector(prepared.schema, prepared.query, prepared.type, prepared.grid, table)
        return _answer(prepared, prepared.noise.draw(sums))
    except BROKEN:
        raise FailedError("the owner's kernel could not compute this query; its cost counts as spent") from None


def _empty(schema: Schema) -> pl.LazyFrame:
    names = [name for column in schema.columns for name in stored_names(schema, column)]
    return pl.LazyFrame(schema={n: stored_type(schema, n) for n in names})


def _grid(schema: Schema, query: Query, found: Type) -> Grid:
    """The grid of a query, from public facts: as fine as leaves room for ``max_rows`` rows."""
    if query.aggregate == "count":
        return Grid(0.0, 1.0, 0, 1, True)
    finest = 1 << min(MOST_BITS, SUM_BITS - schema.max_rows.bit_length())
    low, high = bounds(found)
    if query.aggregate == "mean":
        width = high - low
        if found.kind != "float" and width <= finest:
            fold = finest // int(width)
            return Grid(low, fold, 0, int(width) * fold, True)
        return Grid(low, _scale(finest, width), 0, finest, False)
    most = max(abs(low), abs(high))
    if found.kind != "float" and most <= finest:
        return Grid(0.0, 1.0, int(low), int(high), True)
    scale = _scale(finest, most)
    return Grid(0.0, scale, round(low * scale), round(high * scale), False)


def _scale(steps: int, width: float) -> float:
    """Steps a unit; raises QueryError where floats have none."""
    scale = steps / width
    if not 0 < scale < math.inf or math.isinf(1 / scale) or width > WIDEST:
        raise QueryError("the bounds of this expression are too wide or too narrow to compute with: write .clip(low, high)")
    return scale


def bounds(found: Type) -> tuple[float, float]:
    """The bounds of what is aggregated, whole ones for whole numbers; raises QueryError where they leave one value."""
    low, high = (found.low, found.high) if found.kind == "float" else (math.ceil(found.low), math.floor(found.high))
    if not low < high:
        raise QueryError("the bounds of this expression are equal: its value is a constant, not a question")
    return low, high


def _vector(schema: Schema, query: Query, found: Type, grid: Grid, table: pl.LazyFrame) -> list[int]:
    """The sums of a query in declared order, without noise; those of a mean in pairs."""
    names = [f"g{schema.position(n)}" for n in query.by]
    frame = _chosen(table, query, schema)
    outputs = [pl.len().cast(pl.Int64).alias(ENTRY)]
    if query.aggregate != "count" and query.value is not None:
        # Computed before grouping: polars is a third faster than with the same expression inside the aggregate.
        units = grid.units(numbers(query.value, schema, found.kind), *bounds(found))
        frame = frame.select(*names, units.alias(ENTRY))
        outputs = [pl.col(ENTRY).sum().alias(ENTRY)]
        if query.aggregate == "mean":
            outputs.append((grid.high - pl.col(ENTRY)).sum().alias(REST))
    grouped = frame.group_by(names).agg(outputs) if names else frame.select(outputs)
    entries = [ENTRY] if query.aggregate != "mean" else [ENTRY, REST]
    rows = {row[: len(names)]: row[len(names) :] for row in grouped.select(*names, *entries).collect().iter_rows()}
    codes, _ = _groups(query, schema)
    nothing = (0,) * len(entries)
    return [int(n or 0) for code in codes for n in rows.get(code, nothing)]


def _answer(prepared: Prepared, noisy: Sequence[int]) -> Answer:
    query, grid = prepared.query, prepared.grid
    keys = _groups(query, prepared.schema)[1]
    if query.aggregate == "mean":
        return _means(prepared, keys, noisy)
    values = tuple(n if grid.exact else n * grid.step for n in noisy)
    error = prepared.accuracy or 0.0
    least = 0.0 if query.aggregate == "count" else -math.inf
    return Answer(
        keys,
        values,
        (error,) * len(keys),
        tuple(max(least, v - error) for v in values),
        tuple(max(least, v + error) for v in values),
    )


def _means(prepared: Prepared, keys: Keys, noisy: Sequence[int]) -> Answer:
    grid, (lowest, highest) = prepared.grid, bounds(prepared.type)
    width = highest - lowest
    values, errors, lows, highs = [], [], [], []
    pairs = [(above / grid.most, below / grid.most) for above, below in zip(noisy[::2], noisy[1::2], strict=True)]
    for (above, below), (left, right) in zip(pairs, mean_interval(pairs, prepared.scales["mean"]), strict=True):
        share = min(max(above / (above + below), 0.0), 1.0) if above + below >= 1 else None
        value = None if share is None else min(lowest + width * share, highest)  # which rounding could pass
        low = max(lowest, lowest + width * left - prepared.rounding)
        high = min(highest, lowest + width * right + prepared.rounding)
        values.append(value)
        lows.append(low)
        highs.append(high)
        errors.append(width if value is None else max(value - low, high - value))
    return Answer(keys, tuple(values), tuple(errors), tuple(lows), tuple(highs))


def exact(schema: Schema, query: Query, mock: pl.DataFrame) -> tuple[Keys, tuple[float | None, ...]]:
    """Keys and values of the query without noise, for a *mock* under its own column names: lowered as for the table."""
    found = query.check(schema)
    frame = _chosen(encode(schema, mock.lazy()), query, schema)
    outputs = [pl.len().alias("n")]
    if query.aggregate != "count" and query.value is not None:
        outputs.append(numbers(query.value, schema, found.kind).clip(found.low, found.high).sum().alias("s"))
    names = [f"g{schema.position(n)}" for n in query.by]
    grouped = frame.group_by(names).agg(outputs) if names else frame.select(outputs)
    rows = {tuple(row[n] for n in names): row for row in grouped.collect().iter_rows(named=True)}
    codes, keys = _groups(query, schema)
    of: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
        "count": lambda row: row["n"],
        "sum": lambda row: row["s"],
        "mean": lambda row: row["s"] / row["n"] if row["n"] else None,
    }
    return keys, tuple(of[query.aggregate](rows.get(code, {"n": 0, "s": 0})) for code in codes)


def evaluate(schema: Schema, columns: Mapping[str, Node], chosen: Node | None, mock: pl.DataFrame) -> pl.DataFrame:
    """Columns computed on the rows of a *mock* that pass ``chosen``; text with categories as text again."""
    frame = _chosen(encode(schema, mock.lazy()), Query("count", None, chosen), schema)
    return frame.select(_shown(node, schema).alias(name) for name, node in columns.items()).collect()


def passing(schema: Schema, chosen: Node, stored: pl.LazyFrame) -> pl.Series:
    """Which rows of a stored table pass a filter: one boolean a row, in order. For cells and footprints, never an answer."""
    try:
        return stored.select(truth(chosen, schema).alias("chosen")).collect().get_column("chosen")
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
    conditions = [] if query.filter is None else [truth(query.filter, schema)]
    if query.value is not None:
        conditions.append(present(query.value, schema))
    return frame.filter(reduce(and_, conditions)) if conditions else frame


def _groups(query: Query, schema: Schema) -> tuple[list[tuple[int, ...]], Keys]:
    """Codes and categories of every declared group, in declared order; one empty tuple without a group-by."""
    declared = [schema.column(n).categories or () for n in query.by]
    codes = list(itertools.product(*(range(len(c)) for c in declared)))
    return codes, tuple(tuple(c[i] for c, i in zip(declared, code, strict=True)) for code in codes)
