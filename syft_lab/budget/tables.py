"""How a published table is stored for the fast path, and how a mock is laid out the same way.

Column ``i`` of the schema becomes ``v<i>`` (its values: Int64, Float64, Boolean or String; NaN turned to null) and,
where the owner declared categories, ``g<i>`` (their codes, UInt32; a value that was not declared is null). Text with
categories is kept as codes only. Names of columns never reach polars, so none can be hostile.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from syft_lab.schema import Column, Kind, Schema

STORED: Mapping[Kind, Any] = {"int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "text": pl.String}
CODE = pl.UInt32


def stored_names(schema: Schema, column: Column) -> tuple[str, ...]:
    """Names under which a column is stored, the one that expressions use first."""
    i = schema.position(column.name)
    if column.categories is None:
        return (f"v{i}",)
    return (f"g{i}",) if column.kind == "text" else (f"v{i}", f"g{i}")


def stored_type(schema: Schema, name: str) -> Any:
    """The polars type of a stored column."""
    return CODE if name[0] == "g" else STORED[schema.columns[int(name[1:])].kind]


def encode(schema: Schema, frame: pl.LazyFrame) -> pl.LazyFrame:
    """The stored columns of a frame that has the schema's columns under their own names."""
    plain = {column.name: f"\0{i}" for i, column in enumerate(schema.columns)}  # pl.col takes some names for patterns
    columns = [(column, name) for column in schema.columns for name in stored_names(schema, column)]
    return frame.rename(plain).select(_stored(column, plain[column.name], name) for column, name in columns)


def _stored(column: Column, source: str, name: str) -> pl.Expr:
    value = pl.col(source).cast(STORED[column.kind], strict=False)
    if column.kind == "float":
        value = value.fill_nan(None)
    if name[0] == "v":
        return value.alias(name)
    declared = list(column.categories or ())
    codes = pl.Series(range(len(declared)), dtype=CODE)
    return value.replace_strict(pl.Series(declared, dtype=STORED[column.kind]), codes, default=None).alias(name)
