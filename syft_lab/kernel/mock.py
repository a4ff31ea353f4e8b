"""Mocks: what analysts may see and test on. Made from bounds and categories alone, so they cost nothing."""

from __future__ import annotations

import numpy as np
import polars as pl

from syft_lab.budget.tables import STORED
from syft_lab.errors import UsageError
from syft_lab.schema import Column, Schema

ROWS, MAX_ROWS = 100, 100_000


def generate(schema: Schema) -> pl.DataFrame:
    """A mock of 100 rows from the published schema alone: the same schema gives the same mock."""
    draw = np.random.default_rng(0)  # no secret hangs on it: nothing private goes in
    return pl.DataFrame({c.name: _values(c, draw) for c in schema.columns})


def accept(schema: Schema, frame: pl.DataFrame) -> pl.DataFrame:
    """A mock the owner made: the published columns, in order, as their published kinds; raises UsageError."""
    missing = [c.name for c in schema.columns if c.name not in frame.columns]
    if missing:
        raise UsageError(f"the mock lacks the column {missing[0]}; give it every published column, or use mock='generate'")
    if frame.height > MAX_ROWS:
        raise UsageError(f"a mock has at most {MAX_ROWS} rows")
    try:
        typed = [frame.get_column(c.name).cast(STORED[c.kind]) for c in schema.columns]
    except pl.exceptions.PolarsError:
        raise UsageError("a column of the mock has another type than the published one; make them the same") from None
    return pl.DataFrame([s.alias("x").fill_nan(None).alias(s.name) if s.dtype == pl.Float64 else s for s in typed])


def _values(column: Column, draw: np.random.Generator) -> pl.Series:
    kind = STORED[column.kind]
    if column.categories is not None:
        return pl.Series([column.categories[i] for i in draw.integers(0, len(column.categories), ROWS)], dtype=kind)
    low, high = column.bounds or (0, 100)
    if column.kind == "int":
        return pl.Series(draw.integers(int(low), int(high), ROWS, endpoint=True), dtype=kind)
    if column.kind == "float":
        return pl.Series(draw.uniform(low, high, ROWS).round(3).clip(low, high), dtype=kind)
    if column.kind == "bool":
        return pl.Series(draw.random(ROWS) < 0.5, dtype=kind)
    return pl.Series([f"text {i}" for i in range(ROWS)], dtype=kind)


def doubled(schema: Schema, mock: pl.DataFrame) -> pl.DataFrame:
    """A mock with twice the rows: generated anew, or the owner's rows and as many mixed from them, column by column."""
    if mock.equals(generate(schema)):
        draw = np.random.default_rng(1)
        more = pl.DataFrame({c.name: _values(c, draw) for c in schema.columns})
    else:
        more = pl.DataFrame([s.sample(fraction=1.0, shuffle=True, seed=i) for i, s in enumerate(mock.get_columns())])
    for column in schema.columns:
        if column.kind == "text" and column.categories is None:
            more = more.with_columns((pl.col(column.name) + " more").alias(column.name))
    return pl.concat([mock, more])


def without(mock: pl.DataFrame, position: int) -> pl.DataFrame:
    """A mock without one of its rows."""
    return pl.concat([mock.slice(0, position), mock.slice(position + 1)])
